import type { ChunkDisk } from '../cache/chunk-disk.ts';
import type { ChunkId } from '../cache/chunk-names.ts';
import type { HeldChunk } from './held-chunk.ts';
import { UNWRITTEN_CHUNKS_MAX } from './limits.ts';
import type { SegmentMemory } from './segment-memory.ts';

/** Has chunks that came from the store written to the disk tier, in the background and as fast as that takes them. */
export class ChunkKeeper {
  readonly #disk: ChunkDisk;
  readonly #memory: SegmentMemory;
  /** Fetched, and not yet on disk since that was busy; by the key that memory has them by. */
  readonly #unwritten = new Map<string, ChunkId>();

  constructor(disk: ChunkDisk, memory: SegmentMemory) {
    this.#disk = disk;
    this.#memory = memory;
  }

  /** Keeps a decoded chunk: now, or where the disk is too busy from memory, if it is still there by then. */
  keep(key: string, chunk: ChunkId, held: HeldChunk): void {
    // Those that wait are the next to go from memory, too.
    this.#writeWaiting();
    if (this.#disk.hasRoomFor(held.plain.byteLength)) this.#write(chunk, held);
    else this.#writeLater(key, chunk);
  }

  /** Keeps a chunk's stored bytes. Settles when they are no longer needed; undefined if the disk is too busy for them. */
  keepStored(chunk: ChunkId, stored: Uint8Array): Promise<void> | undefined {
    if (!this.#disk.hasRoomFor(stored.byteLength)) return undefined;
    return this.#disk.offerStored(chunk, stored).then(() => this.#writeWaiting());
  }

  #write(chunk: ChunkId, held: HeldChunk): void {
    held.hold();
    void this.#disk.offer(chunk, held.plain).then(() => {
      held.release();
      this.#writeWaiting();
    });
  }

  #writeLater(key: string, chunk: ChunkId): void {
    this.#unwritten.set(key, chunk);
    if (this.#unwritten.size <= UNWRITTEN_CHUNKS_MAX) return;
    this.#unwritten.delete(this.#unwritten.keys().next().value!);
    this.#disk.dropped();
  }

  #writeWaiting(): void {
    for (const [key, chunk] of this.#unwritten) {
      if (!this.#disk.hasRoomFor(chunk.lengthBytes)) return;
      this.#unwritten.delete(key);
      const held = this.#memory.whole(key);
      if (held === undefined) this.#disk.dropped();
      else this.#write(chunk, held);
    }
  }
}
