/** A planned filesystem: every question about it is answered by arithmetic over the tree's columns and two prefix sums. */

import { crc32c } from '../core/crc32c.ts';
import { type EntryType, entryPath, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { BLOCK_SIZE, roundUp } from '../core/units.ts';
import { type AttributePlan, noAttributes, planAttributes } from './attributes.ts';
import { lastAtOrBefore, SampledStarts } from './bytes.ts';
import type { DirectoryCounter } from './directory-counter.ts';
import { type ExtentPlan, planExtents, TREELESS_BLOCKS_MAX } from './extents.ts';
import {
  CHECKSUM_START,
  FILE_BYTES_MAX,
  inodeNumbers,
  MISTAKEN_SECONDS_END,
  MISTAKEN_SECONDS_MIN,
  OWNER_ID_MAX,
  OWNER_ID_OVERFLOW,
  SYMLINK_BLOCK_BYTES_MIN,
  SYMLINK_BYTES_MAX,
  TIME_SECONDS_MAX,
  TIME_SECONDS_MIN,
} from './format.ts';
import type { Geometry } from './geometry.ts';
import type { InodeNumbers } from './inode-numbers.ts';
import { type NameTable, nameTable } from './names.ts';
import {
  hexBytes,
  type LayoutParameters,
  MASKED_ACLS_VERSION,
  PERMISSION_BITS,
  UNMISTAKEN_TIMES_VERSION,
} from './parameters.ts';
import type { LayoutWarning } from './warnings.ts';

/** mke2fs gives lost+found 16 KiB, so that e2fsck can fill it without allocating. */
export const LOST_FOUND_BLOCKS = 4;

/** Long attribute values, in the order of their entries: value j has inode numbers.entriesEnd + j. */
export interface ValueInodes {
  readonly entries: readonly number[];
  readonly lengths: readonly number[];
  /** Dense blocks before value j, from the first value's; one element more than there are values. */
  readonly starts: readonly number[];
}

/** Inode number and generation, which is 0 in every inode of ours, as per-inode checksums begin (checksums.rst). */
const seedBytes = new Uint8Array(8);
const seedView = new DataView(seedBytes.buffer);

export interface LayoutParts {
  readonly tree: SnapshotTree;
  readonly parameters: LayoutParameters;
  readonly geometry: Geometry;
  readonly numbers: InodeNumbers;
  readonly directories: DirectoryCounter;
  readonly renamed: ReadonlyMap<number, Uint8Array>;
  /** Whether the root gets a lost+found that the snapshot does not have. */
  readonly addLostFound: boolean;
  /** Metadata blocks before entry i, from geometry.metadata; tree.length + 1 elements. */
  readonly metadataStarts: Uint32Array;
  /** Blocks of extent trees and data before entry i, from geometry.files; tree.length + 1 elements. */
  readonly fileStarts: Float64Array;
  readonly values: ValueInodes;
  /** Whether a directory's index is deeper than every kernel reads without being told (largedir). */
  readonly largeDirectories: boolean;
  readonly warnings: readonly LayoutWarning[];
}

export class Layout {
  readonly tree: SnapshotTree;
  /** All that shapes the bytes besides the tree. */
  readonly parameters: LayoutParameters;
  /** What the tree holds that cannot be shown as it is. */
  readonly warnings: readonly LayoutWarning[];
  readonly geometry: Geometry;
  readonly numbers: InodeNumbers;
  readonly directories: DirectoryCounter;
  readonly addLostFound: boolean;
  readonly metadataStarts: Uint32Array;
  readonly fileStarts: Float64Array;
  readonly values: ValueInodes;
  readonly largeDirectories: boolean;
  /** Dense start of the added lost+found (behind the entries' metadata), and of the attribute values behind it. */
  readonly lostFoundStart: number;
  readonly valuesStart: number;
  /** The highest inode in use. */
  readonly lastInode: number;
  readonly uuid: Uint8Array;
  readonly hashSeed: Uint8Array;
  /** Start value of all checksums but the superblock's. */
  readonly checksumSeed: number;
  readonly #renamed: ReadonlyMap<number, Uint8Array>;
  readonly #metadataIndex: SampledStarts;
  readonly #fileIndex: SampledStarts;

  constructor(parts: LayoutParts) {
    this.tree = parts.tree;
    this.parameters = parts.parameters;
    this.warnings = parts.warnings;
    this.geometry = parts.geometry;
    this.numbers = parts.numbers;
    this.directories = parts.directories;
    this.addLostFound = parts.addLostFound;
    this.metadataStarts = parts.metadataStarts;
    this.fileStarts = parts.fileStarts;
    this.values = parts.values;
    this.largeDirectories = parts.largeDirectories;
    this.lostFoundStart = this.geometry.metadata + this.metadataStarts[this.tree.length]!;
    this.valuesStart = this.lostFoundStart + (this.addLostFound ? LOST_FOUND_BLOCKS : 0);
    this.lastInode = this.numbers.entriesEnd - 1 + this.values.entries.length;
    this.uuid = hexBytes(this.parameters.uuid);
    this.hashSeed = hexBytes(this.parameters.hashSeed);
    this.checksumSeed = crc32c(CHECKSUM_START, this.uuid);
    this.#renamed = parts.renamed;
    this.#metadataIndex = new SampledStarts(this.metadataStarts, this.tree.length);
    this.#fileIndex = new SampledStarts(this.fileStarts, this.tree.length);
  }

  /** Length of the device in bytes. */
  get sizeBytes(): number {
    return this.parameters.deviceBlocks * BLOCK_SIZE;
  }

  typeOf(entry: number): EntryType {
    return this.tree.type[entry] as EntryType;
  }

  /** Permission bits as shown. */
  modeOf(entry: number): number {
    return this.tree.mode[entry]! & this.parameters.modeMask;
  }

  uidOf(entry: number): number {
    return this.parameters.owner?.uid ?? shownId(this.tree.uid[entry]!);
  }

  gidOf(entry: number): number {
    return this.parameters.owner?.gid ?? shownId(this.tree.gid[entry]!);
  }

  /** Seconds and nanoseconds as shown: where a time cannot be, the nearest that can. */
  secondsOf(entry: number): number {
    const seconds = Math.min(TIME_SECONDS_MAX, Math.max(TIME_SECONDS_MIN, this.tree.mtimeSeconds[entry]!));
    if (this.parameters.layoutVersion < UNMISTAKEN_TIMES_VERSION || !isTimeMistaken(seconds)) return seconds;
    const isNearerToStart = seconds - MISTAKEN_SECONDS_MIN < MISTAKEN_SECONDS_END - seconds;
    return isNearerToStart ? MISTAKEN_SECONDS_MIN - 1 : MISTAKEN_SECONDS_END;
  }

  nanosecondsOf(entry: number): number {
    return this.secondsOf(entry) === this.tree.mtimeSeconds[entry] ? this.tree.mtimeNanoseconds[entry]! : 0;
  }

  /** Bytes of a file's content as shown. */
  fileSizeOf(entry: number): number {
    return Math.min(this.tree.sizeBytes[entry]!, FILE_BYTES_MAX);
  }

  /** Sub-directories of a directory, an added lost+found included. */
  subdirectoriesOf(entry: number): number {
    const first = this.tree.firstChild[entry]!;
    const children = this.directories.count(first, first + this.tree.childCount[entry]!);
    return children + (entry === 0 && this.addLostFound ? 1 : 0);
  }

  /** The target a symlink shows: its own, or a name that says why not. */
  linkTargetOf(entry: number): Uint8Array {
    return shownTarget(this.tree.linkTarget.get(entry));
  }

  /** Names of a directory's children as shown; an added lost+found is the last. */
  namesOf(directory: number): NameTable {
    return nameTable(this.tree, directory, {
      renamed: this.#renamed,
      addLostFound: directory === 0 && this.addLostFound,
    });
  }

  attributesOf(entry: number): AttributePlan {
    const attributes = this.tree.attributes.get(entry);
    if (attributes === undefined) return noAttributes;
    const { modeMask, layoutVersion } = this.parameters;
    return planAttributes(attributes, layoutVersion < MASKED_ACLS_VERSION ? PERMISSION_BITS : modeMask, () => {});
  }

  /** The entry whose metadata has a block, counted from geometry.metadata: the last that starts there or before. */
  entryOfMetadata(block: number): number {
    return this.#metadataIndex.lastAtOrBefore(block);
  }

  /** The file that has a block, counted from geometry.files. Entries without blocks start where the next one does. */
  entryOfFileBlock(block: number): number {
    return this.#fileIndex.lastAtOrBefore(block);
  }

  /** Where an entry's metadata lies: [extent tree, directory] or [symlink], then [attribute block]. */
  metadataOf(entry: number, attributes: AttributePlan): EntryMetadata {
    const start = this.geometry.metadata + this.metadataStarts[entry]!;
    const blocks = this.metadataStarts[entry + 1]! - this.metadataStarts[entry]!;
    const attributeBlocks = attributes.block.length > 0 ? 1 : 0;
    const ownBlocks = blocks - attributeBlocks;
    const treeBlocks = ownBlocks > TREELESS_BLOCKS_MAX ? 1 : 0;
    return { start, treeBlocks, contentBlocks: ownBlocks - treeBlocks, attributeBlock: start + ownBlocks };
  }

  /** Extents of an owner's content: a file's data, a directory's blocks, a long symlink's block. */
  extentsOf(entry: number, attributes: AttributePlan): ExtentPlan {
    const { map, files } = this.geometry;
    if (this.typeOf(entry) === entryTypes.file) {
      const blocks = Math.ceil(this.fileSizeOf(entry) / BLOCK_SIZE);
      const occupied = this.fileStarts[entry + 1]! - this.fileStarts[entry]!;
      return planExtents(map, files + this.fileStarts[entry]!, occupied - blocks, blocks);
    }
    const { start, treeBlocks, contentBlocks } = this.metadataOf(entry, attributes);
    return planExtents(map, start, treeBlocks, contentBlocks);
  }

  journalExtents(): ExtentPlan {
    const { map, journal, journalTreeBlocks } = this.geometry;
    return planExtents(map, journal, journalTreeBlocks, this.parameters.journalBlocks);
  }

  lostFoundExtents(): ExtentPlan {
    return planExtents(this.geometry.map, this.lostFoundStart, 0, LOST_FOUND_BLOCKS);
  }

  valueExtents(value: number): ExtentPlan {
    const start = this.values.starts[value]!;
    const blocks = this.values.starts[value + 1]! - start;
    return planExtents(this.geometry.map, this.valuesStart + start, 0, blocks);
  }

  /** The bytes of long attribute value j. */
  valueBytes(value: number): Uint8Array {
    const entry = this.values.entries[value]!;
    return this.attributesOf(entry).outside[value - this.firstValueOf(entry)]!.value;
  }

  /** The first long attribute value of an entry that has one. */
  firstValueOf(entry: number): number {
    const { entries } = this.values;
    const last = lastAtOrBefore(entries, entries.length, entry);
    return last - this.attributesOf(entry).outside.length + 1;
  }

  /** Start value of the checksums of an inode and of all that belongs to it. */
  inodeSeed(inode: number): number {
    seedView.setUint32(0, inode, true);
    return crc32c(this.checksumSeed, seedBytes);
  }

  /** Directories among the inodes from .. to - 1. */
  directoriesAmong(fromInode: number, toInode: number): number {
    const within = (inode: number) => inode >= fromInode && inode < toInode;
    const root = within(inodeNumbers.root) ? 1 : 0;
    const lostFound = this.addLostFound && within(inodeNumbers.firstFree) ? 1 : 0;
    const first = this.numbers.entryFrom(fromInode);
    const end = this.numbers.entryFrom(toInode);
    return root + lostFound + this.directories.count(first, end);
  }

  /** Path of an entry as the snapshot has it, for messages. */
  pathOf(entry: number): string {
    return entryPath(this.tree, entry);
  }
}

export interface EntryMetadata {
  /** Dense. */
  readonly start: number;
  readonly treeBlocks: number;
  readonly contentBlocks: number;
  /** Dense; a block of the entry only if its attributes need one. */
  readonly attributeBlock: number;
}

export function isTimeShowable(seconds: number): boolean {
  return seconds >= TIME_SECONDS_MIN && seconds <= TIME_SECONDS_MAX;
}

/**
 * Whether ext4 could hold a time, and e2fsck would take it for one before 1970, say so, and change it: old kernels wrote
 * those with the same bits (EXT4_EPOCH_MASK set, and the sign).
 */
export function isTimeMistaken(seconds: number): boolean {
  return seconds >= MISTAKEN_SECONDS_MIN && seconds < MISTAKEN_SECONDS_END;
}

export function isIdShowable(id: number): boolean {
  return id >= 0 && id <= OWNER_ID_MAX;
}

function shownId(id: number): number {
  return isIdShowable(id) ? id : OWNER_ID_OVERFLOW;
}

const targetEmpty: Uint8Array = Buffer.from('(empty symlink target)');
const targetTooLong: Uint8Array = Buffer.from('(symlink target too long)');

export function isTargetShowable(target: Uint8Array | undefined): boolean {
  return target !== undefined && target.length > 0 && target.length <= SYMLINK_BYTES_MAX && !target.includes(0);
}

/** ext4 has neither empty symlinks nor such above one block; a link that dangles is closer than no entry at all. */
export function shownTarget(target: Uint8Array | undefined): Uint8Array {
  if (isTargetShowable(target)) return target!;
  return target === undefined || target.length <= SYMLINK_BYTES_MAX ? targetEmpty : targetTooLong;
}

/** Blocks a symlink needs beside its inode. */
export function symlinkBlocks(target: Uint8Array): number {
  return target.length < SYMLINK_BLOCK_BYTES_MIN ? 0 : 1;
}

/** Blocks a value of so many bytes needs. */
export function valueBlocks(bytes: number): number {
  return roundUp(bytes, BLOCK_SIZE) / BLOCK_SIZE;
}
