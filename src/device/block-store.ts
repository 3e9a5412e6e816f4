/** What an overlay keeps its blocks in: memory, or the log of a directory. */
import type { BlockMap } from './block-map.ts';

/** New content for `count` blocks from block `block` on. */
export interface Change {
  readonly block: number;
  readonly count: number;
  /** count * BLOCK_SIZE bytes, borrowed until `apply` settles; undefined for zeroes. */
  readonly data: Uint8Array | undefined;
}

/** Figures of an overlay, for reports. All in bytes. */
export interface OverlayStats {
  /** Blocks whose content is the overlay's, zeroes included. */
  readonly dirtyBytes: number;
  /** Of these, blocks that read as zeroes and take no room. */
  readonly zeroBytes: number;
  /** Room taken, by dead blocks and records too: memory, and files in directories. */
  readonly storedBytes: number;
  /** Of these, in main memory. */
  readonly memoryBytes: number;
  /** Taken from clients by write; zeroes and trims not counted. */
  readonly acknowledgedBytes: number;
  /** Passed to the file system's write calls, moving of live blocks included. */
  readonly writtenBytes: number;
}

/** All blocks of a log as they were at one moment. */
export interface FrozenBlocks {
  /** The store reads blocks by the values in here until `release`. */
  readonly map: BlockMap;
  /** The segments of the log that hold them, oldest first, and where their records ended. */
  readonly segments: readonly { readonly number: number; readonly endBytes: number; readonly complete: boolean }[];
  /** Of the last record. */
  readonly sequence: number;
  /** Lets the store give back the space of what has been replaced since. Idempotent. */
  release(): void;
}

export interface BlockStore {
  /** Where each changed block is. The store changes it the moment a change has landed; others only look. */
  readonly map: BlockMap;
  /** Why nothing can be written; undefined if it can. */
  readonly readOnlyReason: string | undefined;
  /** Lands the changes, in their order, as one: readers see them once it resolves. Rejects with OverlayError. */
  apply(changes: readonly Change[]): Promise<void>;
  /** The same at once: true when they have landed; false if `apply` is to be asked, and nothing has changed. */
  applyNow?(changes: readonly Change[]): boolean;
  /**
   * Fills `target` from byte `skip` of a run of data blocks that `map` has named in this same turn of the event loop.
   * Rejects with OverlayError.
   */
  read(run: { readonly first: number; readonly value: number }, skip: number, target: Uint8Array): Promise<void>;
  /** As `read`, at once and only from memory: false if `read` is to be asked. Absent where nothing is in memory. */
  readNow?(run: { readonly first: number; readonly value: number }, skip: number, target: Uint8Array): boolean;
  /** Makes every applied change durable, as far as the store promises that. Rejects with OverlayError. */
  flush(): Promise<void>;
  stats(): OverlayStats;
  /** Room taken now, as `storedBytes` of the stats; asked for before every write of an overlay that has a limit. */
  readonly usedBytes: number;
  /** Bytes that landing the changes would add to it; 0 for those without data. */
  roomFor(changes: readonly Change[]): number;
  /** Keeps what is there now readable, and its files in place, while writes go on. Stores whose content is lost anyway have none. */
  freeze?(): FrozenBlocks;
  /**
   * A limit is near: what nothing needs any more is removed now. Or it is reached: the store may also work harder to give
   * space back.
   */
  makeRoom(how: 'removing' | 'moving'): void;
  /** Called once, with nothing in flight. */
  close(): Promise<void>;
}
