import { LRUCache } from 'lru-cache';
import { type ChunkOptions, type ChunkRef, type ChunkStore, type FetchPurpose, isGuess } from '../core/chunk-store.ts';
import { CorruptStoreError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';
import { orStopped, type StopOptions, StoppedError } from '../core/stop.ts';

/** What a cached chunk costs beside its bytes: key string, list and map entries, the array objects. */
const OVERHEAD_BYTES = 512;

/** A chunk on its way. */
interface Fetch {
  readonly content: Promise<Uint8Array>;
  readonly stop: AbortController;
  /** Readers that wait for it. */
  waiting: number;
  /** What upstream is asked for, seen by it as it changes. */
  readonly options: { purpose: FetchPurpose; readonly signal: AbortSignal };
}

/** How often chunks were found. */
export interface ChunkCacheCounters {
  hits: number;
  misses: number;
}

/**
 * Decoded chunks in memory, bounded in bytes, least recently used dropped first. However many ask for a chunk at once,
 * one of them fetches it, and when all of them have stopped the fetch is stopped too. Keyed by MAC, so that files and snapshots share their chunks, and by length: an object that
 * claims another length for a chunk must neither get the bytes of one that is right nor fail it.
 */
export class ChunkCache implements ChunkStore {
  readonly counters: ChunkCacheCounters = { hits: 0, misses: 0 };
  readonly #upstream: ChunkStore;
  readonly #cache: LRUCache<string, Uint8Array>;
  /** What a new reader can join. */
  readonly #inFlight = new Map<string, Fetch>();
  /** All that has not settled, abandoned ones too. */
  readonly #underWay = new Set<Promise<Uint8Array>>();

  /** Takes over `upstream`: closing the cache closes it. */
  constructor(upstream: ChunkStore, { bytesMax }: { bytesMax: number }) {
    this.#upstream = upstream;
    this.#cache = new LRUCache({
      maxSize: Math.max(1, bytesMax),
      sizeCalculation: (chunk) => chunk.byteLength + OVERHEAD_BYTES,
    });
  }

  async get(chunk: ChunkRef, options: ChunkOptions = {}): Promise<Uint8Array> {
    const { purpose = 'read', signal } = options;
    const cached = this.getNow(chunk);
    if (cached !== undefined) return cached;
    signal?.throwIfAborted();
    const key = keyOf(chunk);
    const fetch = this.#inFlight.get(key) ?? this.#start(key, chunk, purpose);
    fetch.waiting++;
    if (!isGuess(options)) fetch.options.purpose = 'read';
    try {
      return await orStopped(fetch.content, signal);
    } finally {
      if (--fetch.waiting === 0) this.#abandon(key, fetch);
    }
  }

  async readInto(chunk: ChunkRef, offset: number, target: Uint8Array, options: StopOptions = {}): Promise<void> {
    const plain = await this.get(chunk, options);
    if (plain.byteLength !== chunk.lengthBytes) {
      throw new CorruptStoreError(`it has ${plain.byteLength} bytes instead of ${chunk.lengthBytes}`);
    }
    target.set(plain.subarray(offset, offset + target.byteLength));
  }

  getNow(chunk: ChunkRef): Uint8Array | undefined {
    const cached = this.#cache.get(keyOf(chunk));
    if (cached !== undefined) this.counters.hits++;
    return cached;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    this.#cache.clear();
    await this.#upstream.close();
  }

  #start(key: string, chunk: ChunkRef, purpose: FetchPurpose): Fetch {
    this.counters.misses++;
    const stop = new AbortController();
    const options = { purpose, signal: stop.signal };
    const content = this.#upstream.get(chunk, options);
    const fetch: Fetch = { content, stop, waiting: 0, options };
    this.#inFlight.set(key, fetch);
    this.#underWay.add(content);
    const forget = () => {
      this.#underWay.delete(content);
      if (this.#inFlight.get(key) === fetch) this.#inFlight.delete(key);
    };
    content.then((plain) => {
      this.#cache.set(key, plain);
      forget();
    }, forget);
    return fetch;
  }

  /** Nobody waits any more: what has not come yet need not come. Whoever asks next begins anew. */
  #abandon(key: string, fetch: Fetch): void {
    if (this.#inFlight.get(key) !== fetch) return;
    this.#inFlight.delete(key);
    fetch.stop.abort(new StoppedError('nobody waits for the chunk any more'));
  }
}

function keyOf({ mac, lengthBytes }: ChunkRef): string {
  return `${toHex(mac)}:${lengthBytes}`;
}
