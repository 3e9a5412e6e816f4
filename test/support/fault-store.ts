/** A store that fails as told, and a clock that a test moves. */

import { CorruptStoreError } from '../../src/core/errors.ts';
import type { Clock } from '../../src/kloset/clock.ts';
import { MissingResourceError, type RemoteStore } from '../../src/kloset/remote-store.ts';
import type { ReadOptions, ResourceKind } from '../../src/kloset/store.ts';
import type { StoreContent } from '../conformance/store-suite.ts';

/** What happens to one call instead of the read: an error to reject with, or no answer until it is stopped. */
export type Fault = Error | 'stall';

/** Asks `next` before each call whether it fails; records the calls. */
export class FaultStore implements RemoteStore {
  readonly location: string;
  readonly calls: string[] = [];
  /** Calls under way now, and the most there ever were. */
  underWay = 0;
  underWayMost = 0;
  readonly #store: RemoteStore;
  readonly #next: (call: string) => Fault | undefined | Promise<Fault | undefined>;

  constructor(store: RemoteStore, next: (call: string) => Fault | undefined | Promise<Fault | undefined>) {
    this.#store = store;
    this.#next = next;
    this.location = store.location;
  }

  readConfig(options?: ReadOptions): Promise<Uint8Array> {
    return this.#call('CONFIG', options, () => this.#store.readConfig(options));
  }

  list(kind: ResourceKind, options?: ReadOptions): Promise<string[]> {
    return this.#call(kind, options, () => this.#store.list(kind, options));
  }

  readState(id: string, options?: ReadOptions): Promise<Uint8Array> {
    return this.#call(`state ${id}`, options, () => this.#store.readState(id, options));
  }

  readPackfile(id: string, offset: number, target: Uint8Array, options?: ReadOptions): Promise<void> {
    const call = `packfile ${id} ${offset}+${target.byteLength}`;
    return this.#call(call, options, () => this.#store.readPackfile(id, offset, target, options));
  }

  readPackfileUpTo(id: string, offset: number, target: Uint8Array, options?: ReadOptions): Promise<number> {
    const call = `packfile ${id} ${offset}..${target.byteLength}`;
    return this.#call(call, options, () => this.#store.readPackfileUpTo(id, offset, target, options));
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  async #call<T>(call: string, options: ReadOptions | undefined, read: () => Promise<T>): Promise<T> {
    this.calls.push(call);
    this.underWayMost = Math.max(this.underWayMost, ++this.underWay);
    try {
      const fault = await this.#next(call);
      if (fault instanceof Error) throw fault;
      if (fault === 'stall') await stopped(options?.signal);
      return await read();
    } finally {
      this.underWay--;
    }
  }
}

/** Never resolves; rejects once the read is stopped. */
function stopped(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.throwIfAborted();
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** Time stands still but for `runUntilIdle`, which jumps from timer to timer. */
export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ readonly atMs: number; readonly action: () => void }>();

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  /** Moves on to the next timer whenever nothing else is left to do, until `work` has settled. */
  async runUntilIdle<T>(work: Promise<T>): Promise<PromiseSettledResult<T>> {
    let result: PromiseSettledResult<T> | undefined;
    const settled = Promise.allSettled([work]).then(([outcome]) => {
      result = outcome;
    });
    while (result === undefined) {
      // One turn of the event loop: whatever was ready, file reads excepted, has happened then.
      await Promise.race([settled, new Promise((resolve) => setImmediate(resolve))]);
      if (result === undefined) this.#fireNext();
    }
    return result;
  }

  #fireNext(): void {
    const [next] = [...this.#timers].sort((a, b) => a.atMs - b.atMs);
    if (next === undefined) return;
    this.#timers.delete(next);
    this.#nowMs = Math.max(this.#nowMs, next.atMs);
    next.action();
  }
}

/** Packfiles in memory: every read is done in one turn of the event loop. */
export class MemoryStore implements RemoteStore {
  readonly location = 'memory';
  readonly #content: StoreContent;

  constructor(content: StoreContent) {
    this.#content = content;
  }

  async readConfig(): Promise<Uint8Array> {
    return this.#content.config;
  }

  async list(kind: ResourceKind): Promise<string[]> {
    return [...this.#content[kind].keys()];
  }

  async readState(id: string): Promise<Uint8Array> {
    return resourceOf(this.#content.states, id);
  }

  async readPackfile(id: string, offset: number, target: Uint8Array): Promise<void> {
    const filled = await this.readPackfileUpTo(id, offset, target);
    if (filled < target.byteLength) throw new CorruptStoreError(`packfile ${id}: it ends`);
  }

  async readPackfileUpTo(id: string, offset: number, target: Uint8Array): Promise<number> {
    const piece = resourceOf(this.#content.packfiles, id).subarray(offset, offset + target.byteLength);
    target.set(piece);
    return piece.byteLength;
  }

  async close(): Promise<void> {}
}

function resourceOf(resources: ReadonlyMap<string, Buffer>, id: string): Buffer {
  const resource = resources.get(id);
  if (resource === undefined) throw new MissingResourceError(`there is no ${id}`);
  return resource;
}
