/** Block and inode bitmaps (bitmaps.rst), and the same numbers as counts for the group descriptors. */
import { BLOCK_SIZE } from '../core/units.ts';
import { BLOCKS_PER_GROUP } from './format.ts';
import { type Geometry, groupSpace, physicalGaps } from './geometry.ts';

const FULL_BYTE = 255;

/** Writes a group's block bitmap into `target`, which is zero. A BLOCK_UNINIT group's stays so: it is never read. */
export function renderBlockBitmap(geometry: Geometry, group: number, target: Uint8Array): void {
  const { start, blocks, uninit } = groupSpace(geometry, group);
  if (uninit) return;
  setBits(target, 0, Math.min(blocks, geometry.usedBlocks - start));
  for (const gap of physicalGaps(geometry, start, start + blocks)) clearBits(target, gap.from - start, gap.to - start);
  if (geometry.map.hasBackup(group)) setBits(target, 0, geometry.map.backupBlocks);
  // Blocks behind the end of the device cannot be had.
  setBits(target, blocks, BLOCKS_PER_GROUP);
}

/** Free blocks of a group: the zero bits of its bitmap, or of what an initialised one would be. */
export function freeBlocksIn(geometry: Geometry, group: number): number {
  const { start, blocks } = groupSpace(geometry, group);
  const used = Math.max(0, Math.min(blocks, geometry.usedBlocks - start));
  let free = blocks - used;
  for (const gap of physicalGaps(geometry, start, start + blocks)) free += gap.to - gap.from;
  if (start >= geometry.usedBlocks && geometry.map.hasBackup(group)) free -= geometry.map.backupBlocks;
  return free;
}

/** Whether a group's block bitmap is all ones; such groups share one checksum. */
export function isFullGroup(geometry: Geometry, group: number): boolean {
  return !groupSpace(geometry, group).uninit && freeBlocksIn(geometry, group) === 0;
}

/** Free blocks of the filesystem: the sum over the groups. */
export function freeBlocksTotal(geometry: Geometry): number {
  let free = geometry.totalBlocks - geometry.usedBlocks - geometry.map.backupBlocksFrom(geometry.usedBlocks);
  for (const gap of geometry.gaps) free += gap.length;
  return free;
}

/** Inodes in use in a group; they fill the groups from the first. */
export function usedInodesIn(geometry: Geometry, group: number, lastInode: number): number {
  return Math.max(0, Math.min(geometry.inodesPerGroup, lastInode - group * geometry.inodesPerGroup));
}

/** Writes a group's inode bitmap into `target`, which is zero; an INODE_UNINIT group's stays so. */
export function renderInodeBitmap(geometry: Geometry, group: number, lastInode: number, target: Uint8Array): void {
  const used = usedInodesIn(geometry, group, lastInode);
  if (used === 0) return;
  setBits(target, 0, used);
  setBits(target, geometry.inodesPerGroup, BLOCK_SIZE * 8);
}

/** Sets bits from .. to - 1, least significant first. */
function setBits(bitmap: Uint8Array, from: number, to: number): void {
  changeBits(bitmap, from, to, (byte, mask) => byte | mask, FULL_BYTE);
}

function clearBits(bitmap: Uint8Array, from: number, to: number): void {
  changeBits(bitmap, from, to, (byte, mask) => byte & ~mask, 0);
}

function changeBits(
  bitmap: Uint8Array,
  from: number,
  to: number,
  change: (byte: number, mask: number) => number,
  whole: number,
): void {
  if (from >= to) return;
  const firstByte = from >>> 3;
  const lastByte = (to - 1) >>> 3;
  const firstMask = (FULL_BYTE << (from & 7)) & FULL_BYTE;
  const lastMask = FULL_BYTE >>> (7 - ((to - 1) & 7));
  if (firstByte === lastByte) {
    bitmap[firstByte] = change(bitmap[firstByte]!, firstMask & lastMask);
    return;
  }
  bitmap[firstByte] = change(bitmap[firstByte]!, firstMask);
  bitmap.fill(whole, firstByte + 1, lastByte);
  bitmap[lastByte] = change(bitmap[lastByte]!, lastMask);
}
