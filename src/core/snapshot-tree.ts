import type { Reach } from './device.ts';
import type { StopOptions } from './stop.ts';
import type { ByteRange } from './units.ts';

/** What kind of thing an entry is. The values are stored in overlays' and caches' columns: append only. */
export const entryTypes = {
  directory: 0,
  file: 1,
  symlink: 2,
  fifo: 3,
  socket: 4,
  characterDevice: 5,
  blockDevice: 6,
} as const;
export type EntryType = (typeof entryTypes)[keyof typeof entryTypes];

/** One extended attribute, as listxattr and getxattr give it: full name with its prefix, value bytes. */
export interface ExtendedAttribute {
  readonly name: Uint8Array;
  readonly value: Uint8Array;
}

/**
 * A tree of files frozen at one moment, as columns: entry i is element i of each array. Two openings of one snapshot
 * give the same columns.
 *
 * Order, on which ext4's layout relies: entry 0 is the root. Breadth first: all entries of one depth come before those
 * of the next; the children of one directory are contiguous and in ascending byte order of their names; directories'
 * runs of children follow each other in the order of the directories themselves.
 *
 * Memory: about 48 bytes an entry and the names; never an object an entry.
 */
export interface SnapshotTree {
  /** Number of entries, the root included. */
  readonly length: number;
  readonly type: Uint8Array;
  /** Permission bits with set-uid, set-gid and sticky: 07777. */
  readonly mode: Uint16Array;
  /** Numeric owners as recorded; values above 2 ** 32 - 1 exist (Kloset stores 64 bits). */
  readonly uid: Float64Array;
  readonly gid: Float64Array;
  /** Bytes of a file's content; 0 for everything else. */
  readonly sizeBytes: Float64Array;
  /** Modification time: seconds since 1970, floored (negative before), and nanoseconds 0..999,999,999 upward from it. */
  readonly mtimeSeconds: Float64Array;
  readonly mtimeNanoseconds: Uint32Array;
  /** Index of the directory that holds the entry; the root's own is 0. */
  readonly parent: Uint32Array;
  /** A directory's children are entries firstChild .. firstChild + childCount - 1; childCount is 0 for others. */
  readonly firstChild: Uint32Array;
  readonly childCount: Uint32Array;
  /** All names, one after another: entry i's is nameBytes[nameStart[i] .. nameStart[i + 1]]; the root's is empty. Any bytes but `/` and NUL. */
  readonly nameBytes: Uint8Array;
  readonly nameStart: Float64Array;
  /**
   * Further names of one inode: entry -> the first entry (lower index) that names it; the first itself is not in it.
   * Never directories. All other columns of both are equal.
   */
  readonly sameInodeAs: ReadonlyMap<number, number>;
  /** Targets of symlinks, by entry; any bytes but NUL, may be empty in a damaged snapshot. */
  readonly linkTarget: ReadonlyMap<number, Uint8Array>;
  /** Extended attributes, by entry, in ascending byte order of their names. */
  readonly attributes: ReadonlyMap<number, readonly ExtendedAttribute[]>;
}

/** Where a tree's file contents come from. */
export interface ContentReader {
  /**
   * Fills `target` from byte `offset` of entry `entry`, a file; the range lies inside its sizeBytes. As
   * ReadableDevice.read: never short, many at once, rejects with CorruptStoreError or StoreUnavailableError.
   */
  read(entry: number, offset: number, target: Uint8Array, options?: StopOptions): Promise<void>;
  /** As ReadableDevice.readNow. */
  readNow?(entry: number, offset: number, target: Uint8Array, reach?: Reach): boolean;
  /**
   * Sees to it that later reads of a range inside the file find it at hand; resolves to the plain bytes fetched for it. What cannot be read
   * is left to whoever reads it. Stops early at the signal, and where more is asked for than can be kept.
   */
  prefetch?(entry: number, range: ByteRange, options?: StopOptions): Promise<number>;
}

/** One opened snapshot. */
export interface SnapshotSource extends ContentReader {
  /** Lower-case hex, 64 digits. */
  readonly snapshotId: string;
  /** When the snapshot was made: seconds since 1970. */
  readonly createdSeconds: number;
  readonly tree: SnapshotTree;
  close(): Promise<void>;
}

/** Bytes of all files' contents; further names of one inode count once. */
export function contentBytesOf({ sizeBytes, sameInodeAs }: SnapshotTree): number {
  let bytes = sizeBytes.reduce((sum, size) => sum + size, 0);
  for (const entry of sameInodeAs.keys()) bytes -= sizeBytes[entry]!;
  return bytes;
}

/** The bytes of entry's name: a view, not a copy. */
export function entryName(tree: SnapshotTree, entry: number): Uint8Array {
  return tree.nameBytes.subarray(tree.nameStart[entry], tree.nameStart[entry + 1]);
}

/** The path of an entry below the tree's root, `/`-separated, beginning with `/`; for messages, so not exact for names that are not UTF-8. */
export function entryPath(tree: SnapshotTree, entry: number): string {
  return Buffer.from(entryPathBytes(tree, entry)).toString();
}

/** As entryPath, raw bytes. */
export function entryPathBytes(tree: SnapshotTree, entry: number): Uint8Array {
  const slash = Buffer.from('/');
  const names: Uint8Array[] = [];
  for (let at = entry; at !== 0; at = tree.parent[at]!) names.push(entryName(tree, at), slash);
  return names.length === 0 ? slash : Buffer.concat(names.reverse());
}
