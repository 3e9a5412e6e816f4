import type { ChunkRef } from '../core/chunk-store.ts';
import type { ReadCounters } from '../core/counters.ts';

/** Told when a chunk goes unused. */
type Dropped = (chunk: ChunkRef) => void;

/**
 * What was fetched before anybody asked for it, until a client does: says how useful guesses are. Bounded in plain
 * bytes, the oldest given up first, as a cache of that size would. Chunks are known by their references, since two
 * files that share one are two guesses, and asking must cost next to nothing.
 */
export class AheadLedger {
  readonly #counters: ReadCounters;
  readonly #bytesMax: number;
  readonly #unused = new Map<ChunkRef, Dropped | undefined>();
  #bytes = 0;

  constructor(counters: ReadCounters, { bytesMax }: { bytesMax: number }) {
    this.#counters = counters;
    this.#bytesMax = bytesMax;
  }

  /** Fetched, and not used yet. `dropped` is called if it goes without, except through `drop`. */
  add(chunk: ChunkRef, dropped?: Dropped): void {
    this.#counters.aheadChunks++;
    this.#counters.aheadBytes += chunk.lengthBytes;
    this.#unused.set(chunk, dropped);
    this.#bytes += chunk.lengthBytes;
    for (const [oldest, tell] of this.#unused) {
      if (this.#bytes <= this.#bytesMax) break;
      this.drop(oldest);
      tell?.(oldest);
    }
  }

  /** A client reads the chunk: true if it was fetched ahead for the first of its reads. */
  use(chunk: ChunkRef): boolean {
    if (this.#unused.size === 0 || !this.#take(chunk)) return false;
    this.#counters.aheadUsedChunks++;
    this.#counters.aheadUsedBytes += chunk.lengthBytes;
    return true;
  }

  /** Nobody will read it: true if it was fetched ahead and not used. */
  drop(chunk: ChunkRef): boolean {
    if (!this.#take(chunk)) return false;
    this.#counters.aheadDroppedChunks++;
    this.#counters.aheadDroppedBytes += chunk.lengthBytes;
    return true;
  }

  #take(chunk: ChunkRef): boolean {
    if (!this.#unused.delete(chunk)) return false;
    this.#bytes -= chunk.lengthBytes;
    return true;
  }
}
