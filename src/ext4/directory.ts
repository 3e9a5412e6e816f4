/** Directory blocks (directory.rst): one block of records, or the blocks of a hash tree; each with its checksum. */

import { crc32c } from '../core/crc32c.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { viewOf } from './bytes.ts';
import type { DirectoryIndex } from './directory-index.ts';
import { type DirectoryShape, FAN_OUT } from './directory-shape.ts';
import {
  DIRECTORY_BYTES,
  DIRECTORY_DOTS_BYTES,
  DIRECTORY_TAIL_TYPE,
  directoryEntry,
  directoryTail,
  fileTypes,
  htreeCountLimit,
  htreeEntry,
  htreeRootInfo,
  htreeTail,
  superblockValues,
} from './format.ts';
import { type NameTable, recordBytes } from './names.ts';

/** What the records of a directory say besides the names. */
export interface DirectoryFrame {
  /** Start value of the directory inode's checksums. */
  readonly inodeSeed: number;
  readonly inode: number;
  readonly parentInode: number;
  /** Inode and file type (fileTypes) of name k of the table. */
  inodeOf(name: number): number;
  fileTypeOf(name: number): number;
}

const NAME = directoryEntry.sizeBytes;
const REC_LEN = directoryEntry.offsetOf('rec_len');
const NAME_LEN = directoryEntry.offsetOf('name_len');
const FILE_TYPE = directoryEntry.offsetOf('file_type');
const DOT_BYTES = DIRECTORY_DOTS_BYTES / 2;
const DOT = 46;
const TAIL_CHECKSUM = DIRECTORY_BYTES + directoryTail.offsetOf('det_checksum');

/** The only block of a small directory. All targets here are one block and zero. */
export function renderSmallDirectory(frame: DirectoryFrame, names: NameTable, target: Uint8Array): void {
  const view = viewOf(target);
  writeDots(view, frame, DOT_BYTES);
  let at = DIRECTORY_DOTS_BYTES;
  let last = DOT_BYTES;
  for (let name = 0; name < names.count; name++) {
    last = at;
    at = writeRecord(view, target, at, frame, names, name);
  }
  seal(view, target, last, frame.inodeSeed);
}

/** Block `block` of a hashed directory. */
export function renderIndexedDirectory(
  frame: DirectoryFrame,
  names: NameTable,
  { shape, index, block }: { shape: DirectoryShape; index: DirectoryIndex; block: number },
  target: Uint8Array,
): void {
  const firstLeaf = shape.blocks - shape.leaves;
  if (block >= firstLeaf) renderLeaf(frame, names, index, block - firstLeaf, target);
  else renderNode(frame, shape, index, block, target);
}

/** A block without names, as the rest of lost+found has. */
export function renderEmptyDirectoryBlock(inodeSeed: number, target: Uint8Array): void {
  seal(viewOf(target), target, 0, inodeSeed);
}

function renderLeaf(
  frame: DirectoryFrame,
  names: NameTable,
  index: DirectoryIndex,
  leaf: number,
  target: Uint8Array,
): void {
  const view = viewOf(target);
  let at = 0;
  let last = 0;
  for (let place = index.leafFirst[leaf]!; place < index.leafFirst[leaf + 1]!; place++) {
    last = at;
    at = writeRecord(view, target, at, frame, names, index.order[place]!);
  }
  seal(view, target, last, frame.inodeSeed);
}

/** The root (block 0) or an inner node. Both list the blocks of the level below, FAN_OUT each, the last one the rest. */
function renderNode(
  frame: DirectoryFrame,
  shape: DirectoryShape,
  index: DirectoryIndex,
  block: number,
  target: Uint8Array,
): void {
  const view = viewOf(target);
  let start = NAME;
  if (block === 0) {
    writeDots(view, frame, BLOCK_SIZE - DOT_BYTES);
    htreeRootInfo.write(
      target,
      {
        hash_version: superblockValues.hashHalfMd4,
        info_length: htreeRootInfo.sizeBytes,
        indirect_levels: shape.nodes.length,
      },
      DIRECTORY_DOTS_BYTES,
    );
    start = DIRECTORY_DOTS_BYTES + htreeRootInfo.sizeBytes;
  } else {
    // An unused record over the whole block hides the node from readers that know no index.
    directoryEntry.write(target, { rec_len: BLOCK_SIZE });
  }
  const { node, levelSizes, level } = placeOf(shape, block);
  const belowStart = levelSizes.slice(0, level + 1).reduce((sum, count) => sum + count, 0);
  const firstBelow = node * FAN_OUT;
  const count = Math.min(FAN_OUT, levelSizes[level + 1]! - firstBelow);
  // Leaves under one block of the level below.
  const leavesBelow = FAN_OUT ** (levelSizes.length - level - 2);
  for (let i = 0; i < count; i++) {
    const hash = index.leafHash[(firstBelow + i) * leavesBelow]!;
    htreeEntry.write(target, { hash, block: belowStart + firstBelow + i }, start + i * htreeEntry.sizeBytes);
  }
  const limit = Math.floor((BLOCK_SIZE - start - htreeTail.sizeBytes) / htreeEntry.sizeBytes);
  htreeCountLimit.write(target, { limit, count }, start);
  const tail = start + limit * htreeEntry.sizeBytes;
  // Covered: what is in use, then the tail with its checksum zero; not the unused entries (directory.rst, dx_tail).
  const used = crc32c(frame.inodeSeed, target.subarray(0, start + count * htreeEntry.sizeBytes));
  htreeTail.write(target, { dt_checksum: crc32c(used, target.subarray(tail, tail + htreeTail.sizeBytes)) }, tail);
}

/** Level 0 is the root, the last one the leaves; `node` counts within the block's level. */
function placeOf(shape: DirectoryShape, block: number): { level: number; node: number; levelSizes: number[] } {
  const levelSizes = [1, ...shape.nodes, shape.leaves];
  let level = 0;
  let node = block;
  while (node >= levelSizes[level]!) node -= levelSizes[level++]!;
  return { level, node, levelSizes };
}

/** `.` and `..`. In a hash tree's root the latter's record hides the index behind it. */
function writeDots(view: DataView, frame: DirectoryFrame, parentRecordBytes: number): void {
  view.setUint32(0, frame.inode, true);
  view.setUint16(REC_LEN, DOT_BYTES, true);
  view.setUint8(NAME_LEN, 1);
  view.setUint8(FILE_TYPE, fileTypes.directory);
  view.setUint8(NAME, DOT);
  view.setUint32(DOT_BYTES, frame.parentInode, true);
  view.setUint16(DOT_BYTES + REC_LEN, parentRecordBytes, true);
  view.setUint8(DOT_BYTES + NAME_LEN, 2);
  view.setUint8(DOT_BYTES + FILE_TYPE, fileTypes.directory);
  view.setUint8(DOT_BYTES + NAME, DOT);
  view.setUint8(DOT_BYTES + NAME + 1, DOT);
}

/** Returns where the next record begins. */
function writeRecord(
  view: DataView,
  target: Uint8Array,
  at: number,
  frame: DirectoryFrame,
  names: NameTable,
  name: number,
): number {
  const start = names.start[name]!;
  const length = names.start[name + 1]! - start;
  const bytes = recordBytes(length);
  view.setUint32(at, frame.inodeOf(name), true);
  view.setUint16(at + REC_LEN, bytes, true);
  view.setUint8(at + NAME_LEN, length);
  view.setUint8(at + FILE_TYPE, frame.fileTypeOf(name));
  for (let i = 0; i < length; i++) target[at + NAME + i] = names.bytes[start + i]!;
  return at + bytes;
}

/** The last record runs to the tail: ext4 takes a gap for corruption (directory.rst). */
function seal(view: DataView, target: Uint8Array, lastRecord: number, inodeSeed: number): void {
  view.setUint16(lastRecord + REC_LEN, DIRECTORY_BYTES - lastRecord, true);
  directoryTail.write(
    target,
    { det_rec_len: directoryTail.sizeBytes, det_reserved_ft: DIRECTORY_TAIL_TYPE },
    DIRECTORY_BYTES,
  );
  view.setUint32(TAIL_CHECKSUM, crc32c(inodeSeed, target.subarray(0, DIRECTORY_BYTES)), true);
}
