/**
 * Where everything lies, in dense block numbers (dense-map.ts):
 *
 *   superblock | group descriptors | reserved descriptors | block bitmaps | inode bitmaps | inode tables | resize block |
 *   metadata (directories, long symlinks, attribute blocks, lost+found, attribute values) | journal | files | free
 *
 * The number of groups depends on the total, the total on the metadata, the metadata on the number of groups: solved by
 * rounds in which the number of groups only grows.
 */
import { assert, UserError } from '../core/errors.ts';
import { BLOCK_SIZE, formatBytes, roundUp } from '../core/units.ts';
import { backupGroups, DenseMap } from './dense-map.ts';
import { treeBlocksAt } from './extents.ts';
import {
  ADDRESSES_PER_BLOCK,
  BLOCKS_PER_GROUP,
  DESCRIPTORS_PER_BLOCK,
  INODES_PER_BLOCK,
  INODES_PER_GROUP_MAX,
} from './format.ts';
import { type FreeSpace, freeBlocks, spareInodesDefault } from './parameters.ts';

/** What a tree needs. */
export interface Demand {
  /** The highest inode in use. */
  readonly lastInode: number;
  readonly metadataBlocks: number;
  readonly journalBlocks: number;
  /** Data blocks of all files, without extent trees. */
  readonly fileBlocks: number;
  /** The dense end of all files with their extent trees, if the first begins at `start`. */
  endOfFiles(map: DenseMap, start: number): number;
}

export interface SizeWish {
  readonly sizeBytes?: number | undefined;
  readonly free?: FreeSpace | undefined;
  readonly spareInodes?: number | undefined;
}

/** A stretch of whole inode tables, one group's behind another's, physically contiguous each. */
interface TableRun {
  readonly firstGroup: number;
  readonly groups: number;
  readonly dense: number;
}

/** All starts are dense. */
export interface Geometry {
  readonly deviceBlocks: number;
  readonly totalBlocks: number;
  readonly groupCount: number;
  readonly inodesPerGroup: number;
  readonly tableBlocks: number;
  readonly descriptorBlocks: number;
  readonly reservedBlocks: number;
  readonly map: DenseMap;
  readonly blockBitmaps: number;
  readonly inodeBitmaps: number;
  readonly tables: number;
  readonly tableRuns: readonly TableRun[];
  /** Free blocks before a backup that an inode table would have straddled. */
  readonly gaps: readonly { readonly dense: number; readonly length: number }[];
  /** The double-indirect block of the resize inode; equal to `metadata` if there is none. */
  readonly resizeBlock: number;
  readonly metadata: number;
  readonly journal: number;
  readonly journalTreeBlocks: number;
  readonly files: number;
  readonly end: number;
  /** Physical: all blocks from here on are free but for backups. */
  readonly usedBlocks: number;
}

/** More group descriptors than this would run into the backup of group 1 (without meta_bg). */
const GROUPS_MAX = 2_000_000;
/** A last group needs room beyond its backup to be worth having; mke2fs drops those below 50 blocks. */
const LAST_GROUP_BLOCKS_MIN = 64;
/** Reserved descriptors let the filesystem grow about 16 times; s_reserved_gdt_blocks holds at most one block of addresses. */
const GROWTH = 16;
/** Resize-inode block numbers have 32 bits. */
const RESIZE_GROUPS_MAX = 2 ** 32 / BLOCKS_PER_GROUP;

type Placement = Omit<Geometry, 'deviceBlocks' | 'totalBlocks'>;

export function solveGeometry(demand: Demand, wish: SizeWish): Geometry {
  return wish.sizeBytes === undefined ? solveForFreeSpace(demand, wish) : solveForSize(demand, wish, wish.sizeBytes);
}

function solveForFreeSpace(demand: Demand, { free, spareInodes }: SizeWish): Geometry {
  const wanted = demand.lastInode + (spareInodes ?? spareInodesDefault(demand.lastInode));
  const required = spareInodes === undefined ? demand.lastInode : wanted;
  const leastBlocks = demand.metadataBlocks + demand.journalBlocks + demand.fileBlocks;
  let groupCount = Math.max(Math.ceil(required / INODES_PER_GROUP_MAX), Math.ceil(leastBlocks / BLOCKS_PER_GROUP));
  for (;;) {
    const placement = place(demand, groupCount, inodesPerGroupFor(wanted, groupCount));
    const needed = placement.usedBlocks + freeBlocks(free, placement.usedBlocks);
    const groupsNeeded = Math.ceil(needed / BLOCKS_PER_GROUP);
    if (groupsNeeded <= groupCount) {
      const totalBlocks = Math.max(needed, leastBlocksOf(groupCount));
      return { ...placement, deviceBlocks: totalBlocks, totalBlocks };
    }
    groupCount = groupsNeeded;
  }
}

function solveForSize(demand: Demand, wish: SizeWish, sizeBytes: number): Geometry {
  const deviceBlocks = Math.floor(sizeBytes / BLOCK_SIZE);
  const allGroups = Math.ceil(deviceBlocks / BLOCKS_PER_GROUP);
  const whole = deviceBlocks >= leastBlocksOf(allGroups);
  const groupCount = whole ? allGroups : allGroups - 1;
  const totalBlocks = whole ? deviceBlocks : groupCount * BLOCKS_PER_GROUP;
  // A tight size rather has few spare inodes than no room for the data.
  const spares = wish.spareInodes === undefined ? [spareInodesDefault(demand.lastInode), 0] : [wish.spareInodes];
  for (const spare of spares) {
    const wanted = demand.lastInode + spare;
    const required = wish.spareInodes === undefined ? demand.lastInode : wanted;
    if (required > groupCount * INODES_PER_GROUP_MAX) continue;
    const placement = place(demand, groupCount, inodesPerGroupFor(wanted, groupCount));
    if (placement.usedBlocks <= totalBlocks) return { ...placement, deviceBlocks, totalBlocks };
  }
  const least = solveForFreeSpace(demand, { free: { bytes: 0 }, spareInodes: wish.spareInodes ?? 0 }).totalBlocks;
  throw new UserError(
    `a device of ${formatBytes(sizeBytes)} has no room for this tree: ask for at least ${least * BLOCK_SIZE} bytes (${formatBytes(least * BLOCK_SIZE)})`,
  );
}

/** Total blocks from which on a filesystem may have so many groups. */
function leastBlocksOf(groupCount: number): number {
  const last = groupCount - 1;
  const backup = last === 0 || backupGroups(groupCount).includes(last) ? backupBlocks(groupCount) : 0;
  return last * BLOCKS_PER_GROUP + backup + LAST_GROUP_BLOCKS_MIN;
}

function inodesPerGroupFor(wanted: number, groupCount: number): number {
  return Math.min(INODES_PER_GROUP_MAX, roundUp(Math.ceil(wanted / groupCount), INODES_PER_BLOCK));
}

function descriptorBlocksFor(groupCount: number): number {
  return Math.ceil(groupCount / DESCRIPTORS_PER_BLOCK);
}

function reservedBlocksFor(groupCount: number): number {
  if (groupCount > RESIZE_GROUPS_MAX) return 0;
  return Math.min(ADDRESSES_PER_BLOCK, Math.max(GROWTH, GROWTH * descriptorBlocksFor(groupCount)));
}

function backupBlocks(groupCount: number): number {
  return 1 + descriptorBlocksFor(groupCount) + reservedBlocksFor(groupCount);
}

function place(demand: Demand, groupCount: number, inodesPerGroup: number): Placement {
  if (groupCount > GROUPS_MAX) {
    const most = formatBytes(GROUPS_MAX * BLOCKS_PER_GROUP * BLOCK_SIZE);
    throw new UserError(`the filesystem would exceed ${most}, the largest this layout makes`);
  }
  assert(inodesPerGroup * groupCount < 2 ** 32, 'inode numbers have 32 bits');
  const descriptorBlocks = descriptorBlocksFor(groupCount);
  const reservedBlocks = reservedBlocksFor(groupCount);
  const map = new DenseMap(groupCount, 1 + descriptorBlocks + reservedBlocks);
  const blockBitmaps = map.backupBlocks;
  const inodeBitmaps = blockBitmaps + groupCount;
  const tables = inodeBitmaps + groupCount;
  const tableBlocks = inodesPerGroup / INODES_PER_BLOCK;
  const { tableRuns, gaps, end: resizeBlock } = placeTables(map, tables, groupCount, tableBlocks);
  const metadata = resizeBlock + (reservedBlocks > 0 ? 1 : 0);
  const journal = metadata + demand.metadataBlocks;
  const journalTreeBlocks = treeBlocksAt(map, journal, demand.journalBlocks);
  const files = journal + journalTreeBlocks + demand.journalBlocks;
  const end = demand.endOfFiles(map, files);
  return {
    groupCount,
    inodesPerGroup,
    tableBlocks,
    descriptorBlocks,
    reservedBlocks,
    map,
    blockBitmaps,
    inodeBitmaps,
    tables,
    tableRuns,
    gaps,
    resizeBlock,
    metadata,
    journal,
    journalTreeBlocks,
    files,
    end,
    usedBlocks: map.toPhysical(end - 1) + 1,
  };
}

/** A table may not straddle a backup: the rest before it stays free and the table begins behind it. */
function placeTables(map: DenseMap, start: number, groupCount: number, tableBlocks: number) {
  const tableRuns: TableRun[] = [];
  const gaps: { dense: number; length: number }[] = [];
  let dense = start;
  for (let group = 0; group < groupCount; ) {
    const room = map.nextInterruption(dense) - dense;
    const groups = Math.min(groupCount - group, Math.floor(room / tableBlocks));
    if (groups > 0) {
      tableRuns.push({ firstGroup: group, groups, dense });
      group += groups;
      dense += groups * tableBlocks;
    } else {
      gaps.push({ dense, length: room });
      dense += room;
    }
  }
  return { tableRuns, gaps, end: dense };
}

/** Physical block of a group's inode table. */
export function inodeTableBlock(geometry: Geometry, group: number): number {
  const { tableRuns, tableBlocks, map } = geometry;
  const run = tableRuns.findLast(({ firstGroup }) => firstGroup <= group)!;
  return map.toPhysical(run.dense + (group - run.firstGroup) * tableBlocks);
}

/** Which of a group's blocks are what it was decided to be: counts for the descriptor, without a bitmap. */
export function groupSpace(geometry: Geometry, group: number): { start: number; blocks: number; uninit: boolean } {
  const start = group * BLOCKS_PER_GROUP;
  const last = group === geometry.groupCount - 1;
  const blocks = last ? geometry.totalBlocks - start : BLOCKS_PER_GROUP;
  // The last group's bitmap is always written: its bits behind the end of the device are set.
  return { start, blocks, uninit: start >= geometry.usedBlocks && !last };
}

/** The gaps as physical ranges, cut to those that touch [from, to). Gaps lie before a backup, so each is one range. */
export function physicalGaps(geometry: Geometry, from: number, to: number): { from: number; to: number }[] {
  return geometry.gaps
    .map(({ dense, length }) => {
      const start = geometry.map.toPhysical(dense);
      return { from: Math.max(from, start), to: Math.min(to, start + length) };
    })
    .filter((gap) => gap.from < gap.to);
}
