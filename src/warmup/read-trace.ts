/** Which chunks clients have read, each once, in the order of their first read. */
import type { ChunkOptions, ChunkRef, ChunkStore } from '../core/chunk-store.ts';
import type { Reach } from '../core/device.ts';
import { TRACED_CHUNKS_MAX } from './limits.ts';

/** A chunk, and where it was in which file. */
export interface TracedChunk {
  readonly mac: Uint8Array;
  readonly lengthBytes: number;
  /** Absolute path in the snapshot, raw bytes. */
  readonly path: Uint8Array;
  /** Byte of the file with which it begins. */
  readonly offset: number;
}

export class ReadTrace {
  readonly #chunksMax: number;
  /** 48 bits of each MAC: enough to know it again, and a number takes no string's memory. */
  readonly #seen = new Set<number>();
  #chunks: TracedChunk[] = [];
  /** Files are mostly read chunk by chunk, in many small reads. */
  #last: ChunkRef | undefined;

  /** What comes behind the first `chunksMax` chunks is not remembered. */
  constructor({ chunksMax = TRACED_CHUNKS_MAX }: { chunksMax?: number } = {}) {
    this.#chunksMax = chunksMax;
  }

  /** Somebody has read of `chunk`. */
  note(chunk: ChunkRef): void {
    if (chunk === this.#last || this.#chunks.length >= this.#chunksMax) return;
    this.#last = chunk;
    const { mac, lengthBytes, indexInFile, file } = chunk;
    const key = Buffer.from(mac.buffer, mac.byteOffset, mac.byteLength).readUIntBE(0, 6);
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    let offset = 0;
    for (let i = 0; i < indexInFile; i++) offset += file.chunks[i]!.lengthBytes;
    // A copy of its own: the MAC is a view of its file's table, which would stay in memory.
    this.#chunks.push({ mac: mac.slice(), lengthBytes, path: file.path, offset });
  }

  /** Forgets what was read: from here on all counts as read for the first time. */
  clear(): void {
    this.#seen.clear();
    this.#chunks = [];
    this.#last = undefined;
  }

  /** Those read so far. */
  list(): readonly TracedChunk[] {
    return [...this.#chunks];
  }
}

/** `chunks` for clients whose reads are noted in `trace`. Closing it is left to whoever has `chunks`. */
export function traced(chunks: ChunkStore, trace: ReadTrace): ChunkStore {
  const note = (chunk: ChunkRef, { purpose = 'read' }: ChunkOptions = {}) => {
    if (purpose === 'read') trace.note(chunk);
  };
  return {
    get(chunk, options) {
      note(chunk, options);
      return chunks.get(chunk, options);
    },
    ...(chunks.readIntoNow && {
      readIntoNow(chunk: ChunkRef, offset: number, target: Uint8Array, reach?: Reach) {
        if (reach !== 'unseen') trace.note(chunk);
        return chunks.readIntoNow!(chunk, offset, target, reach);
      },
    }),
    ...(chunks.readInto && {
      readInto(chunk: ChunkRef, offset: number, target: Uint8Array, options?: ChunkOptions) {
        note(chunk, options);
        return chunks.readInto!(chunk, offset, target, options);
      },
    }),
    ...(chunks.prefetch && {
      prefetch: (chunk: ChunkRef, options: ChunkOptions) => chunks.prefetch!(chunk, options),
    }),
    close: async () => {},
  };
}
