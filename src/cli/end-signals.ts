import { constants } from 'node:os';
import { UserError } from '../core/errors.ts';

/** SIGINT, SIGTERM and SIGHUP, once asked for, and bugs: all mean the end, in order. */
export class EndSignals {
  readonly asked: Promise<void>;
  readonly #ending = new AbortController();
  #bug: { readonly cause: unknown } | undefined;
  readonly #listeners = new Set<(signal: NodeJS.Signals) => void>();

  constructor() {
    this.asked = new Promise((resolve) => {
      this.ending.addEventListener('abort', () => resolve());
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        // As shells count.
        this.#ending.abort(new UserError(`Ended by ${signal}.`, { exitCode: 128 + constants.signals[signal] }));
        for (const listener of this.#listeners) listener(signal);
      });
    }
  }

  /** Aborted when the end is asked for; its reason is what to say of work that it stopped. */
  get ending(): AbortSignal {
    return this.#ending.signal;
  }

  onSignal(listener: (signal: NodeJS.Signals) => void): void {
    this.#listeners.add(listener);
  }

  bug(cause: unknown): void {
    this.#bug ??= { cause };
    this.#ending.abort(cause);
  }

  throwBug(): void {
    if (this.#bug !== undefined) throw this.#bug.cause;
  }

  /** Work that stops when the end is asked for; rejects with the reason then, since what follows from it says less. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    try {
      const result = await work();
      this.ending.throwIfAborted();
      return result;
    } catch (error) {
      throw this.ending.aborted ? this.ending.reason : error;
    }
  }
}
