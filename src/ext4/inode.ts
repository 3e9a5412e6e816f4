/** Inodes (inodes.rst), sixteen to a block of an inode table. Hand-written against the table's offsets: a hot path. */

import { crc32c } from '../core/crc32c.ts';
import { type EntryType, entryTypes } from '../core/snapshot-tree.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { attributeValueHash, renderAttributeBody } from './attributes.ts';
import { high32, low32, viewOf } from './bytes.ts';
import { type ExtentPlan, renderExtentRoot } from './extents.ts';
import {
  ext4Inode,
  I_BLOCK_DOUBLE_INDIRECT,
  INODE_SIZE,
  INODES_PER_BLOCK,
  inodeFlags,
  inodeNumbers,
  LINKS_MAX,
  modeTypes,
  RESIZE_INODE_BLOCKS,
  SECTORS_PER_BLOCK,
  SYMLINK_BLOCK_BYTES_MIN,
  superblockValues,
} from './format.ts';
import { type Layout, LOST_FOUND_BLOCKS, valueBlocks } from './layout.ts';

/** What an inode says about itself; where its blocks are comes separately. */
export interface InodeFields {
  /** Type and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly links: number;
  readonly flags: number;
  /** Blocks of data, extent tree, attribute block and the inodes of long attribute values. */
  readonly blocks: number;
  /** All four times. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Physical; 0 without one. */
  readonly attributeBlock: number;
}

const typeBits: Readonly<Record<EntryType, number>> = {
  [entryTypes.directory]: modeTypes.directory,
  [entryTypes.file]: modeTypes.file,
  [entryTypes.symlink]: modeTypes.symlink,
  [entryTypes.fifo]: modeTypes.fifo,
  [entryTypes.socket]: modeTypes.socket,
  [entryTypes.characterDevice]: modeTypes.characterDevice,
  [entryTypes.blockDevice]: modeTypes.blockDevice,
};
const OWNER_READ_WRITE = 0o600;
const LOST_FOUND_MODE = 0o700;
const SYMLINK_MODE = 0o777;

/** Block `index` of all inode tables: inodes 16 * index + 1 and on. `target` is zero. */
export function renderInodeBlock(layout: Layout, index: number, target: Uint8Array): void {
  for (let i = 0; i < INODES_PER_BLOCK; i++) {
    const inode = index * INODES_PER_BLOCK + i + 1;
    if (inode > layout.lastInode) return;
    if (renderInode(layout, inode, target, i * INODE_SIZE)) seal(layout, inode, target, i * INODE_SIZE);
  }
}

/** Returns false for an inode that stays zero, checksum included: reserved numbers this layout does not use. */
function renderInode(layout: Layout, inode: number, target: Uint8Array, at: number): boolean {
  const entry = layout.numbers.entryOf(inode);
  if (entry >= 0) renderEntry(layout, entry, target, at);
  else if (inode >= layout.numbers.entriesEnd) renderValue(layout, inode - layout.numbers.entriesEnd, target, at);
  else if (inode === inodeNumbers.resize && layout.geometry.reservedBlocks > 0) renderResize(layout, target, at);
  else if (inode === inodeNumbers.journal) renderJournal(layout, target, at);
  else if (inode === inodeNumbers.firstFree) renderLostFound(layout, target, at);
  else return false;
  return true;
}

function renderEntry(layout: Layout, entry: number, target: Uint8Array, at: number): void {
  const type = layout.typeOf(entry);
  const attributes = layout.attributesOf(entry);
  const attributeBlocks = attributes.block.length > 0 ? 1 : 0;
  let blocks = attributeBlocks;
  for (const { value } of attributes.outside) blocks += valueBlocks(value.length);
  let sizeBytes = 0;
  let flags = 0;
  let links = layout.numbers.nameCount(entry);
  if (type === entryTypes.file || type === entryTypes.directory) {
    const extents = layout.extentsOf(entry, attributes);
    renderExtentRoot(extents, target, at + I_BLOCK);
    flags = inodeFlags.extents;
    const contentBlocks = blocksOf(extents);
    blocks += contentBlocks + extents.treeBlocks;
    sizeBytes = type === entryTypes.file ? layout.fileSizeOf(entry) : contentBlocks * BLOCK_SIZE;
    if (type === entryTypes.directory) {
      if (contentBlocks > 1) flags |= inodeFlags.index;
      links = directoryLinks(layout.subdirectoriesOf(entry));
    }
  } else if (type === entryTypes.symlink) {
    const linkTarget = layout.linkTargetOf(entry);
    sizeBytes = linkTarget.length;
    if (sizeBytes < SYMLINK_BLOCK_BYTES_MIN) {
      target.set(linkTarget, at + I_BLOCK);
    } else {
      renderExtentRoot(layout.extentsOf(entry, attributes), target, at + I_BLOCK);
      flags = inodeFlags.extents;
      blocks += 1;
    }
  }
  const { map } = layout.geometry;
  writeInode(target, at, {
    mode: typeBits[type] | (type === entryTypes.symlink ? SYMLINK_MODE : layout.modeOf(entry)),
    uid: layout.uidOf(entry),
    gid: layout.gidOf(entry),
    sizeBytes,
    links,
    flags,
    blocks,
    seconds: layout.secondsOf(entry),
    nanoseconds: layout.nanosecondsOf(entry),
    attributeBlock: attributeBlocks > 0 ? map.toPhysical(layout.metadataOf(entry, attributes).attributeBlock) : 0,
  });
  renderAttributeBody(attributes.body, target, at);
}

/** `.`, `..` of each sub-directory, and the entry in the parent; 1 means "too many to count" (dir_nlink). */
function directoryLinks(subdirectories: number): number {
  return subdirectories + 2 > LINKS_MAX ? 1 : subdirectories + 2;
}

function blocksOf(extents: ExtentPlan): number {
  const last = extents.pieces.at(-1);
  return last === undefined ? 0 : last.logical + last.length;
}

/** A file of the filesystem itself, with extents. */
function ownFile(layout: Layout, extents: ExtentPlan): InodeFields {
  return {
    mode: modeTypes.file | OWNER_READ_WRITE,
    uid: 0,
    gid: 0,
    sizeBytes: blocksOf(extents) * BLOCK_SIZE,
    links: 1,
    flags: inodeFlags.extents,
    blocks: blocksOf(extents) + extents.treeBlocks,
    seconds: layout.parameters.createdSeconds,
    nanoseconds: 0,
    attributeBlock: 0,
  };
}

function renderJournal(layout: Layout, target: Uint8Array, at: number): void {
  const extents = layout.journalExtents();
  renderExtentRoot(extents, target, at + I_BLOCK);
  writeInode(target, at, ownFile(layout, extents));
}

/** Belongs to the root directory's owner, so that a database that owns the mount can list it. */
function renderLostFound(layout: Layout, target: Uint8Array, at: number): void {
  const extents = layout.lostFoundExtents();
  renderExtentRoot(extents, target, at + I_BLOCK);
  writeInode(target, at, {
    ...ownFile(layout, extents),
    mode: modeTypes.directory | LOST_FOUND_MODE,
    uid: layout.uidOf(0),
    gid: layout.gidOf(0),
    sizeBytes: LOST_FOUND_BLOCKS * BLOCK_SIZE,
    links: 2,
  });
}

/** eainode.rst: the times hold the value's hash and the number of references instead. */
function renderValue(layout: Layout, value: number, target: Uint8Array, at: number): void {
  const extents = layout.valueExtents(value);
  const bytes = layout.valueBytes(value);
  renderExtentRoot(extents, target, at + I_BLOCK);
  writeInode(target, at, {
    ...ownFile(layout, extents),
    sizeBytes: bytes.length,
    flags: inodeFlags.extents | inodeFlags.eaInode,
    seconds: 0,
  });
  ext4Inode.write(target, { i_atime: attributeValueHash(layout.checksumSeed, bytes), i_version: 1 }, at);
}

/** special_inodes.rst: maps the descriptors' room for growth, by the old block map (super.rst, s_reserved_gdt_blocks). */
function renderResize(layout: Layout, target: Uint8Array, at: number): void {
  const { map, reservedBlocks, resizeBlock } = layout.geometry;
  writeInode(target, at, {
    ...ownFile(layout, layout.lostFoundExtents()),
    sizeBytes: RESIZE_INODE_BLOCKS * BLOCK_SIZE,
    flags: 0,
    blocks: 1 + reservedBlocks * (1 + map.backups.length),
  });
  viewOf(target).setUint32(at + I_BLOCK + 4 * I_BLOCK_DOUBLE_INDIRECT, map.toPhysical(resizeBlock), true);
}

const I_MODE = ext4Inode.offsetOf('i_mode');
const I_UID_LO = ext4Inode.offsetOf('i_uid_lo');
const I_SIZE_LO = ext4Inode.offsetOf('i_size_lo');
const I_ATIME = ext4Inode.offsetOf('i_atime');
const I_CTIME = ext4Inode.offsetOf('i_ctime');
const I_MTIME = ext4Inode.offsetOf('i_mtime');
const I_GID_LO = ext4Inode.offsetOf('i_gid_lo');
const I_LINKS_COUNT = ext4Inode.offsetOf('i_links_count');
const I_BLOCKS_LO = ext4Inode.offsetOf('i_blocks_lo');
const I_FLAGS = ext4Inode.offsetOf('i_flags');
const I_BLOCK = ext4Inode.offsetOf('i_block');
const I_FILE_ACL_LO = ext4Inode.offsetOf('i_file_acl_lo');
const I_SIZE_HIGH = ext4Inode.offsetOf('i_size_high');
const I_BLOCKS_HIGH = ext4Inode.offsetOf('i_blocks_high');
const I_FILE_ACL_HIGH = ext4Inode.offsetOf('i_file_acl_high');
const I_UID_HIGH = ext4Inode.offsetOf('i_uid_high');
const I_GID_HIGH = ext4Inode.offsetOf('i_gid_high');
const I_CHECKSUM_LO = ext4Inode.offsetOf('i_checksum_lo');
const I_EXTRA_ISIZE = ext4Inode.offsetOf('i_extra_isize');
const I_CHECKSUM_HI = ext4Inode.offsetOf('i_checksum_hi');
const I_CTIME_EXTRA = ext4Inode.offsetOf('i_ctime_extra');
const I_MTIME_EXTRA = ext4Inode.offsetOf('i_mtime_extra');
const I_ATIME_EXTRA = ext4Inode.offsetOf('i_atime_extra');
const I_CRTIME = ext4Inode.offsetOf('i_crtime');
const I_CRTIME_EXTRA = ext4Inode.offsetOf('i_crtime_extra');
const LOW_16 = 2 ** 16 - 1;

/** Writes all fields but i_block, attributes and checksum over 256 bytes of `target` that are zero there. */
export function writeInode(target: Uint8Array, at: number, fields: InodeFields): void {
  const view = viewOf(target);
  const sectors = fields.blocks * SECTORS_PER_BLOCK;
  view.setUint16(at + I_MODE, fields.mode, true);
  view.setUint16(at + I_UID_LO, fields.uid & LOW_16, true);
  view.setUint16(at + I_UID_HIGH, fields.uid >>> 16, true);
  view.setUint16(at + I_GID_LO, fields.gid & LOW_16, true);
  view.setUint16(at + I_GID_HIGH, fields.gid >>> 16, true);
  view.setUint32(at + I_SIZE_LO, low32(fields.sizeBytes), true);
  view.setUint32(at + I_SIZE_HIGH, high32(fields.sizeBytes), true);
  view.setUint16(at + I_LINKS_COUNT, fields.links, true);
  view.setUint32(at + I_FLAGS, fields.flags, true);
  view.setUint32(at + I_BLOCKS_LO, low32(sectors), true);
  view.setUint16(at + I_BLOCKS_HIGH, high32(sectors), true);
  view.setUint32(at + I_FILE_ACL_LO, low32(fields.attributeBlock), true);
  view.setUint16(at + I_FILE_ACL_HIGH, high32(fields.attributeBlock), true);
  view.setUint16(at + I_EXTRA_ISIZE, superblockValues.extraIsize, true);
  const seconds = low32(fields.seconds);
  const extra = timeExtra(fields.seconds, fields.nanoseconds);
  view.setUint32(at + I_ATIME, seconds, true);
  view.setUint32(at + I_CTIME, seconds, true);
  view.setUint32(at + I_MTIME, seconds, true);
  view.setUint32(at + I_CRTIME, seconds, true);
  view.setUint32(at + I_ATIME_EXTRA, extra, true);
  view.setUint32(at + I_CTIME_EXTRA, extra, true);
  view.setUint32(at + I_MTIME_EXTRA, extra, true);
  view.setUint32(at + I_CRTIME_EXTRA, extra, true);
}

/** Bits 32 and 33 of the seconds - counted from the signed 32-bit value, so not simply shifted - below the nanoseconds. */
export function timeExtra(seconds: number, nanoseconds: number): number {
  const epoch = ((seconds - (seconds | 0)) / 2 ** 32) & 3;
  return ((nanoseconds << 2) | epoch) >>> 0;
}

/** The checksum covers the inode with both of its halves zero. */
function seal(layout: Layout, inode: number, target: Uint8Array, at: number): void {
  const checksum = crc32c(layout.inodeSeed(inode), target.subarray(at, at + INODE_SIZE));
  const view = viewOf(target);
  view.setUint16(at + I_CHECKSUM_LO, checksum & LOW_16, true);
  view.setUint16(at + I_CHECKSUM_HI, checksum >>> 16, true);
}
