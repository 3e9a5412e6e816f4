import type { StopOptions } from './stop.ts';
import type { ByteRange } from './units.ts';

/**
 * How far a read at once may go: to what is in memory (the default), or also to a disk of ours that answers promptly.
 * `unseen`: to memory, and not as a client's read, which others would be fetched ahead of and which is counted.
 */
export type Reach = 'memory' | 'disk' | 'unseen';

/** A fixed-size, random-access array of bytes. Offsets and lengths are bytes, as `number`: below 2 ** 53 by assertion. */
export interface ReadableDevice {
  /** Constant while open; a multiple of BLOCK_SIZE. */
  readonly sizeBytes: number;
  /**
   * Fills all of `target` from `offset`, never short; neither needs to be aligned. Many reads may be in flight.
   * The range lies inside the device: callers have validated it, so a breach is a bug (assertion).
   * Rejects with CorruptStoreError, StoreUnavailableError or OverlayError; `target` then holds nothing of meaning.
   */
  read(offset: number, target: Uint8Array, options?: StopOptions): Promise<void>;
  /**
   * As `read`, but at once: true when `target` is filled; false when `read` is to be asked, and `target` then holds
   * nothing of meaning. Throws for bugs only. For a read that a promise would make slower.
   */
  readNow?(offset: number, target: Uint8Array, reach?: Reach): boolean;
  /** Idempotent; waits for what is in flight. */
  close(): Promise<void>;
}

/** A disk. Requests in flight together may land in any order; a request issued after a write settled sees that write. */
export interface BlockDevice extends ReadableDevice {
  /** Constant; decides the flags a server advertises. */
  readonly supports: Readonly<{ fua: boolean; trim: boolean; multiConn: boolean }>;
  /** Borrows `source` until settled: the caller does not change it, the device keeps no reference to it. */
  write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void>;
  /**
   * As `write` without FUA, but at once: true when it has landed; false when `write` is to be asked, and nothing has changed.
   * Throws for bugs only. For a write that a promise would make slower.
   */
  writeNow?(offset: number, source: Uint8Array): boolean;
  /** Exactly the bytes of the range read as zeroes afterwards. `mayTrim`: the space behind it may be given back. */
  writeZeroes(range: ByteRange, options: { fua: boolean; mayTrim: boolean }): Promise<void>;
  /** Whole blocks inside the range read as zeroes afterwards; its ragged edges stay as they are. */
  trim(range: ByteRange, options: { fua: boolean }): Promise<void>;
  /** Settles once every write settled before the call has the durability the README promises. */
  flush(): Promise<void>;
}
