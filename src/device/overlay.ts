/**
 * Copy-on-write over a base nobody writes to: the one place where a client's bytes end.
 *
 * The unit is the block of 4 KiB. A block is clean (the base has it), data (the store has it) or zero (nobody has it, it
 * reads as zeroes; never again as the base). Requests cut blocks where they like: the ragged edges of a write are read,
 * merged and written as whole blocks, while `RangeLocks` keeps every other write off these blocks. The whole request
 * then lands in the store as one.
 *
 * Reads take no locks: they look the map up once, and fetch all parts at the same time. One that overlaps a write still
 * in flight may see either content; one issued after the write settled sees the write, because the store changes the map
 * before it settles.
 */
import type { BlockDevice, Reach, ReadableDevice } from '../core/device.ts';
import { assert, OverlayError, UserError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import type { StopOptions } from '../core/stop.ts';
import { BLOCK_SIZE, type ByteRange } from '../core/units.ts';
import { type BlockMap, DEVICE_BLOCKS_MAX, isZeroValue } from './block-map.ts';
import type { BlockStore, Change, OverlayStats } from './block-store.ts';
import { FrozenDevice } from './frozen-device.ts';
import { type OverlayRange, rangesOf, readThrough } from './overlay-map.ts';
import { RangeLocks } from './range-locks.ts';
import { SpaceGate, type SpaceOptions } from './space-gate.ts';
import { withoutBaseBlocks } from './unchanged-blocks.ts';
import { isZeroBlock, splitZeroBlocks } from './zero-blocks.ts';

/** What a write of more bytes than this is cut into, so that one record of a log can hold each part. */
const REQUEST_BYTES_MAX = 32 * 1024 * 1024;

export class OverlayDevice implements BlockDevice {
  readonly supports = { fua: true, trim: true, multiConn: true } as const;
  readonly sizeBytes: number;
  readonly #base: ReadableDevice;
  readonly #store: BlockStore;
  readonly #gate: SpaceGate;
  readonly #locks = new RangeLocks();
  #inFlight = 0;
  #idle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  /** Reads through to `base`, which stays the caller's to close; owns `store`. */
  constructor(base: ReadableDevice, store: BlockStore, space: SpaceOptions = {}, log: Log = silentLog) {
    assert(base.sizeBytes % BLOCK_SIZE === 0, 'a device is a whole number of blocks');
    assert(base.sizeBytes / BLOCK_SIZE <= DEVICE_BLOCKS_MAX, 'an overlay covers at most 16 TiB');
    this.sizeBytes = base.sizeBytes;
    this.#base = base;
    this.#store = store;
    this.#gate = new SpaceGate(store, space, log);
  }

  /** Why every write is refused (damage found when it was opened); undefined for a healthy overlay. */
  get readOnlyReason(): string | undefined {
    return this.#store.readOnlyReason;
  }

  /** Whether `close` has been called. */
  get closing(): boolean {
    return this.#closing !== undefined;
  }

  stats(): OverlayStats {
    return this.#store.stats();
  }

  /** The states of a range, in order and without gaps; neighbours may share a state. The range is made of whole blocks. */
  changedRanges(range: ByteRange): Iterable<OverlayRange> {
    this.#assertInside(range.offset, range.length);
    return rangesOf(this.#store.map, range);
  }

  /**
   * The device as it is after a flush, for as long as it is wanted, while writes go on. What is in it is the state after
   * all writes that have settled before; it holds the space of what is replaced meanwhile. Rejects with OverlayError, or
   * UserError for an overlay that is in memory.
   */
  async freeze(): Promise<FrozenDevice> {
    if (this.#store.freeze === undefined) throw new UserError('an overlay in memory cannot be copied');
    if (this.readOnlyReason === undefined) await this.flush();
    const read = (frozen: BlockMap, offset: number, target: Uint8Array) => {
      this.#assertInside(offset, target.length);
      return this.#during(() => readThrough({ map: frozen, store: this.#store, base: this.#base }, offset, target));
    };
    return new FrozenDevice(this.sizeBytes, this.#store.freeze(), read);
  }

  read(offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    this.#assertInside(offset, target.length);
    return this.#during(() => this.#readParts(offset, target, options));
  }

  readNow(offset: number, target: Uint8Array, reach?: Reach): boolean {
    this.#assertInside(offset, target.length);
    if (this.#closing !== undefined) return false;
    const end = offset + target.length;
    const endBlock = Math.ceil(end / BLOCK_SIZE);
    for (let at = offset; at < end; ) {
      const { first, count, value } = this.#store.map.runAt(Math.floor(at / BLOCK_SIZE), endBlock);
      const until = Math.min(end, (first + count) * BLOCK_SIZE);
      const part = until - at === target.length ? target : target.subarray(at - offset, until - offset);
      if (value === undefined) {
        if (this.#base.readNow?.(at, part, reach) !== true) return false;
      } else if (isZeroValue(value)) part.fill(0);
      else if (this.#store.readNow?.({ first, value }, at - first * BLOCK_SIZE, part) !== true) return false;
      at = until;
    }
    return true;
  }

  write(offset: number, source: Uint8Array, { fua }: { fua: boolean }): Promise<void> {
    this.#assertInside(offset, source.length);
    return this.#during(async () => {
      for (let done = 0; done < source.length; done += REQUEST_BYTES_MAX) {
        await this.#change(offset + done, source.subarray(done, done + REQUEST_BYTES_MAX));
      }
      if (fua) await this.#store.flush();
    });
  }

  writeNow(offset: number, source: Uint8Array): boolean {
    this.#assertInside(offset, source.length);
    if (this.#closing !== undefined || offset % BLOCK_SIZE !== 0 || source.length % BLOCK_SIZE !== 0) return false;
    const [first, count] = [offset / BLOCK_SIZE, source.length / BLOCK_SIZE];
    if (!this.#locks.isFree({ first, count, exclusive: false })) return false;
    const changes: Change[] = [];
    splitZeroBlocks(first, source, changes);
    return this.#gate.applyNow(withoutBaseBlocks(changes, this.#store.map, this.#base));
  }

  writeZeroes({ offset, length }: ByteRange, { fua }: { fua: boolean; mayTrim: boolean }): Promise<void> {
    this.#assertInside(offset, length);
    return this.#during(async () => {
      if (length > 0) await this.#change(offset, length);
      if (fua) await this.#store.flush();
    });
  }

  trim({ offset, length }: ByteRange, { fua }: { fua: boolean }): Promise<void> {
    this.#assertInside(offset, length);
    const from = Math.ceil(offset / BLOCK_SIZE) * BLOCK_SIZE;
    const to = Math.floor((offset + length) / BLOCK_SIZE) * BLOCK_SIZE;
    return this.#during(async () => {
      if (to > from) await this.#change(from, to - from);
      if (fua) await this.#store.flush();
    });
  }

  flush(): Promise<void> {
    return this.#during(() => this.#store.flush());
  }

  /** Writes that wait for space end with OverlayError 'full'. */
  close(): Promise<void> {
    if (this.#closing === undefined) this.#gate.close();
    this.#closing ??= this.#drain().then(() => this.#store.close());
    return this.#closing;
  }

  #readParts(offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    return readThrough({ map: this.#store.map, store: this.#store, base: this.#base }, offset, target, options);
  }

  /** Writes `content`, or that many zeroes, at byte `offset`. */
  async #change(offset: number, content: Uint8Array | number): Promise<void> {
    const length = typeof content === 'number' ? content : content.length;
    const end = offset + length;
    const first = Math.floor(offset / BLOCK_SIZE);
    const count = Math.ceil(end / BLOCK_SIZE) - first;
    const exclusive = offset % BLOCK_SIZE !== 0 || end % BLOCK_SIZE !== 0;
    const release = await this.#locks.acquire({ first, count, exclusive });
    try {
      const changes = await this.#wholeBlocks(offset, end, content);
      await this.#gate.apply(withoutBaseBlocks(changes, this.#store.map, this.#base));
    } finally {
      release();
    }
  }

  /** The request as whole blocks: its edges merged with what is there, its blocks of zeroes told apart. */
  async #wholeBlocks(offset: number, end: number, content: Uint8Array | number): Promise<readonly Change[]> {
    const source = typeof content === 'number' ? undefined : content;
    const innerStart = Math.ceil(offset / BLOCK_SIZE) * BLOCK_SIZE;
    const innerEnd = Math.floor(end / BLOCK_SIZE) * BLOCK_SIZE;
    if (innerStart > innerEnd) return this.#mergedEdge(offset, end, source);

    const edges: Promise<readonly Change[]>[] = [];
    const headBytes = innerStart - offset;
    if (headBytes > 0) edges.push(this.#mergedEdge(offset, innerStart, source?.subarray(0, headBytes)));
    if (innerEnd < end) edges.push(this.#mergedEdge(innerEnd, end, source?.subarray(innerEnd - offset)));
    const changes = edges.length === 0 ? [] : (await Promise.all(edges)).flat();
    const block = innerStart / BLOCK_SIZE;
    const count = (innerEnd - innerStart) / BLOCK_SIZE;
    if (count > 0 && source === undefined) changes.push(...this.#zeroes(block, count));
    else if (source !== undefined) splitZeroBlocks(block, source.subarray(headBytes, innerEnd - offset), changes);
    return changes;
  }

  /** A range that is one run of zeroes stays as it is. One of many parts gets one entry: it makes the map smaller. */
  #zeroes(block: number, count: number): Change[] {
    const run = this.#store.map.runAt(block, block + count);
    const zeroed = run.count === count && run.value !== undefined && isZeroValue(run.value);
    return zeroed ? [] : [{ block, count, data: undefined }];
  }

  /**
   * One block with bytes `from` to `to` of the device replaced; zeroes if `source` is missing. Nothing if they are there
   * already: the block had to be read anyway, from the base too.
   */
  async #mergedEdge(from: number, to: number, source: Uint8Array | undefined): Promise<readonly Change[]> {
    const block = Math.floor(from / BLOCK_SIZE);
    const start = block * BLOCK_SIZE;
    const merged = Buffer.allocUnsafe(BLOCK_SIZE);
    await this.#readParts(start, merged);
    const wanted = source ?? new Uint8Array(to - from);
    if (merged.compare(wanted, 0, wanted.length, from - start, to - start) === 0) return [];
    merged.set(wanted, from - start);
    return [{ block, count: 1, data: isZeroBlock(merged, 0) ? undefined : merged }];
  }

  async #during(action: () => Promise<void>): Promise<void> {
    if (this.#closing !== undefined) throw new OverlayError('the device is closed', { reason: 'io' });
    this.#inFlight++;
    try {
      await action();
    } finally {
      if (--this.#inFlight === 0) this.#idle?.();
    }
  }

  async #drain(): Promise<void> {
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
  }

  #assertInside(offset: number, length: number): void {
    const inside = Number.isSafeInteger(offset) && offset >= 0 && offset + length <= this.sizeBytes && length >= 0;
    assert(inside, `${length} bytes at ${offset} do not lie inside a device of ${this.sizeBytes} bytes`);
  }
}
