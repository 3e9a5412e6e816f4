import type { Activity } from '../core/activity.ts';
import { type ChunkOptions, type ChunkRef, type ChunkStore, isGuess } from '../core/chunk-store.ts';
import type { ByteBudget } from '../core/concurrency.ts';
import type { ReadCounters } from '../core/counters.ts';
import type { Decoder } from '../core/decoder.ts';
import { countContent } from '../core/file-costs.ts';
import { resourceTypes } from '../kloset/format.ts';
import type { Repository } from '../kloset/repository.ts';
import { nameChunk } from './error-names.ts';
import { COUNTED_CHUNKS_MAX } from './limits.ts';

/** Chunks read by our own reader: fetched from packfiles, decoded by `decoder`, within a budget of bytes in flight. */
export class KlosetChunkStore implements ChunkStore {
  readonly #repository: Repository;
  readonly #decoder: Decoder;
  readonly #budget: ByteBudget;
  readonly #counters: ReadCounters;
  readonly #activity: Activity | undefined;
  readonly #fetched = new FetchedSet();
  /** Chunks of contents being fetched, and since when there is one. */
  #busy = 0;
  #busySinceMs = 0;

  /** Repository, decoder and budget stay the caller's. `activity` is told of fetches that a client waits for. */
  constructor(parts: {
    repository: Repository;
    decoder: Decoder;
    budget: ByteBudget;
    counters: ReadCounters;
    activity?: Activity;
  }) {
    this.#activity = parts.activity;
    this.#repository = parts.repository;
    this.#decoder = parts.decoder;
    this.#budget = parts.budget;
    this.#counters = parts.counters;
  }

  get(chunk: ChunkRef, options: ChunkOptions = {}): Promise<Uint8Array> {
    return this.#named(chunk, options, async () => {
      const storedBytes = (await this.#repository.storedLength({ type: resourceTypes.chunk, mac: chunk.mac })) ?? 0;
      return this.#admitted(chunk, storedBytes, options, () => this.#fetchCounted(chunk, options));
    });
  }

  decode(chunk: ChunkRef, stored: Uint8Array, options: ChunkOptions = {}): Promise<Uint8Array> {
    return this.#named(chunk, options, () =>
      this.#admitted(chunk, stored.byteLength, options, () => this.#decode(chunk, stored, options)),
    );
  }

  async close(): Promise<void> {}

  /** Does it as a client's, where it is one's; errors name the chunk. */
  async #named(chunk: ChunkRef, options: ChunkOptions, work: () => Promise<Uint8Array>): Promise<Uint8Array> {
    // What is read ahead of a client is the client's, too: who scans waits for nothing else.
    const isForClient = options.purpose !== 'profile' && options.purpose !== 'warm-up';
    try {
      return await (this.#activity === undefined || !isForClient ? work() : this.#activity.during(work));
    } catch (error) {
      throw nameChunk(error, chunk);
    }
  }

  /** Does it when there is room for what the chunk takes. */
  #admitted(
    chunk: ChunkRef,
    storedBytes: number,
    options: ChunkOptions,
    work: () => Promise<Uint8Array>,
  ): Promise<Uint8Array> {
    const { signal } = options;
    return this.#budget.with(storedBytes + chunk.lengthBytes, work, { signal, isGuess: () => isGuess(options) });
  }

  async #decode({ mac, lengthBytes }: ChunkRef, stored: Uint8Array, options: ChunkOptions): Promise<Uint8Array> {
    const expected = { mac, plainBytes: lengthBytes, isGuess: () => isGuess(options) };
    const plain = await this.#decoder.decode(stored, expected);
    this.#counters.decodedBytes += plain.byteLength;
    return plain;
  }

  giveBack(plain: Uint8Array): void {
    this.#decoder.giveBack?.(plain);
  }

  async #fetchCounted(chunk: ChunkRef, options: ChunkOptions): Promise<Uint8Array> {
    if (chunk.file.cost === undefined) return this.#fetch(chunk, options);
    if (this.#busy++ === 0) this.#busySinceMs = performance.now();
    try {
      return await this.#fetch(chunk, options);
    } finally {
      if (--this.#busy === 0) this.#counters.contentBusyMs += performance.now() - this.#busySinceMs;
    }
  }

  #fetch(chunk: ChunkRef, options: ChunkOptions): Promise<Uint8Array> {
    this.#counters.chunksFetched++;
    let isNew: boolean | undefined;
    const startedMs = performance.now();
    return this.#repository.fetchBlob(
      { type: resourceTypes.chunk, mac: chunk.mac },
      {
        signal: options.signal,
        plainBytesMax: chunk.lengthBytes,
        onSound: options.onSound,
        decode: async (stored, packfile) => {
          options.onFetched?.();
          // Only now: one that nobody waited for any more has not been fetched.
          if (isNew === undefined) {
            isNew = this.#fetched.add(chunk.mac);
            if (!isNew) this.#counters.chunksFetchedTwice++;
          }
          const plain = await this.#decode(chunk, stored, options);
          const storedBytes = packfile === undefined ? 0 : stored.byteLength; // Of a replica nothing is fetched.
          countContent(this.#counters, chunk, { storedBytes, isNew, ms: performance.now() - startedMs });
          return plain;
        },
      },
    );
  }
}

/** Remembers chunks by 48 bits of their MAC: enough to count by, and a number takes no string's memory. */
class FetchedSet {
  readonly #seen = new Set<number>();

  /** False if it was there already; beyond the limit new ones are no longer remembered, and the count is a lower bound. */
  add(mac: Uint8Array): boolean {
    const key = Buffer.from(mac.buffer, mac.byteOffset, mac.byteLength).readUIntBE(0, 6);
    const isNew = !this.#seen.has(key);
    if (isNew && this.#seen.size < COUNTED_CHUNKS_MAX) this.#seen.add(key);
    return isNew;
  }
}
