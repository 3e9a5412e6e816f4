/** What crosses between the main thread and a codec worker. An error's class does not survive a thread hop: it is rebuilt. */
import { CorruptStoreError } from '../core/errors.ts';

/** Decode `stored` into all of `target` and compare its MAC. Both are shared memory: nothing is copied. */
export interface DecodeTask {
  readonly stored: Uint8Array;
  readonly target: Uint8Array;
  readonly mac: Uint8Array;
}

/** Undefined: done. */
export type DecodeOutcome = { readonly code: string; readonly message: string } | undefined;

/** The outcome that says `error`; anything but damage is thrown, as the worker's own failure. */
export function toOutcome(error: unknown): DecodeOutcome {
  if (error instanceof CorruptStoreError) return { code: error.code, message: error.message };
  throw error;
}

/** Throws what the outcome says. */
export function raiseOutcome(outcome: DecodeOutcome): void {
  if (outcome !== undefined) throw new CorruptStoreError(outcome.message);
}
