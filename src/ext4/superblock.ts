/** The superblock and its backups (super.rst), the journal's (journal.rst), and the resize inode's blocks. */

import { crc32c } from '../core/crc32c.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { freeBlocksTotal } from './bitmaps.ts';
import { high32, low32, viewOf } from './bytes.ts';
import { renderExtentRoot } from './extents.ts';
import {
  ADDRESSES_PER_BLOCK,
  BLOCKS_PER_GROUP,
  CHECKSUM_START,
  ext4SuperBlock,
  featuresCompat,
  featuresIncompat,
  featuresRoCompat,
  GROUP_DESCRIPTOR_SIZE,
  INODE_SIZE,
  inodeNumbers,
  journalSuperblock,
  journalValues,
  superblockValues,
} from './format.ts';
import type { Geometry } from './geometry.ts';
import type { Layout } from './layout.ts';

/** The superblock of one group, 1024 bytes. */
export function renderSuperblock(layout: Layout, group: number): Uint8Array {
  const { geometry, parameters, lastInode } = layout;
  const { totalBlocks, groupCount, inodesPerGroup } = geometry;
  const free = freeBlocksTotal(geometry);
  const created = parameters.createdSeconds;
  const inodes = inodesPerGroup * groupCount;
  const block = ext4SuperBlock.encode({
    s_inodes_count: inodes,
    s_blocks_count_lo: low32(totalBlocks),
    s_blocks_count_hi: high32(totalBlocks),
    s_free_blocks_count_lo: low32(free),
    s_free_blocks_count_hi: high32(free),
    s_free_inodes_count: inodes - lastInode,
    s_log_block_size: Math.log2(BLOCK_SIZE) - 10,
    s_log_cluster_size: Math.log2(BLOCK_SIZE) - 10,
    s_blocks_per_group: BLOCKS_PER_GROUP,
    s_clusters_per_group: BLOCKS_PER_GROUP,
    s_inodes_per_group: inodesPerGroup,
    s_wtime: low32(created),
    s_wtime_hi: high32(created),
    s_mkfs_time: low32(created),
    s_mkfs_time_hi: high32(created),
    s_lastcheck: low32(created),
    s_lastcheck_hi: high32(created),
    s_max_mnt_count: superblockValues.maxMountCountNever,
    s_magic: superblockValues.magic,
    s_state: superblockValues.stateClean,
    s_errors: superblockValues.errorsRemountReadOnly,
    s_rev_level: superblockValues.revisionDynamic,
    s_first_ino: inodeNumbers.firstFree,
    s_inode_size: INODE_SIZE,
    s_block_group_nr: group % 2 ** 16,
    s_uuid: layout.uuid,
    s_volume_name: Buffer.from(parameters.label),
    s_reserved_gdt_blocks: geometry.reservedBlocks,
    s_journal_inum: inodeNumbers.journal,
    s_hash_seed: layout.hashSeed,
    s_def_hash_version: superblockValues.hashHalfMd4,
    s_jnl_backup_type: superblockValues.journalBackupBlocks,
    s_jnl_blocks: journalBackup(layout),
    s_desc_size: GROUP_DESCRIPTOR_SIZE,
    s_default_mount_opts: superblockValues.mountOptionsXattrAcl,
    s_min_extra_isize: superblockValues.extraIsize,
    s_want_extra_isize: superblockValues.extraIsize,
    s_flags: superblockValues.flagsUnsignedHash,
    s_log_groups_per_flex: superblockValues.logGroupsPerFlex,
    s_checksum_type: superblockValues.checksumCrc32c,
    s_overhead_clusters: overheadBlocks(layout),
    ...features(layout),
  });
  const checksum = crc32c(CHECKSUM_START, block.subarray(0, ext4SuperBlock.offsetOf('s_checksum')));
  ext4SuperBlock.write(block, { s_checksum: checksum });
  return block;
}

function features(layout: Layout) {
  const { resize_inode, ...compat } = featuresCompat;
  const { ea_inode, largedir, ...incompat } = featuresIncompat;
  return {
    s_feature_compat: union(compat) | (layout.geometry.reservedBlocks > 0 ? resize_inode : 0),
    s_feature_incompat:
      union(incompat) | (layout.values.entries.length > 0 ? ea_inode : 0) | (layout.largeDirectories ? largedir : 0),
    s_feature_ro_compat: union(featuresRoCompat),
  };
}

function union(flags: Readonly<Record<string, number>>): number {
  return Object.values(flags).reduce((all, flag) => all | flag, 0);
}

/** The journal inode's i_block and size once more, for a reader that cannot use the inode table. */
function journalBackup(layout: Layout): Uint8Array {
  const backup = new Uint8Array(68);
  const view = viewOf(backup);
  const sizeBytes = layout.parameters.journalBlocks * BLOCK_SIZE;
  renderExtentRoot(layout.journalExtents(), backup, 0);
  view.setUint32(60, high32(sizeBytes), true);
  view.setUint32(64, low32(sizeBytes), true);
  return backup;
}

/** What statfs(2) takes off the size. The kernel would compute it at every mount if it were 0. */
function overheadBlocks({ geometry, parameters }: Layout): number {
  const { map, groupCount, tableBlocks } = geometry;
  return (1 + map.backups.length) * map.backupBlocks + groupCount * (2 + tableBlocks) + parameters.journalBlocks;
}

/** The journal's first block; all others are zero. */
export function renderJournalSuperblock(layout: Layout, target: Uint8Array): void {
  journalSuperblock.write(target, {
    h_magic: journalValues.magic,
    h_blocktype: journalValues.superblockV2,
    s_blocksize: BLOCK_SIZE,
    s_maxlen: layout.parameters.journalBlocks,
    s_first: 1,
    s_sequence: 1,
    s_uuid: layout.uuid,
    s_nr_users: 1,
  });
}

/** The resize inode's double-indirect block: each reserved descriptor block at its number modulo a block's addresses. */
export function renderResizeBlock(geometry: Geometry, target: Uint8Array): void {
  const view = viewOf(target);
  for (let i = 0; i < geometry.reservedBlocks; i++) {
    const place = (geometry.descriptorBlocks + i) % ADDRESSES_PER_BLOCK;
    view.setUint32(place * 4, 1 + geometry.descriptorBlocks + i, true);
  }
}

/** Reserved descriptor block `index`, in group 0 only: the numbers of its counterparts in the backups. */
export function renderReservedDescriptors(geometry: Geometry, index: number, target: Uint8Array): void {
  const view = viewOf(target);
  const block = 1 + geometry.descriptorBlocks + index;
  geometry.map.backups.forEach((group, i) => {
    view.setUint32(i * 4, block + group * BLOCKS_PER_GROUP, true);
  });
}
