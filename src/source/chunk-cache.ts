import type { ChunkDisk, ChunkForm } from '../cache/chunk-disk.ts';
import type { ChunkId } from '../cache/chunk-names.ts';
import { USE_RECORD_AGE_MS } from '../cache/limits.ts';
import { type ChunkOptions, type ChunkRef, type ChunkStore, type FetchPurpose, isGuess } from '../core/chunk-store.ts';
import { mapConcurrently } from '../core/concurrency.ts';
import { copyBytes } from '../core/copy-bytes.ts';
import { type CacheCounters, newCacheCounters } from '../core/counters.ts';
import type { Reach } from '../core/device.ts';
import { CorruptStoreError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';
import { SharedArena } from '../core/shared-arena.ts';
import { orStopped, type StopOptions, StoppedError } from '../core/stop.ts';
import { storedBytesMax } from '../kloset/limits.ts';
import { ChunkKeeper } from './chunk-keeper.ts';
import { HeldChunk } from './held-chunk.ts';
import { RECALLS_IN_FLIGHT_MAX, SEGMENT_BYTES, SEGMENTS_IN_FLIGHT_MAX } from './limits.ts';
import { SegmentMemory } from './segment-memory.ts';

/** A chunk on its way, or one that has come and is still used. */
interface Fetch {
  readonly content: Promise<Uint8Array>;
  readonly stop: AbortController;
  /** What upstream is asked for, seen by it as it changes. */
  readonly options: FetchOptions;
  /** Readers that wait for it. */
  waiting: number;
  /** Its stored bytes have come: nobody need wait for it any more, it is kept. */
  isFetched: boolean;
  /** All who have asked for it read their files from one end on. */
  isInSequence: boolean;
  /** Once it has come, and as long as somebody waits for it. */
  held: HeldChunk | undefined;
  readonly found: Found;
}

/** In which form a chunk is on disk, or on its way there, once it has come. */
interface Found {
  onDisk: ChunkForm | undefined;
}

/** Some segments of a chunk: parts of SEGMENT_BYTES, the last of them shorter. */
export interface SegmentsOf {
  readonly chunk: ChunkId;
  readonly indexes: readonly number[];
}

/** What keeps and brings back a working set. */
export type RecallableChunks = Pick<ChunkCache, 'workingSet' | 'recall' | 'counters'>;

/** A segment on its way from disk. */
interface SegmentRead {
  /** Undefined if it is not there. */
  readonly content: Promise<Uint8Array | undefined>;
  waiting: number;
  /** Bytes of it that readers have had. */
  readBytes: number;
}

/**
 * Decoded chunks in two tiers: segments in memory, bounded in bytes, over whole chunks on disk, where those that were read in
 * sequence lie as the store has them. However many ask for a chunk at once, one of them fetches it, and when all of them have
 * stopped the fetch is stopped too. Keyed by MAC, so that
 * files and snapshots share their chunks, and by length: an object that claims another length for a chunk must
 * neither get the bytes of one that is right nor fail it.
 */
export class ChunkCache implements ChunkStore {
  readonly counters: CacheCounters;
  readonly #upstream: ChunkStore;
  readonly #disk: ChunkDisk | undefined;
  readonly #memory: SegmentMemory;
  /** What a new reader can join. */
  readonly #inFlight = new Map<string, Fetch>();
  /** Undefined where there is no disk. */
  readonly #keeper: ChunkKeeper | undefined;
  readonly #arena: SharedArena;
  readonly #segmentReads = new Map<string, SegmentRead>();
  /** All that has not settled, abandoned ones too. */
  readonly #underWay = new Set<Promise<unknown>>();

  /** Takes over `upstream` and `disk`: closing the cache closes them. `arena`: best the one that chunks are decoded to. */
  constructor(
    upstream: ChunkStore,
    {
      bytesMax,
      disk,
      counters = newCacheCounters(),
      arena = new SharedArena(bytesMax),
    }: { bytesMax: number; disk?: ChunkDisk | undefined; counters?: CacheCounters; arena?: SharedArena },
  ) {
    this.#upstream = upstream;
    this.#disk = disk;
    this.counters = counters;
    this.#arena = arena;
    this.#memory = new SegmentMemory(bytesMax, counters, arena);
    this.#keeper = disk && new ChunkKeeper(disk, this.#memory);
  }

  async get(chunk: ChunkRef, options: ChunkOptions = {}): Promise<Uint8Array> {
    const key = keyOf(chunk);
    if (this.#memory.hasAll(key, chunk.lengthBytes) || this.#disk?.pending(chunk) !== undefined) {
      const plain = new Uint8Array(chunk.lengthBytes);
      if (this.#readNow(chunk, key, 0, plain)) return plain;
    }
    return this.#join(key, chunk, options, (plain) => {
      this.#memory.countRead(key, 0, plain.byteLength);
      return ownMemory(plain);
    });
  }

  async readInto(chunk: ChunkRef, offset: number, target: Uint8Array, options: ChunkOptions = {}): Promise<void> {
    const key = keyOf(chunk);
    const end = offset + target.byteLength;
    if (this.#readNow(chunk, key, offset, target)) return;
    let missedAt: number | undefined;
    if (this.#disk !== undefined && !this.#inFlight.has(key)) {
      missedAt = this.#disk.generation;
      if (
        !this.#disk.isMissing(chunk) &&
        (await this.#readFromDisk(this.#disk, chunk, { key, offset, target, ...options }))
      )
        return;
      // Somebody else may have fetched it meanwhile.
      if (this.#readNow(chunk, key, offset, target)) return;
    }
    const copy = (plain: Uint8Array) => {
      if (plain.byteLength !== chunk.lengthBytes) {
        throw new CorruptStoreError(`it has ${plain.byteLength} bytes instead of ${chunk.lengthBytes}`);
      }
      copyBytes(plain.subarray(offset, end), target);
      this.#memory.countRead(key, offset, target.byteLength);
    };
    await this.#join(key, chunk, { ...options, missedAt }, copy);
  }

  readIntoNow(chunk: ChunkRef, offset: number, target: Uint8Array, reach: Reach = 'memory'): boolean {
    const key = keyOf(chunk);
    if (this.#readNow(chunk, key, offset, target)) return true;
    return reach === 'disk' && this.#readFromDiskNow(chunk, key, offset, target);
  }

  async prefetch(chunk: ChunkRef, options: ChunkOptions): Promise<boolean> {
    const key = keyOf(chunk);
    if (this.#memory.hasAll(key, chunk.lengthBytes)) return false;
    const missedAt = this.#disk?.generation;
    if (await this.#disk?.has(chunk)) return false;
    // It may have come meanwhile, and not gone to a disk that is busy.
    if (this.#memory.hasAll(key, chunk.lengthBytes)) return false;
    return this.#join(key, chunk, { ...options, missedAt }, (_, { found }) => found.onDisk !== 'decoded');
  }

  /** Segments that a later server will likely be asked for, as SegmentMemory has it. */
  workingSet(): readonly SegmentsOf[] {
    const byChunk = new Map<string, number[]>();
    for (const { chunk, index } of this.#memory.workingSet()) {
      const indexes = byChunk.get(chunk.key);
      if (indexes === undefined) byChunk.set(chunk.key, [index]);
      else indexes.push(index);
    }
    return Array.from(byChunk, ([key, indexes]) => ({ chunk: chunkIdOf(key), indexes }));
  }

  /**
   * Reads into memory what the disk has of a working set, until there is no room beside what came otherwise; nothing is
   * fetched, and nobody kept waiting. Resolves to the bytes read; rejects with the signal's reason.
   */
  async recall(segments: readonly SegmentsOf[], { signal }: StopOptions = {}): Promise<number> {
    const disk = this.#disk;
    let recalledBytes = 0;
    if (disk === undefined) return recalledBytes;
    await mapConcurrently(segments, RECALLS_IN_FLIGHT_MAX, async ({ chunk, indexes }) => {
      signal?.throwIfAborted();
      const key = keyOf(chunk);
      const missing = indexes.filter((index) => !this.#memory.has(key, index));
      const bytes = missing.reduce((sum, index) => sum + segmentBytes(chunk, index), 0);
      if (bytes === 0 || !this.#memory.hasRoomBeside(bytes)) return;
      const targets = missing.map((index) => ({ index, target: this.#memory.take(segmentBytes(chunk, index)) }));
      // Who stops does not wait for a disk that hangs, and leaves it the targets.
      const areThere = await orStopped(disk.recall(chunk, targets), signal);
      for (const { index, target } of targets) {
        if (areThere) this.#memory.insert(key, index, target, { cameBack: true });
        else this.#memory.giveBack(target);
      }
      if (areThere) recalledBytes += bytes;
    });
    return recalledBytes;
  }

  async close(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    await this.#disk?.close();
    this.#memory.clear();
    await this.#upstream.close();
  }

  #readNow(chunk: ChunkRef, key: string, offset: number, target: Uint8Array): boolean {
    if (this.#memory.read(key, offset, target)) {
      if (this.#disk !== undefined && this.#memory.mustRecordUse(key, Date.now(), USE_RECORD_AGE_MS)) {
        void this.#disk.recordUse(chunk);
      }
    } else {
      const plain = this.#disk?.pending(chunk);
      if (plain === undefined) return false;
      copyBytes(plain.subarray(offset, offset + target.byteLength), target);
    }
    this.counters.hits++;
    return true;
  }

  /** As `#readFromDisk`, in this turn; false also where it would take long to find out. */
  #readFromDiskNow(chunk: ChunkRef, key: string, offset: number, target: Uint8Array): boolean {
    if (this.#disk === undefined || this.#inFlight.has(key)) return false;
    const end = offset + target.byteLength;
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / SEGMENT_BYTES);
      const start = index * SEGMENT_BYTES;
      const part = target.subarray(at - offset, start + SEGMENT_BYTES - offset);
      if (!this.#memory.read(key, at, part)) {
        const segment = this.#memory.take(segmentBytes(chunk, index));
        if (!this.#disk.readSegmentNow(chunk, index, segment)) {
          this.#memory.giveBack(segment);
          return false;
        }
        copyBytes(segment.subarray(at - start, at - start + part.byteLength), part);
        this.#memory.insert(key, index, segment);
        this.#memory.countRead(key, at, part.byteLength);
      }
      at += part.byteLength;
    }
    this.counters.diskHits++;
    return true;
  }

  /** False if a segment is not there: then all of the chunk is to be fetched. */
  async #readFromDisk(
    disk: ChunkDisk,
    chunk: ChunkRef,
    { key, offset, target, signal }: ChunkOptions & { key: string; offset: number; target: Uint8Array },
  ): Promise<boolean> {
    signal?.throwIfAborted();
    const end = offset + target.byteLength;
    const first = Math.floor(offset / SEGMENT_BYTES);
    const indexes = Array.from({ length: Math.ceil(end / SEGMENT_BYTES) - first }, (_, i) => first + i);
    let isWhole = true;
    await mapConcurrently(indexes, SEGMENTS_IN_FLIGHT_MAX, async (index) => {
      if (!isWhole) return;
      const start = index * SEGMENT_BYTES;
      const from = Math.max(offset, start);
      const part = target.subarray(from - offset, start + SEGMENT_BYTES - offset);
      if (this.#memory.read(key, from, part)) return;
      const copy = (bytes: Uint8Array) => {
        copyBytes(bytes.subarray(from - start, from - start + part.byteLength), part);
        return part.byteLength;
      };
      if (!(await this.#joinSegment(disk, chunk, { key, index, signal }, copy))) isWhole = false;
    });
    if (isWhole) this.counters.diskHits++;
    return isWhole;
  }

  /** Calls `use` with a segment's bytes, which it does not keep, and of which it says how many it has read; false if it is not there. */
  async #joinSegment(
    disk: ChunkDisk,
    chunk: ChunkRef,
    { key, index, signal }: ChunkOptions & { key: string; index: number },
    use: (bytes: Uint8Array) => number,
  ): Promise<boolean> {
    const segmentKey = `${key}/${index}`;
    const read = this.#segmentReads.get(segmentKey) ?? this.#startSegment(disk, chunk, segmentKey, index);
    read.waiting++;
    let bytes: Uint8Array | undefined;
    try {
      bytes = await read.content;
      signal?.throwIfAborted();
      if (bytes !== undefined) read.readBytes += use(bytes);
      return bytes !== undefined;
    } finally {
      if (--read.waiting === 0) {
        // Only now may it be dropped, and its buffer be used for another.
        this.#segmentReads.delete(segmentKey);
        if (bytes !== undefined) {
          this.#memory.insert(key, index, bytes);
          this.#memory.countRead(key, index * SEGMENT_BYTES, Math.min(read.readBytes, SEGMENT_BYTES));
        }
      }
    }
  }

  #startSegment(disk: ChunkDisk, chunk: ChunkRef, segmentKey: string, index: number): SegmentRead {
    const buffer = this.#memory.take(segmentBytes(chunk, index));
    const content = disk.readSegment(chunk, index, buffer).then((isThere) => {
      if (isThere) return buffer;
      this.#memory.giveBack(buffer);
      return undefined;
    });
    const read: SegmentRead = { content, waiting: 0, readBytes: 0 };
    this.#segmentReads.set(segmentKey, read);
    this.#track(content);
    return read;
  }

  /** Calls `use` with the chunk's bytes when they are there, fetching them unless somebody does. */
  async #join<T>(
    key: string,
    chunk: ChunkRef,
    options: JoinOptions,
    use: (plain: Uint8Array, fetch: Fetch) => T,
  ): Promise<T> {
    options.signal?.throwIfAborted();
    const fetch = this.#inFlight.get(key) ?? this.#start(key, chunk, options);
    fetch.waiting++;
    if (!isGuess(options)) fetch.options.purpose = 'read';
    if (!isInSequence(options)) fetch.isInSequence = false;
    try {
      return use(await orStopped(fetch.content, options.signal), fetch);
    } finally {
      if (--fetch.waiting === 0) {
        if (fetch.held === undefined && !fetch.isFetched) this.#abandon(key, fetch);
        this.#letGo(fetch);
      }
    }
  }

  #start(key: string, chunk: ChunkRef, { purpose = 'read', missedAt }: JoinOptions): Fetch {
    const stop = new AbortController();
    const onFetched = () => {
      fetch.isFetched = true;
      this.#disk?.fetched();
    };
    const found: Found = { onDisk: undefined };
    const onSound = (stored: Uint8Array) => {
      const kept = fetch.isInSequence && isWorthStoring(chunk) ? this.#keeper?.keepStored(chunk, stored) : undefined;
      if (kept !== undefined) found.onDisk = 'stored';
      return kept;
    };
    const options: FetchOptions = { purpose, signal: stop.signal, onFetched, onSound };
    const content = this.#load(chunk, options, { missedAt, found });
    const held = undefined;
    const fetch: Fetch = { content, stop, options, waiting: 0, isFetched: false, isInSequence: true, held, found };
    this.#inFlight.set(key, fetch);
    const forget = () => {
      if (this.#inFlight.get(key) === fetch) this.#inFlight.delete(key);
    };
    // Before those who wait: none of them finds it neither on its way nor in memory.
    const arrived = content.then((plain) => {
      const giveBack = (bytes: Uint8Array) =>
        found.onDisk === 'decoded' ? this.#arena.give(bytes) : this.#upstream.giveBack?.(bytes);
      fetch.held = new HeldChunk(plain, giveBack);
      // One of another length is for nobody, whoever asks; it fails where it is used.
      if (plain.byteLength === chunk.lengthBytes) this.#keep(key, chunk, fetch);
      forget();
      this.#letGo(fetch);
    }, forget);
    this.#track(arrived);
    return fetch;
  }

  async #load(
    chunk: ChunkRef,
    options: FetchOptions,
    { missedAt, found }: { missedAt: number | undefined; found: Found },
  ): Promise<Uint8Array> {
    // Looked for again if anything was written since: it may have come and gone from memory in between.
    if (this.#disk !== undefined && missedAt !== this.#disk.generation && !this.#disk.isMissing(chunk)) {
      const plain = this.#arena.take(chunk.lengthBytes);
      const isThere = await this.#disk.readChunk(chunk, plain);
      if (isThere && !options.signal.aborted) {
        this.counters.diskHits++;
        found.onDisk = 'decoded';
        return plain;
      }
      this.#arena.give(plain);
      options.signal.throwIfAborted();
    }
    if (this.#disk !== undefined && isWorthStoring(chunk) && !this.#disk.isMissing(chunk, 'stored')) {
      const plain = await this.#loadStored(this.#disk, chunk, options);
      if (plain !== undefined) {
        this.counters.diskHits++;
        found.onDisk = 'stored';
        return plain;
      }
      options.signal.throwIfAborted();
    }
    this.counters.misses++;
    return this.#upstream.get(chunk, options);
  }

  /** From what the disk has of it as the store has it; undefined if that is nothing, or damaged. */
  async #loadStored(disk: ChunkDisk, chunk: ChunkRef, options: FetchOptions): Promise<Uint8Array | undefined> {
    const decode = this.#upstream.decode?.bind(this.#upstream);
    if (decode === undefined) return undefined;
    const bytesMax = storedBytesMax(chunk.lengthBytes);
    const stored = await disk.readStored(chunk, { bytesMax, memory: this.#arena });
    if (stored === undefined) return undefined;
    try {
      return await decode(chunk, stored, options);
    } catch (error) {
      if (!(error instanceof CorruptStoreError)) throw error;
      await disk.rejectStored(chunk, error);
      return undefined;
    } finally {
      this.#arena.give(stored);
    }
  }

  #keep(key: string, chunk: ChunkRef, fetch: Fetch): void {
    const { found, isInSequence } = fetch;
    const held = fetch.held!;
    this.#memory.insertChunk(key, held);
    // Who reads a page of it will read others: those are not to be decoded all over again.
    const isKept = found.onDisk === 'decoded' || (found.onDisk === 'stored' && isInSequence);
    if (!isKept) this.#keeper?.keep(key, chunk, held);
  }

  /** Nobody waits for the chunk any more: others may hold it on. */
  #letGo(fetch: Fetch): void {
    if (fetch.waiting > 0) return;
    fetch.held?.release();
    fetch.held = undefined;
  }

  /** Nobody waits any more, and nothing has come: it need not come. Whoever asks next begins anew. */
  #abandon(key: string, fetch: Fetch): void {
    if (this.#inFlight.get(key) !== fetch) return;
    this.#inFlight.delete(key);
    fetch.stop.abort(new StoppedError('nobody waits for the chunk any more'));
  }

  #track(work: Promise<unknown>): void {
    this.#underWay.add(work);
    const settled = () => this.#underWay.delete(work);
    work.then(settled, settled);
  }
}

interface FetchOptions {
  purpose: FetchPurpose;
  readonly signal: AbortSignal;
  readonly onFetched: () => void;
  readonly onSound: (stored: Uint8Array) => Promise<void> | undefined;
}

interface JoinOptions extends ChunkOptions {
  /** The disk's generation when the chunk was not there. */
  readonly missedAt?: number | undefined;
}

function isInSequence({ isInSequence = false, purpose }: ChunkOptions): boolean {
  return isInSequence || purpose === 'read-ahead';
}

/** One of a single segment is read as a whole anyhow. */
function isWorthStoring({ lengthBytes }: ChunkId): boolean {
  return lengthBytes > SEGMENT_BYTES;
}

function keyOf({ mac, lengthBytes }: ChunkId): string {
  return `${toHex(mac)}:${lengthBytes}`;
}

function chunkIdOf(key: string): ChunkId {
  const [mac, lengthBytes] = key.split(':');
  return { mac: Buffer.from(mac!, 'hex'), lengthBytes: Number(lengthBytes) };
}

/** How long a segment of a chunk is. */
function segmentBytes({ lengthBytes }: ChunkId, index: number): number {
  return Math.min(SEGMENT_BYTES, lengthBytes - index * SEGMENT_BYTES);
}

/** The same bytes in memory that nobody uses again: whoever has them never gives them back. */
function ownMemory(plain: Uint8Array): Uint8Array {
  if (!(plain.buffer instanceof SharedArrayBuffer)) return plain;
  const copy = new Uint8Array(plain.byteLength);
  copyBytes(plain, copy);
  return copy;
}
