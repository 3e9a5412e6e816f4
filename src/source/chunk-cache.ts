import { LRUCache } from 'lru-cache';
import type { ChunkRef, ChunkStore } from '../core/chunk-store.ts';
import { toHex } from '../core/mac.ts';

/** What a cached chunk costs beside its bytes: key string, list and map entries, the array objects. */
const OVERHEAD_BYTES = 512;

/** How often chunks were found. */
export interface ChunkCacheCounters {
  hits: number;
  misses: number;
}

/**
 * Decoded chunks in memory, bounded in bytes, least recently used dropped first. However many ask for a chunk at once,
 * one of them fetches it. Keyed by MAC, so that files and snapshots share their chunks, and by length: an object that
 * claims another length for a chunk must neither get the bytes of one that is right nor fail it.
 */
export class ChunkCache implements ChunkStore {
  readonly counters: ChunkCacheCounters = { hits: 0, misses: 0 };
  readonly #upstream: ChunkStore;
  readonly #cache: LRUCache<string, Uint8Array>;
  readonly #inFlight = new Map<string, Promise<Uint8Array>>();

  /** Takes over `upstream`: closing the cache closes it. */
  constructor(upstream: ChunkStore, { bytesMax }: { bytesMax: number }) {
    this.#upstream = upstream;
    this.#cache = new LRUCache({
      maxSize: Math.max(1, bytesMax),
      sizeCalculation: (chunk) => chunk.byteLength + OVERHEAD_BYTES,
    });
  }

  get(chunk: ChunkRef): Promise<Uint8Array> {
    const cached = this.getNow(chunk);
    if (cached !== undefined) return Promise.resolve(cached);
    const key = keyOf(chunk);
    const underWay = this.#inFlight.get(key);
    if (underWay !== undefined) return underWay;
    this.counters.misses++;
    const fetching = this.#fetch(key, chunk);
    this.#inFlight.set(key, fetching);
    return fetching;
  }

  getNow(chunk: ChunkRef): Uint8Array | undefined {
    const cached = this.#cache.get(keyOf(chunk));
    if (cached !== undefined) this.counters.hits++;
    return cached;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#inFlight.values());
    this.#cache.clear();
    await this.#upstream.close();
  }

  async #fetch(key: string, chunk: ChunkRef): Promise<Uint8Array> {
    try {
      const plain = await this.#upstream.get(chunk);
      this.#cache.set(key, plain);
      return plain;
    } finally {
      this.#inFlight.delete(key);
    }
  }
}

function keyOf({ mac, lengthBytes }: ChunkRef): string {
  return `${toHex(mac)}:${lengthBytes}`;
}
