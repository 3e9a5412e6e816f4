import { CorruptStoreError, StoreUnavailableError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { type Clock, systemClock } from './clock.ts';
import {
  BACKOFF_MS_FIRST,
  BACKOFF_MS_MAX,
  FETCH_CONCURRENCY_DEFAULT,
  FETCH_TIMEOUT_MS_DEFAULT,
  REQUEST_TIMEOUT_MS,
  SHORT_READ_ATTEMPTS_MAX,
} from './fetch-limits.ts';
import { MergedReads, type PlacedReadOptions } from './merged-reads.ts';
import { type RemoteStore, TransientStoreError } from './remote-store.ts';
import { Slots } from './slots.ts';
import type { ReadOptions, ResourceKind } from './store.ts';

export interface RetryingStoreOptions {
  /** How long one read keeps trying, milliseconds, its waiting for a place included; then it rejects. */
  readonly fetchTimeoutMs?: number;
  /** One attempt at CONFIG or a range, milliseconds. States and listings can be long: for them the store watches for stalls. */
  readonly requestTimeoutMs?: number;
  /** Attempts under way at once; ranges side by side that wait are one. A read that waits before its next attempt holds no place. */
  readonly fetchConcurrency?: number;
  /** Makes the first attempt at once, without a place and unwatched: for stores that are near, where that costs more than it gives. */
  readonly isNear?: boolean;
  readonly log?: Log;
  readonly clock?: Clock;
  /** 0 <= x < 1: spreads the attempts of many servers that lost the same store. */
  readonly random?: () => number;
}

/** One read with all its attempts. */
interface Reading {
  readonly what: string;
  /** Milliseconds one attempt may take, if that is bounded. */
  readonly attemptTimeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/**
 * Tries again what can pass - TransientStoreError, and a few times what ends too early, since a proxy can cut an answer
 * so that it looks whole - with pauses that double. What cannot pass is handed on at once. When the budget is spent,
 * rejects with StoreUnavailableError. The store beneath must heed signals wherever it can stall.
 */
export class RetryingStore implements RemoteStore {
  readonly location: string;
  readonly #store: RemoteStore;
  readonly #budgetMs: number;
  readonly #requestTimeoutMs: number;
  readonly #isNear: boolean;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #slots: Slots;
  readonly #mergedReads: MergedReads;
  readonly #stops = new Set<AbortController>();
  #isClosed = false;

  constructor(store: RemoteStore, options: RetryingStoreOptions = {}) {
    this.location = store.location;
    this.#store = store;
    this.#budgetMs = options.fetchTimeoutMs ?? FETCH_TIMEOUT_MS_DEFAULT;
    this.#requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    this.#isNear = options.isNear ?? false;
    this.#log = options.log ?? silentLog;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#slots = new Slots(options.fetchConcurrency ?? FETCH_CONCURRENCY_DEFAULT);
    this.#mergedReads = new MergedReads(store, this.#slots);
  }

  readConfig({ signal }: ReadOptions = {}): Promise<Uint8Array> {
    const reading = { what: 'CONFIG', attemptTimeoutMs: this.#requestTimeoutMs, signal };
    return this.#read(reading, (options) => this.#store.readConfig(options));
  }

  list(kind: ResourceKind, { signal }: ReadOptions = {}): Promise<string[]> {
    const reading = { what: `The list of ${kind}`, attemptTimeoutMs: undefined, signal };
    return this.#read(reading, (options) => this.#store.list(kind, options));
  }

  readState(id: string, { signal }: ReadOptions = {}): Promise<Uint8Array> {
    const reading = { what: `State ${id}`, attemptTimeoutMs: undefined, signal };
    return this.#read(reading, (options) => this.#store.readState(id, options));
  }

  readPackfile(id: string, offset: number, target: Uint8Array, { signal }: ReadOptions = {}): Promise<void> {
    const reading = { what: `packfile ${id}`, attemptTimeoutMs: this.#requestTimeoutMs, signal };
    const nearby = (options: ReadOptions) => this.#store.readPackfile(id, offset, target, options);
    return this.#read(reading, nearby, (options) => this.#mergedReads.read(id, offset, target, options));
  }

  readPackfileUpTo(id: string, offset: number, target: Uint8Array, { signal }: ReadOptions = {}): Promise<number> {
    const reading = { what: `packfile ${id}`, attemptTimeoutMs: this.#requestTimeoutMs, signal };
    return this.#read(reading, (options) => this.#store.readPackfileUpTo(id, offset, target, options));
  }

  /** Stops what is under way, pauses included. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop.abort(new StoreUnavailableError(`${this.location} was closed`));
    await this.#store.close();
  }

  /** `placed`: `attempt` in a place. */
  async #read<T>(
    reading: Reading,
    attempt: (options: ReadOptions) => Promise<T>,
    placed = (options: PlacedReadOptions) => this.#inPlace(attempt, options),
  ): Promise<T> {
    if (this.#isClosed) throw new StoreUnavailableError(`${reading.what}: ${this.location} has been closed`);
    if (this.#isNear) {
      try {
        return await attempt({ signal: reading.signal });
      } catch (error) {
        if (!(error instanceof TransientStoreError) || this.#isClosed) throw error;
        this.#log.debug({ location: this.location, reason: error.message }, `${reading.what} is read again`);
      }
    }
    const startedAtMs = this.#clock.now();
    const stop = new AbortController();
    this.#stops.add(stop);
    const stopToo = () => stop.abort(reading.signal?.reason);
    if (reading.signal?.aborted) stopToo();
    reading.signal?.addEventListener('abort', stopToo, { once: true });
    try {
      for (let attempts = 1; ; attempts++) {
        const remainingMs = () => startedAtMs + this.#budgetMs - this.#clock.now();
        try {
          return await this.#attempt(reading, remainingMs(), stop.signal, placed);
        } catch (error) {
          stop.signal.throwIfAborted();
          await this.#pauseOrGiveUp(error, { reading, attempts, remainingMs: remainingMs(), stop: stop.signal });
        }
      }
    } finally {
      reading.signal?.removeEventListener('abort', stopToo);
      this.#stops.delete(stop);
    }
  }

  async #inPlace<T>(attempt: (options: ReadOptions) => Promise<T>, options: PlacedReadOptions): Promise<T> {
    await this.#slots.acquire(options.signal);
    options.onPlace();
    try {
      return await attempt({ signal: options.signal });
    } finally {
      this.#slots.release();
    }
  }

  /** One attempt, in a place, cut off after its time or at the end of the budget. */
  async #attempt<T>(
    { what, attemptTimeoutMs }: Reading,
    remainingMs: number,
    stop: AbortSignal,
    placed: (options: PlacedReadOptions) => Promise<T>,
  ): Promise<T> {
    const cut = new AbortController();
    const cutToo = () => cut.abort(stop.reason);
    stop.throwIfAborted();
    stop.addEventListener('abort', cutToo, { once: true });
    const cutAfter = (ms: number, why: string) =>
      this.#clock.after(ms, () => cut.abort(new TransientStoreError(`${what} at ${this.location}: ${why} ${ms} ms`)));
    let cancel = cutAfter(remainingMs, 'no place among the requests for');
    const onPlace = () => {
      cancel();
      // A listing or state may take longer than the budget as long as it moves; what it may not is begin again.
      if (attemptTimeoutMs !== undefined) {
        cancel = cutAfter(Math.min(attemptTimeoutMs, remainingMs), 'not answered in full within');
      }
    };
    try {
      return await placed({ signal: cut.signal, onPlace });
    } finally {
      cancel();
      stop.removeEventListener('abort', cutToo);
    }
  }

  /** Waits until the next attempt is due. Throws what ends the read: what cannot pass, or what has not within the budget. */
  async #pauseOrGiveUp(
    error: unknown,
    now: { reading: Reading; attempts: number; remainingMs: number; stop: AbortSignal },
  ): Promise<void> {
    const { reading, attempts, remainingMs, stop } = now;
    if (error instanceof CorruptStoreError) {
      if (attempts >= SHORT_READ_ATTEMPTS_MAX) throw error;
    } else if (!(error instanceof TransientStoreError)) throw error;
    const asked = error instanceof TransientStoreError ? (error.retryAfterMs ?? 0) : 0;
    const pauseMs = Math.max(asked, this.#backoffMs(attempts));
    const fields = { location: this.location, attempts, reason: error.message };
    if (pauseMs >= remainingMs) {
      if (error instanceof CorruptStoreError) throw error;
      this.#log.warn(fields, `${reading.what} could not be read: given up`);
      const details = { ...error.details, attempts };
      const message = `${error.message}; given up after ${attempts} attempts`;
      throw new StoreUnavailableError(message, { details, cause: error });
    }
    this.#log.debug({ ...fields, pauseMs }, `${reading.what} is read again`);
    await this.#pause(pauseMs, stop);
  }

  /** Half of it fixed, so that attempts spread out in time; half at random, so that readers spread out among themselves. */
  #backoffMs(attempts: number): number {
    const most = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** (attempts - 1));
    return Math.round(most / 2 + (this.#random() * most) / 2);
  }

  #pause(pauseMs: number, stop: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        cancel();
        reject(stop.reason);
      };
      const cancel = this.#clock.after(pauseMs, () => {
        stop.removeEventListener('abort', end);
        resolve();
      });
      stop.addEventListener('abort', end, { once: true });
    });
  }
}
