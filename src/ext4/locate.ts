/** What every block of the device is. */
import { assert } from '../core/errors.ts';
import { entryTypes } from '../core/snapshot-tree.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { BLOCKS_PER_GROUP, INODES_PER_BLOCK } from './format.ts';
import type { Geometry } from './geometry.ts';
import type { Layout } from './layout.ts';

export type PlaceKind =
  | 'superblock' // index: the group
  | 'group-descriptors' // index: block of the table
  | 'reserved-descriptors' // index: block of the reserve
  | 'block-bitmap' // index: the group
  | 'inode-bitmap' // index: the group
  | 'inode-table' // index: block of all tables; it begins with inode 16 * index + 1
  | 'resize-inode'
  | 'extent-tree' // index: tree block; entry: the file or directory
  | 'directory' // index: block of the directory
  | 'symlink'
  | 'attributes'
  | 'lost-found' // index: block of the directory
  | 'attribute-value' // index: block of all values
  | 'journal-tree' // index: tree block
  | 'journal' // index: block of the journal
  | 'file' // index: block of the file
  | 'free';

/** A run of blocks of one kind and owner. */
export interface Place {
  readonly kind: PlaceKind;
  /** Blocks from the one asked for on, with `index` rising by one a block; never past a backup. */
  readonly blocks: number;
  /** Whether the whole run is zeroes, known without looking. */
  readonly zero: boolean;
  /** The entry the block belongs to (of a file with several names: the one that owns the inode), or -1. */
  readonly entry: number;
  readonly index: number;
}

/** Finds what a physical block is; by binary searches only. */
export function locate(layout: Layout, block: number): Place {
  const { geometry } = layout;
  const { map } = geometry;
  assert(block >= 0 && block < layout.parameters.deviceBlocks, 'the block lies on the device');
  if (block >= geometry.totalBlocks) return run('free', layout.parameters.deviceBlocks - block, 0, { zero: true });
  const dense = map.toDense(block);
  if (dense < 0) return locateInBackup(geometry, block);
  const room = Math.min(map.nextBackup(block), geometry.totalBlocks) - block;
  if (dense >= geometry.end) return run('free', room, 0, { zero: true });
  if (dense >= geometry.files) return locateInFiles(layout, dense, room);
  if (dense >= geometry.metadata) return locateInMetadata(layout, dense, room);
  return locateInFront(layout, dense, room);
}

function run(
  kind: PlaceKind,
  blocks: number,
  index: number,
  { entry = -1, zero = false }: { entry?: number; zero?: boolean } = {},
): Place {
  return { kind, blocks, zero, entry, index };
}

function locateInBackup({ map, descriptorBlocks }: Geometry, block: number): Place {
  const { group, index } = map.backupAt(block)!;
  if (index === 0) return run('superblock', 1, group);
  if (index <= descriptorBlocks) return run('group-descriptors', descriptorBlocks + 1 - index, index - 1);
  // Only the primary's reserved blocks list anything.
  return run('reserved-descriptors', map.backupBlocks - index, index - 1 - descriptorBlocks, { zero: true });
}

function locateInFiles(layout: Layout, dense: number, room: number): Place {
  const { fileStarts, geometry } = layout;
  const offset = dense - geometry.files;
  const entry = layout.entryOfFileBlock(offset);
  const end = fileStarts[entry + 1]!;
  const treeBlocks = end - fileStarts[entry]! - Math.ceil(layout.fileSizeOf(entry) / BLOCK_SIZE);
  const index = offset - fileStarts[entry]!;
  if (index < treeBlocks) return run('extent-tree', Math.min(room, treeBlocks - index), index, { entry });
  return run('file', Math.min(room, end - offset), index - treeBlocks, { entry });
}

function locateInMetadata(layout: Layout, dense: number, room: number): Place {
  const { geometry, lostFoundStart, valuesStart } = layout;
  if (dense >= geometry.journal) {
    const index = dense - geometry.journal;
    const { journalTreeBlocks } = geometry;
    if (index < journalTreeBlocks) return run('journal-tree', Math.min(room, journalTreeBlocks - index), index);
    // The journal is empty but for its superblock.
    if (index === journalTreeBlocks) return run('journal', 1, 0);
    return run('journal', Math.min(room, geometry.files - dense), index - journalTreeBlocks, { zero: true });
  }
  if (dense >= valuesStart)
    return run('attribute-value', Math.min(room, geometry.journal - dense), dense - valuesStart);
  if (dense >= lostFoundStart) return run('lost-found', Math.min(room, valuesStart - dense), dense - lostFoundStart);
  const entry = layout.entryOfMetadata(dense - geometry.metadata);
  const { start, treeBlocks, contentBlocks, attributeBlock } = layout.metadataOf(entry, layout.attributesOf(entry));
  if (dense === attributeBlock) return run('attributes', 1, 0, { entry });
  const index = dense - start;
  if (index < treeBlocks) return run('extent-tree', Math.min(room, treeBlocks - index), index, { entry });
  const kind = layout.typeOf(entry) === entryTypes.symlink ? 'symlink' : 'directory';
  const contentIndex = index - treeBlocks;
  return run(kind, Math.min(room, contentBlocks - contentIndex), contentIndex, { entry });
}

/** Everything before the metadata: what the number of groups and inodes alone decides. */
function locateInFront(layout: Layout, dense: number, room: number): Place {
  const { geometry } = layout;
  const { descriptorBlocks, blockBitmaps, inodeBitmaps, tables, resizeBlock, groupCount } = geometry;
  if (dense === 0) return run('superblock', 1, 0);
  if (dense <= descriptorBlocks) {
    return run('group-descriptors', Math.min(room, descriptorBlocks + 1 - dense), dense - 1);
  }
  if (dense < blockBitmaps) {
    return run('reserved-descriptors', Math.min(room, blockBitmaps - dense), dense - 1 - descriptorBlocks);
  }
  if (dense < inodeBitmaps) {
    const group = dense - blockBitmaps;
    const { end, zero } = bitmapRun(group, Math.ceil(geometry.usedBlocks / BLOCKS_PER_GROUP), groupCount - 1);
    return run('block-bitmap', Math.min(room, end - group), group, { zero });
  }
  if (dense < tables) {
    const group = dense - inodeBitmaps;
    const { end, zero } = bitmapRun(group, Math.ceil(layout.lastInode / geometry.inodesPerGroup), groupCount);
    return run('inode-bitmap', Math.min(room, end - group), group, { zero });
  }
  if (dense >= resizeBlock) return run('resize-inode', 1, 0);
  return locateInTables(layout, dense, room);
}

/** Bitmaps of groups unused .. rest - 1 are not initialised: zero. Those before and after are written. */
function bitmapRun(group: number, unused: number, rest: number): { end: number; zero: boolean } {
  if (group < Math.min(unused, rest)) return { end: Math.min(unused, rest), zero: false };
  return group < rest ? { end: rest, zero: true } : { end: group + 1, zero: false };
}

function locateInTables({ geometry, lastInode }: Layout, dense: number, room: number): Place {
  const { tableRuns, tableBlocks } = geometry;
  const table = tableRuns.findLast((candidate) => candidate.dense <= dense)!;
  const end = table.dense + table.groups * tableBlocks;
  if (dense >= end) return run('free', room, 0, { zero: true });
  const index = table.firstGroup * tableBlocks + dense - table.dense;
  const blocks = Math.min(room, end - dense);
  const usedBlocks = Math.ceil(lastInode / INODES_PER_BLOCK);
  if (index >= usedBlocks) return run('inode-table', blocks, index, { zero: true });
  return run('inode-table', Math.min(blocks, usedBlocks - index), index);
}

/** Runs of the device that hold data, and runs known to be zeroes, in blocks. */
export interface Extent {
  readonly block: number;
  readonly blocks: number;
  readonly zero: boolean;
}

/**
 * Cuts blocks from .. to - 1 into data and zeroes, as long as possible each. Costs by the number of backups in the range,
 * not of files: within the metadata and the files everything counts as data.
 */
export function* extents(layout: Layout, from: number, to: number): Generator<Extent> {
  const { geometry } = layout;
  let current: Extent | undefined;
  for (let block = from; block < to; ) {
    const dense = block < geometry.usedBlocks ? geometry.map.toDense(block) : -1;
    const inFiles = dense >= geometry.files;
    const inEntries = dense >= geometry.metadata && dense < geometry.journal;
    let place: { blocks: number; zero: boolean };
    if (inFiles || inEntries) {
      const end = inFiles ? geometry.end : geometry.journal;
      place = { blocks: Math.min(geometry.map.nextBackup(block) - block, end - dense), zero: false };
    } else {
      place = locate(layout, block);
    }
    const blocks = Math.min(place.blocks, to - block);
    if (current?.zero === place.zero) {
      current = { ...current, blocks: current.blocks + blocks };
    } else {
      if (current !== undefined) yield current;
      current = { block, blocks, zero: place.zero };
    }
    block += blocks;
  }
  if (current !== undefined) yield current;
}
