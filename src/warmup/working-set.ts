/**
 * The working set: segments of chunks that clients have read again, or by pages. It is kept with the cache when a server ends,
 * and now and then before, so that the next one has them in memory again: a restart leaves a database as warm as it was.
 * PostgreSQL's pg_prewarm does the same for shared buffers. What nobody reads any more goes as from memory: when there is
 * no room for it beside what is read.
 */
import { type ReadColumns, readColumns, writeColumns } from '../cache/columns.ts';
import { CacheDamagedError } from '../cache/errors.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import { MAC_BYTES } from '../core/mac.ts';
import type { StopOptions } from '../core/stop.ts';
import type { RecallableChunks, SegmentsOf } from '../source/chunk-cache.ts';
import { SEGMENT_BYTES } from '../source/limits.ts';
import { WORKING_SET_SAVE_MS } from './limits.ts';

/** With every change of what is written, or of how long segments are, another name. */
const NAME = `working set 1 ${SEGMENT_BYTES}`;

export class WorkingSet {
  readonly #chunks: RecallableChunks;
  readonly #cache: StoreCache;
  readonly #timer: NodeJS.Timeout;
  /** Reads that had been counted when it was last saved. */
  #savedReads = 0;
  #hasBegun = false;
  /** What the last server left is in memory, or not wanted there: what is in memory may take its place on disk. */
  #isReady: boolean;

  /** Both stay the caller's. `isRecalled`: `recall` will be called. */
  constructor(chunks: RecallableChunks, cache: StoreCache, { isRecalled }: { readonly isRecalled: boolean }) {
    this.#chunks = chunks;
    this.#cache = cache;
    this.#isReady = !isRecalled;
    this.#timer = setInterval(() => void this.save(), WORKING_SET_SAVE_MS).unref();
  }

  /** The first time: brings back what the last server left. Resolves to the bytes of that; rejects with the signal's reason. */
  async recall({ signal }: StopOptions): Promise<number> {
    if (this.#hasBegun) return 0;
    this.#hasBegun = true;
    const segments = await this.#cache.read(NAME, async (reader) => parse(await readColumns(reader)));
    const bytes = segments === undefined ? 0 : await this.#chunks.recall(segments, { signal });
    this.#isReady = true;
    return bytes;
  }

  /**
   * Writes it down, unless nothing has been read since, or the last one has not been recalled to its end. Never rejects: a
   * cache that takes nothing says so itself.
   */
  async save(): Promise<void> {
    const { hits, diskHits, misses } = this.#chunks.counters;
    const reads = hits + diskHits + misses;
    if (!this.#isReady || reads === this.#savedReads) return;
    this.#savedReads = reads;
    await write(this.#cache, this.#chunks.workingSet());
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.save();
  }
}

function write(cache: StoreCache, segments: readonly SegmentsOf[]): Promise<boolean> {
  return cache.write(NAME, (writer) =>
    writeColumns(writer, {
      values: {},
      columns: {
        macs: new Uint8Array(Buffer.concat(segments.map(({ chunk }) => chunk.mac))),
        lengths: Uint32Array.from(segments, ({ chunk }) => chunk.lengthBytes),
        counts: Uint32Array.from(segments, ({ indexes }) => indexes.length),
        indexes: Uint32Array.from(segments.flatMap(({ indexes }) => indexes)),
      },
    }),
  );
}

function parse(read: ReadColumns): SegmentsOf[] {
  const macs = read.column('macs', 'u8');
  const lengths = read.column('lengths', 'u32');
  const counts = read.column('counts', 'u32');
  const all = read.column('indexes', 'u32');
  if (macs.length !== lengths.length * MAC_BYTES || counts.length !== lengths.length) {
    throw new CacheDamagedError('its columns have different lengths');
  }
  let done = 0;
  return Array.from(lengths, (lengthBytes, i) => {
    const indexes = [...all.subarray(done, done + counts[i]!)];
    done += indexes.length;
    if (indexes.some((index) => index * SEGMENT_BYTES >= lengthBytes)) {
      throw new CacheDamagedError('it names segments that its chunks do not have');
    }
    return { chunk: { mac: macs.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES), lengthBytes }, indexes };
  });
}
