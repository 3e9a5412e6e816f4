/** What crosses between threads. An error's class does not survive the hop: its code does, and it is rebuilt. */
import {
  AssertionError,
  CorruptStoreError,
  KlosetNbdError,
  StoreUnavailableError,
  UnsupportedError,
  UserError,
} from '../core/errors.ts';

/** Decode `stored` into all of `target` and compare its MAC; without `stored` only compare. Shared memory is not copied. */
export interface ChunkTask {
  readonly stored?: Uint8Array;
  readonly target: Uint8Array;
  readonly mac: Uint8Array;
}

/** A task's result, or the error that was thrown on purpose. */
export type Outcome<T> =
  | { readonly value: T }
  | { readonly code: string; readonly message: string; readonly exitCode?: number };

/** Runs a task in a worker. Anything but our own errors is the worker's failure and is thrown there. */
export async function outcomeOf<T>(task: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await task() };
  } catch (error) {
    if (!(error instanceof KlosetNbdError)) throw error;
    const { code, message } = error;
    return error instanceof UserError ? { code, message, exitCode: error.exitCode } : { code, message };
  }
}

/** The task's result in the thread that asked; throws the error it ended with. */
export function resultOf<T>(outcome: Outcome<T>): T {
  if ('value' in outcome) return outcome.value;
  const { code, message, exitCode } = outcome;
  switch (code) {
    case 'UNSUPPORTED':
      throw new UnsupportedError(message);
    case 'USER':
      throw new UserError(message, exitCode === undefined ? {} : { exitCode });
    case 'CORRUPT_STORE':
      throw new CorruptStoreError(message);
    case 'STORE_UNAVAILABLE':
      throw new StoreUnavailableError(message);
    default: // A broken invariant over there is a bug here too, and no damaged store.
      throw new AssertionError(message);
  }
}
