/** Files cut into chunks of a MiB, read by a reader that is read ahead of: what is fetched, and when. */
import type { ChunkOptions, ChunkRef, ChunkStore } from '../../src/core/chunk-store.ts';
import { newReadCounters } from '../../src/core/counters.ts';
import { MiB } from '../../src/core/units.ts';
import { Prefetcher } from '../../src/source/prefetcher.ts';
import { type AheadFiles, type ChunkRun, ReadAhead } from '../../src/source/read-ahead.ts';

const CHUNK_BYTES = 1 * MiB;

/** Lets everything run that waits for nothing but its turn. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Keeps what was fetched ahead; `fetched` names it `entry:chunk`, in that order. */
class NotingStore implements ChunkStore {
  readonly fetched: string[] = [];
  readonly #there = new Set<ChunkRef>();

  get(): Promise<Uint8Array> {
    throw new Error('not asked for');
  }

  async prefetch(chunk: ChunkRef, _options: ChunkOptions): Promise<boolean> {
    if (this.#there.has(chunk)) return false;
    this.#there.add(chunk);
    this.fetched.push(`${Buffer.from(chunk.file.path)}:${chunk.indexInFile}`);
    return true;
  }

  async close(): Promise<void> {}
}

export class AheadBench implements AheadFiles {
  readonly store = new NotingStore();
  readonly counters = newReadCounters();
  readonly readAhead: ReadAhead;
  readonly #prefetcher: Prefetcher;
  readonly #files: readonly { readonly sizeBytes: number; readonly chunks: readonly ChunkRef[] }[];

  /** `sizes`: bytes of each file, in the order of the disk. `bytesMax`: as ReadAhead's. */
  constructor(sizes: readonly number[], { bytesMax = 128 * MiB }: { bytesMax?: number } = {}) {
    this.#files = sizes.map((sizeBytes, entry) => ({ sizeBytes, chunks: cut(entry, sizeBytes) }));
    const { store: chunks, counters } = this;
    this.#prefetcher = new Prefetcher({ chunks, counters, keptBytesMax: 2 * bytesMax });
    this.readAhead = new ReadAhead({ prefetcher: this.#prefetcher, bytesMax });
  }

  get fetched(): readonly string[] {
    return this.store.fetched;
  }

  sizeOf(entry: number): number {
    return this.#files[entry]!.sizeBytes;
  }

  nextFile(entry: number): number | undefined {
    return entry + 1 < this.#files.length ? entry + 1 : undefined;
  }

  async chunksFrom(entry: number, offset: number, bytes: number): Promise<ChunkRun> {
    const first = Math.floor(offset / CHUNK_BYTES);
    const chunks = this.#files[entry]!.chunks.slice(first, Math.ceil((offset + bytes) / CHUNK_BYTES));
    const start = first * CHUNK_BYTES;
    return { chunks, start, end: start + chunks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) };
  }

  /** A client reads; settles when everything that this leads to is done. */
  async read(entry: number, offset: number, bytes: number): Promise<void> {
    const end = Math.min(offset + bytes, this.sizeOf(entry));
    this.readAhead.touched(this, { entry, offset, end });
    const { chunks } = this.#files[entry]!;
    for (let at = Math.floor(offset / CHUNK_BYTES); at * CHUNK_BYTES < end; at++) this.readAhead.used(chunks[at]!);
    await turn();
  }

  /** A client reads the range piece by piece. */
  async readOn(
    entry: number,
    { from = 0, to = this.sizeOf(entry), step }: { from?: number; to?: number; step: number },
  ) {
    for (let offset = from; offset < to; offset += step) await this.read(entry, offset, Math.min(step, to - offset));
  }

  close(): Promise<void> {
    this.readAhead.forget(this);
    return this.#prefetcher.close();
  }
}

function cut(entry: number, sizeBytes: number): ChunkRef[] {
  const chunks: ChunkRef[] = [];
  const file = { snapshotId: '', path: Buffer.from(`${entry}`), chunks };
  for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
    const lengthBytes = Math.min(CHUNK_BYTES, sizeBytes - at);
    chunks.push({ mac: new Uint8Array(32), lengthBytes, file, indexInFile: chunks.length });
  }
  return chunks;
}
