/**
 * When the next blob may be fetched for hydration: not faster than the rate, and not beside clients' own fetches nor
 * shortly after them; but one every BUSY_STEP_MS, however busy they are.
 */
import type { Activity } from '../core/activity.ts';
import type { Clock } from '../kloset/clock.ts';
import { BUSY_STEP_MS, QUIET_MS } from './limits.ts';

export interface PaceOptions {
  /** Stored bytes a second; undefined: as fast as it goes. */
  readonly bytesPerSecond: number | undefined;
  readonly activity: Pick<Activity, 'quietMs'>;
  readonly clock: Clock;
}

export class Pace {
  readonly #options: PaceOptions;
  /** When the bytes admitted so far are paid for. */
  #paidAtMs: number;
  #admittedAtMs: number;

  constructor(options: PaceOptions) {
    this.#options = options;
    this.#paidAtMs = options.clock.now();
    this.#admittedAtMs = options.clock.now();
  }

  /** Resolves when so many bytes may be fetched; rejects with the signal's reason. */
  async admit(bytes: number, signal: AbortSignal): Promise<void> {
    const { bytesPerSecond, clock } = this.#options;
    for (;;) {
      signal.throwIfAborted();
      const waitMs = Math.max(this.#paidAtMs - clock.now(), this.#busyMs());
      if (waitMs <= 0) break;
      await pause(waitMs, clock, signal);
    }
    const now = clock.now();
    this.#admittedAtMs = now;
    if (bytesPerSecond !== undefined) this.#paidAtMs = Math.max(this.#paidAtMs, now) + (bytes / bytesPerSecond) * 1000;
  }

  /** How long clients are to be left alone, milliseconds. */
  #busyMs(): number {
    const { activity, clock } = this.#options;
    const untilQuiet = QUIET_MS - activity.quietMs;
    return Math.min(untilQuiet, this.#admittedAtMs + BUSY_STEP_MS - clock.now());
  }
}

/** Rejects with the signal's reason if that comes first. */
export function pause(delayMs: number, clock: Clock, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const stop = () => {
      cancel();
      reject(signal.reason);
    };
    const cancel = clock.after(delayMs, () => {
      signal.removeEventListener('abort', stop);
      resolve();
    });
    signal.addEventListener('abort', stop, { once: true });
  });
}
