/** Results and errors that cross to another thread or process. An error's class does not survive the hop: its code does, and it is rebuilt. */
import {
  AssertionError,
  CorruptStoreError,
  KlosetNbdError,
  OverlayError,
  StoreUnavailableError,
  UnsupportedError,
  UserError,
} from './errors.ts';

/** A task's result, or the error that was thrown on purpose. */
export type Outcome<T> =
  | { readonly value: T }
  | {
      readonly code: string;
      readonly message: string;
      readonly exitCode?: number;
      readonly reason?: OverlayError['reason'];
    };

/** Runs a task over there. Anything but our own errors is thrown there. */
export async function outcomeOf<T>(task: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await task() };
  } catch (error) {
    if (!(error instanceof KlosetNbdError)) throw error;
    const { code, message } = error;
    if (error instanceof UserError) return { code, message, exitCode: error.exitCode };
    return error instanceof OverlayError ? { code, message, reason: error.reason } : { code, message };
  }
}

/** The task's result where it was asked for; throws the error it ended with. */
export function resultOf<T>(outcome: Outcome<T>): T {
  if ('value' in outcome) return outcome.value;
  const { code, message, exitCode, reason } = outcome;
  switch (code) {
    case 'UNSUPPORTED':
      throw new UnsupportedError(message);
    case 'USER':
      throw new UserError(message, exitCode === undefined ? {} : { exitCode });
    case 'CORRUPT_STORE':
      throw new CorruptStoreError(message);
    case 'STORE_UNAVAILABLE':
      throw new StoreUnavailableError(message);
    case 'OVERLAY':
      throw new OverlayError(message, { reason: reason ?? 'io' });
    default: // A broken invariant over there is a bug here too, and no damaged store.
      throw new AssertionError(message);
  }
}
