/** Reads that can be stopped when nobody waits for them any more. */
import { KlosetNbdError } from './errors.ts';

/** Nobody waits for the result. Never logged, never sent to a client. */
export class StoppedError extends KlosetNbdError {
  readonly code = 'STOPPED';
}

export interface StopOptions {
  /** Stops the read: it rejects soon after with the signal's reason, and touches its target no more from then on. */
  readonly signal?: AbortSignal | undefined;
}

/** `work`, unless the signal comes first: then rejects with its reason, and `work` goes on for others. */
export function orStopped<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
