/**
 * Extent trees (ifork.rst). A file is one dense range: [tree blocks][data]. Its extents come from cutting the data at
 * the backups and at 32,768 blocks; nothing about them is stored. Tree blocks are filled completely and from the left,
 * as e2fsck remarks on anything that could be narrower or shorter.
 *
 * Order of the tree blocks: the blocks below the root, then (depth 2) the leaves.
 */

import { crc32c } from '../core/crc32c.ts';
import { assert } from '../core/errors.ts';
import { high32, low32, viewOf } from './bytes.ts';
import type { DenseMap, Piece } from './dense-map.ts';
import {
  EXTENT_BLOCKS_MAX,
  EXTENT_MAGIC,
  EXTENTS_IN_INODE,
  EXTENTS_PER_BLOCK,
  extentHeader,
  extentIndex,
  extentLeaf,
} from './format.ts';

/**
 * Files up to this many blocks have at most 4 extents wherever they lie: backups are at least two groups apart, so at
 * most two of them cut the file, and 2 + 2 extents suffice.
 */
export const TREELESS_BLOCKS_MAX = 2 * EXTENT_BLOCKS_MAX;

/** A file's extents, by arithmetic: the pieces between backups, each cut every `extentBlocks`. */
export interface ExtentPlan {
  readonly map: DenseMap;
  /** Dense number of the first tree block; the data follows the tree. */
  readonly dense: number;
  readonly treeBlocks: number;
  readonly pieces: readonly Piece[];
  readonly extentBlocks: number;
  readonly count: number;
}

/** Blocks of the tree outside the inode for a number of extents. */
export function treeBlocksForExtents(count: number): number {
  if (count <= EXTENTS_IN_INODE) return 0;
  const leaves = Math.ceil(count / EXTENTS_PER_BLOCK);
  if (leaves <= EXTENTS_IN_INODE) return leaves;
  const inner = Math.ceil(leaves / EXTENTS_PER_BLOCK);
  assert(inner <= EXTENTS_IN_INODE, 'an extent tree of depth 2 holds every file ext4 can address');
  return inner + leaves;
}

/**
 * Tree blocks of a file of `blocks` that starts at `dense`: the smallest number whose tree describes the data that
 * begins behind it. (Moving the data by a block can change its number of extents, so this is a search.)
 */
export function treeBlocksAt(map: DenseMap, dense: number, blocks: number): number {
  if (blocks <= TREELESS_BLOCKS_MAX) return 0;
  let treeBlocks = 0;
  for (;;) {
    const pieces = map.pieces(dense + treeBlocks, blocks);
    const needed = treeBlocksForExtents(countExtents(pieces, EXTENT_BLOCKS_MAX));
    if (needed <= treeBlocks) return treeBlocks;
    treeBlocks = needed;
  }
}

/**
 * The extents of a file whose tree has exactly `treeBlocks`. Where fewer extents would do - the data moved behind the tree
 * that it needed before moving - extents are cut a little shorter until the tree is needed.
 */
export function planExtents(map: DenseMap, dense: number, treeBlocks: number, blocks: number): ExtentPlan {
  const pieces = map.pieces(dense + treeBlocks, blocks);
  let extentBlocks = EXTENT_BLOCKS_MAX;
  if (treeBlocksForExtents(countExtents(pieces, extentBlocks)) < treeBlocks) {
    let enough = 1;
    while (extentBlocks - enough > 1) {
      const middle = (extentBlocks + enough) >>> 1;
      if (countExtents(pieces, middle) > EXTENTS_PER_BLOCK * EXTENTS_PER_BLOCK * EXTENTS_IN_INODE) enough = middle;
      else if (treeBlocksForExtents(countExtents(pieces, middle)) >= treeBlocks) enough = middle;
      else extentBlocks = middle;
    }
    extentBlocks = enough;
  }
  const count = countExtents(pieces, extentBlocks);
  assert(treeBlocksForExtents(count) === treeBlocks, `${count} extents fill exactly ${treeBlocks} tree blocks`);
  return { map, dense, treeBlocks, pieces, extentBlocks, count };
}

function countExtents(pieces: readonly Piece[], extentBlocks: number): number {
  let count = 0;
  for (const piece of pieces) count += Math.ceil(piece.length / extentBlocks);
  return count;
}

/** Extents first .. first + count - 1 as [logical block, physical block, length]. */
function* extentsFrom(plan: ExtentPlan, first: number, count: number): Generator<[number, number, number]> {
  let skip = first;
  let left = Math.min(count, plan.count - first);
  for (const piece of plan.pieces) {
    const here = Math.ceil(piece.length / plan.extentBlocks);
    for (let i = skip; i < here && left > 0; i++, left--) {
      const done = i * plan.extentBlocks;
      yield [piece.logical + done, piece.physical + done, Math.min(plan.extentBlocks, piece.length - done)];
    }
    skip = Math.max(0, skip - here);
    if (left === 0) return;
  }
}

/** The shape of a tree: leaves, and blocks between root and leaves. */
function treeShape(plan: ExtentPlan): { leaves: number; inner: number } {
  const leaves = plan.treeBlocks === 0 ? 0 : Math.ceil(plan.count / EXTENTS_PER_BLOCK);
  return { leaves, inner: plan.treeBlocks - leaves };
}

/** Writes the root into an inode's i_block: 60 bytes of `target` at `at`. */
export function renderExtentRoot(plan: ExtentPlan, target: Uint8Array, at: number): void {
  const view = viewOf(target);
  const { leaves, inner } = treeShape(plan);
  if (leaves === 0) {
    writeHeader(view, at, { entries: plan.count, max: EXTENTS_IN_INODE, depth: 0 });
    writeLeaves(view, at, plan, 0, EXTENTS_IN_INODE);
    return;
  }
  const below = inner === 0 ? leaves : inner;
  writeHeader(view, at, { entries: below, max: EXTENTS_IN_INODE, depth: inner === 0 ? 1 : 2 });
  const extentsBelow = inner === 0 ? EXTENTS_PER_BLOCK : EXTENTS_PER_BLOCK * EXTENTS_PER_BLOCK;
  for (let i = 0; i < below; i++) writeIndex(view, at, i, plan, i * extentsBelow, i);
}

/** Writes tree block `index` into the block `target`, which is zero. `inodeSeed` starts the owner's checksums. */
export function renderExtentBlock(plan: ExtentPlan, index: number, inodeSeed: number, target: Uint8Array): void {
  const view = viewOf(target);
  const { leaves, inner } = treeShape(plan);
  const first = index < inner ? index * EXTENTS_PER_BLOCK : (index - inner) * EXTENTS_PER_BLOCK;
  const entries = Math.min(EXTENTS_PER_BLOCK, (index < inner ? leaves : plan.count) - first);
  writeHeader(view, 0, { entries, max: EXTENTS_PER_BLOCK, depth: index < inner ? 1 : 0 });
  if (index < inner) {
    for (let i = 0; i < entries; i++) writeIndex(view, 0, i, plan, (first + i) * EXTENTS_PER_BLOCK, inner + first + i);
  } else {
    writeLeaves(view, 0, plan, first, entries);
  }
  const tail = extentHeader.sizeBytes + EXTENTS_PER_BLOCK * extentLeaf.sizeBytes;
  view.setUint32(tail, crc32c(inodeSeed, target.subarray(0, tail)), true);
}

const H_MAGIC = extentHeader.offsetOf('eh_magic');
const H_ENTRIES = extentHeader.offsetOf('eh_entries');
const H_MAX = extentHeader.offsetOf('eh_max');
const H_DEPTH = extentHeader.offsetOf('eh_depth');
const EE_BLOCK = extentLeaf.offsetOf('ee_block');
const EE_LENGTH = extentLeaf.offsetOf('ee_len');
const EE_START_HIGH = extentLeaf.offsetOf('ee_start_hi');
const EE_START_LOW = extentLeaf.offsetOf('ee_start_lo');
const EI_BLOCK = extentIndex.offsetOf('ei_block');
const EI_LEAF_LOW = extentIndex.offsetOf('ei_leaf_lo');
const EI_LEAF_HIGH = extentIndex.offsetOf('ei_leaf_hi');

function writeHeader(view: DataView, at: number, header: { entries: number; max: number; depth: number }): void {
  view.setUint16(at + H_MAGIC, EXTENT_MAGIC, true);
  view.setUint16(at + H_ENTRIES, header.entries, true);
  view.setUint16(at + H_MAX, header.max, true);
  view.setUint16(at + H_DEPTH, header.depth, true);
}

function writeLeaves(view: DataView, node: number, plan: ExtentPlan, first: number, count: number): void {
  let at = node + extentHeader.sizeBytes;
  for (const [logical, physical, length] of extentsFrom(plan, first, count)) {
    view.setUint32(at + EE_BLOCK, logical, true);
    view.setUint16(at + EE_LENGTH, length, true);
    view.setUint16(at + EE_START_HIGH, high32(physical), true);
    view.setUint32(at + EE_START_LOW, low32(physical), true);
    at += extentLeaf.sizeBytes;
  }
}

/** Entry `i` of a node: tree block `treeBlock`, which begins with extent `extent`. */
function writeIndex(
  view: DataView,
  node: number,
  i: number,
  plan: ExtentPlan,
  extent: number,
  treeBlock: number,
): void {
  const at = node + extentHeader.sizeBytes + i * extentIndex.sizeBytes;
  const physical = plan.map.toPhysical(plan.dense + treeBlock);
  for (const [logical] of extentsFrom(plan, extent, 1)) view.setUint32(at + EI_BLOCK, logical, true);
  view.setUint32(at + EI_LEAF_LOW, low32(physical), true);
  view.setUint16(at + EI_LEAF_HIGH, high32(physical), true);
}
