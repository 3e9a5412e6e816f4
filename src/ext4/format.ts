/**
 * The structures and numbers of ext4, field by field, named as in Documentation/filesystems/ext4/ of the kernel. Only
 * what this layout writes has a name here; everything else in a structure stays zero.
 */
import { bytes, struct, u8, u16, u32, u64 } from '../core/struct.ts';
import { BLOCK_SIZE, KiB } from '../core/units.ts';

export const BLOCKS_PER_GROUP = 32_768;
export const INODE_SIZE = 256;
export const INODES_PER_BLOCK = BLOCK_SIZE / INODE_SIZE;
/** A bitmap is one block. */
export const INODES_PER_GROUP_MAX = BLOCK_SIZE * 8;
export const SECTORS_PER_BLOCK = BLOCK_SIZE / 512;
export const NAME_BYTES_MAX = 255;
export const LABEL_BYTES_MAX = 16;
/** EXT4_LINK_MAX: names of one inode; a directory with more than 64,998 sub-directories has the count 1 instead. */
export const LINKS_MAX = 65_000;
/** EXT_MAX_BLOCKS: logical block numbers have 32 bits and the last one is reserved. */
export const FILE_BYTES_MAX = (2 ** 32 - 1) * BLOCK_SIZE;
/** Longer targets do not fit one block with their terminating zero. */
export const SYMLINK_BYTES_MAX = BLOCK_SIZE - 1;
/** Shorter targets lie inside i_block. */
export const SYMLINK_BLOCK_BYTES_MIN = 60;
/** XATTR_SIZE_MAX: no longer value can be read through Linux. */
export const ATTRIBUTE_VALUE_BYTES_MAX = 64 * KiB;
export const GROUP_DESCRIPTOR_SIZE = 64;
export const DESCRIPTORS_PER_BLOCK = BLOCK_SIZE / GROUP_DESCRIPTOR_SIZE;
/** Block numbers in an indirect block of the resize inode. */
export const ADDRESSES_PER_BLOCK = BLOCK_SIZE / 4;
export const SUPERBLOCK_OFFSET = 1024;
/** Times reach from 1901 to 2446: 34 bits, beginning at -2^31 (inodes.rst, "Inode Timestamps"). */
export const TIME_SECONDS_MIN = -(2 ** 31);
export const TIME_SECONDS_MAX = 2 ** 34 - 2 ** 31 - 1;
/** 2310-04-04, and the second after 2378-04-22: times with both epoch bits and the sign set (e2fsck/pass1.c). */
export const MISTAKEN_SECONDS_MIN = 3 * 2 ** 32 - 2 ** 31;
export const MISTAKEN_SECONDS_END = 3 * 2 ** 32;
/** (uid_t) -1 means "no such owner" to the kernel, so the largest id is one below. */
export const OWNER_ID_MAX = 2 ** 32 - 2;
/** What the kernel shows for an owner it cannot express. */
export const OWNER_ID_OVERFLOW = 65_534;
/** The start value of every checksum chain. */
export const CHECKSUM_START = 0xffffffff;

/** special_inodes.rst. */
export const inodeNumbers = { root: 2, resize: 7, journal: 8, firstFree: 11 } as const;

export const featuresCompat = { has_journal: 0x4, ext_attr: 0x8, resize_inode: 0x10, dir_index: 0x20 } as const;
export const featuresIncompat = {
  filetype: 0x2,
  extents: 0x40,
  '64bit': 0x80,
  flex_bg: 0x200,
  ea_inode: 0x400,
  largedir: 0x4000,
} as const;
export const featuresRoCompat = {
  sparse_super: 0x1,
  large_file: 0x2,
  huge_file: 0x8,
  dir_nlink: 0x20,
  extra_isize: 0x40,
  metadata_csum: 0x400,
} as const;

export const superblockValues = {
  magic: 0xef53,
  stateClean: 1,
  errorsRemountReadOnly: 2,
  revisionDynamic: 1,
  maxMountCountNever: 0xffff,
  hashHalfMd4: 1,
  journalBackupBlocks: 1,
  mountOptionsXattrAcl: 0xc,
  flagsUnsignedHash: 0x2,
  logGroupsPerFlex: 4,
  checksumCrc32c: 1,
  extraIsize: 32,
} as const;

/** super.rst. The fields left out are zero in every image. */
export const ext4SuperBlock = struct('ext4_super_block', 'le', 1024, [
  ['s_inodes_count', u32],
  ['s_blocks_count_lo', u32],
  ['s_r_blocks_count_lo', u32],
  ['s_free_blocks_count_lo', u32],
  ['s_free_inodes_count', u32],
  ['s_first_data_block', u32],
  ['s_log_block_size', u32], // 2 ^ (10 + this).
  ['s_log_cluster_size', u32],
  ['s_blocks_per_group', u32],
  ['s_clusters_per_group', u32],
  ['s_inodes_per_group', u32],
  ['s_mtime', u32],
  ['s_wtime', u32],
  ['s_mnt_count', u16],
  ['s_max_mnt_count', u16],
  ['s_magic', u16, { at: 0x38 }],
  ['s_state', u16],
  ['s_errors', u16],
  ['s_minor_rev_level', u16],
  ['s_lastcheck', u32],
  ['s_checkinterval', u32],
  ['s_creator_os', u32],
  ['s_rev_level', u32],
  ['s_def_resuid', u16],
  ['s_def_resgid', u16],
  ['s_first_ino', u32],
  ['s_inode_size', u16],
  ['s_block_group_nr', u16], // Low 16 bits of the group this copy lies in.
  ['s_feature_compat', u32],
  ['s_feature_incompat', u32],
  ['s_feature_ro_compat', u32],
  ['s_uuid', bytes(16), { at: 0x68 }],
  ['s_volume_name', bytes(16)],
  ['s_reserved_gdt_blocks', u16, { at: 0xce }],
  ['s_journal_uuid', bytes(16)], // Stays zero: a value means an external journal.
  ['s_journal_inum', u32],
  ['s_hash_seed', bytes(16), { at: 0xec }],
  ['s_def_hash_version', u8],
  ['s_jnl_backup_type', u8],
  ['s_desc_size', u16],
  ['s_default_mount_opts', u32],
  ['s_first_meta_bg', u32],
  ['s_mkfs_time', u32],
  ['s_jnl_blocks', bytes(68), { at: 0x10c }], // The journal inode's i_block, i_size_high, i_size_lo.
  ['s_blocks_count_hi', u32],
  ['s_r_blocks_count_hi', u32],
  ['s_free_blocks_count_hi', u32],
  ['s_min_extra_isize', u16],
  ['s_want_extra_isize', u16],
  ['s_flags', u32],
  ['s_log_groups_per_flex', u8, { at: 0x174 }],
  ['s_checksum_type', u8],
  ['s_overhead_clusters', u32, { at: 0x248 }],
  ['s_wtime_hi', u8, { at: 0x274 }],
  ['s_mtime_hi', u8],
  ['s_mkfs_time_hi', u8],
  ['s_lastcheck_hi', u8],
  ['s_checksum', u32, { at: 0x3fc }],
]);

export const groupFlags = { inodeUninit: 1, blockUninit: 2, inodeTableZeroed: 4 } as const;

/** group_descr.rst, the 64-byte form. */
export const ext4GroupDescriptor = struct('ext4_group_desc', 'le', GROUP_DESCRIPTOR_SIZE, [
  ['bg_block_bitmap_lo', u32],
  ['bg_inode_bitmap_lo', u32],
  ['bg_inode_table_lo', u32],
  ['bg_free_blocks_count_lo', u16],
  ['bg_free_inodes_count_lo', u16],
  ['bg_used_dirs_count_lo', u16],
  ['bg_flags', u16],
  ['bg_exclude_bitmap_lo', u32],
  ['bg_block_bitmap_csum_lo', u16],
  ['bg_inode_bitmap_csum_lo', u16],
  ['bg_itable_unused_lo', u16],
  ['bg_checksum', u16],
  ['bg_block_bitmap_hi', u32, { at: 0x20 }],
  ['bg_inode_bitmap_hi', u32],
  ['bg_inode_table_hi', u32],
  ['bg_free_blocks_count_hi', u16],
  ['bg_free_inodes_count_hi', u16],
  ['bg_used_dirs_count_hi', u16],
  ['bg_itable_unused_hi', u16],
  ['bg_exclude_bitmap_hi', u32],
  ['bg_block_bitmap_csum_hi', u16],
  ['bg_inode_bitmap_csum_hi', u16],
]);

/** S_IFMT bits of i_mode. */
export const modeTypes = {
  fifo: 0o010000,
  characterDevice: 0o020000,
  directory: 0o040000,
  blockDevice: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const;
export const inodeFlags = { index: 0x1000, extents: 0x80000, eaInode: 0x200000 } as const;

/** inodes.rst. `i_version` is osd1.linux1.l_i_version; the fields from i_blocks_high to i_reserved are osd2.linux2. */
export const ext4Inode = struct('ext4_inode', 'le', INODE_SIZE, [
  ['i_mode', u16],
  ['i_uid_lo', u16],
  ['i_size_lo', u32],
  ['i_atime', u32],
  ['i_ctime', u32],
  ['i_mtime', u32],
  ['i_dtime', u32],
  ['i_gid_lo', u16],
  ['i_links_count', u16],
  ['i_blocks_lo', u32], // 512-byte sectors.
  ['i_flags', u32],
  ['i_version', u32],
  ['i_block', bytes(60), { at: 0x28 }],
  ['i_generation', u32],
  ['i_file_acl_lo', u32],
  ['i_size_high', u32],
  ['i_obso_faddr', u32],
  ['i_blocks_high', u16],
  ['i_file_acl_high', u16],
  ['i_uid_high', u16],
  ['i_gid_high', u16],
  ['i_checksum_lo', u16, { at: 0x7c }],
  ['i_reserved', u16],
  ['i_extra_isize', u16],
  ['i_checksum_hi', u16],
  ['i_ctime_extra', u32],
  ['i_mtime_extra', u32],
  ['i_atime_extra', u32],
  ['i_crtime', u32],
  ['i_crtime_extra', u32],
  ['i_version_hi', u32],
  ['i_projid', u32],
  ['i_attributes', bytes(96), { at: 0xa0 }],
]);
/** Of the 15 words in i_block, the one with the double-indirect block. */
export const I_BLOCK_DOUBLE_INDIRECT = 13;
/** Logical blocks a file can address through direct, indirect and double-indirect blocks: the resize inode's size. */
export const RESIZE_INODE_BLOCKS = ADDRESSES_PER_BLOCK * ADDRESSES_PER_BLOCK + ADDRESSES_PER_BLOCK + 12;

/** ifork.rst, "Extent Tree". */
export const extentHeader = struct('ext4_extent_header', 'le', 12, [
  ['eh_magic', u16],
  ['eh_entries', u16],
  ['eh_max', u16],
  ['eh_depth', u16],
  ['eh_generation', u32],
]);
export const extentIndex = struct('ext4_extent_idx', 'le', 12, [
  ['ei_block', u32],
  ['ei_leaf_lo', u32],
  ['ei_leaf_hi', u16],
  ['ei_unused', u16],
]);
export const extentLeaf = struct('ext4_extent', 'le', 12, [
  ['ee_block', u32],
  ['ee_len', u16],
  ['ee_start_hi', u16],
  ['ee_start_lo', u32],
]);
export const EXTENT_MAGIC = 0xf30a;
export const EXTENTS_IN_INODE = 4;
export const EXTENTS_PER_BLOCK = 340;
export const EXTENT_BLOCKS_MAX = 32_768;

/** directory.rst. The name follows; a record is a multiple of 4 bytes long. */
export const directoryEntry = struct('ext4_dir_entry_2', 'le', 8, [
  ['inode', u32],
  ['rec_len', u16],
  ['name_len', u8],
  ['file_type', u8],
]);
export const directoryTail = struct('ext4_dir_entry_tail', 'le', 12, [
  ['det_reserved_zero1', u32],
  ['det_rec_len', u16],
  ['det_reserved_zero2', u8],
  ['det_reserved_ft', u8],
  ['det_checksum', u32],
]);
export const DIRECTORY_TAIL_TYPE = 0xde;
/** Bytes of a directory block in front of its checksum. */
export const DIRECTORY_BYTES = BLOCK_SIZE - directoryTail.sizeBytes;
/** `.` and `..`, 12 bytes each. */
export const DIRECTORY_DOTS_BYTES = 24;
export const fileTypes = {
  file: 1,
  directory: 2,
  characterDevice: 3,
  blockDevice: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
} as const;

/** directory.rst, "Hash Tree Directories": behind the dots of the root, followed by the entries. */
export const htreeRootInfo = struct('dx_root_info', 'le', 8, [
  ['reserved_zero', u32],
  ['hash_version', u8],
  ['info_length', u8],
  ['indirect_levels', u8],
  ['unused_flags', u8],
]);
/** Overlays the first dx_entry: its hash is implied. */
export const htreeCountLimit = struct('dx_countlimit', 'le', 8, [
  ['limit', u16],
  ['count', u16],
  ['block', u32],
]);
export const htreeEntry = struct('dx_entry', 'le', 8, [
  ['hash', u32],
  ['block', u32],
]);
export const htreeTail = struct('dx_tail', 'le', 8, [
  ['dt_reserved', u32],
  ['dt_checksum', u32],
]);
/** Set in an index entry's hash when names of that very hash also end the previous leaf. */
export const HTREE_CONTINUATION = 1;
/** EXT4_HTREE_EOF_32BIT << 1 marks the end for readers, so no name may have it. */
export const HTREE_HASH_END = 0xfffffffe;
export const HTREE_HASH_LAST = 0xfffffffc;

/** attributes.rst. */
export const attributeBlockHeader = struct('ext4_xattr_header', 'le', 32, [
  ['h_magic', u32],
  ['h_refcount', u32],
  ['h_blocks', u32],
  ['h_hash', u32],
  ['h_checksum', u32, { at: 0x10 }],
]);
export const attributeEntry = struct('ext4_xattr_entry', 'le', 16, [
  ['e_name_len', u8],
  ['e_name_index', u8],
  ['e_value_offs', u16],
  ['e_value_inum', u32],
  ['e_value_size', u32],
  ['e_hash', u32],
]);
export const ATTRIBUTE_MAGIC = 0xea020000;
/** Where the entries in an inode begin: behind the magic number. */
export const ATTRIBUTE_BODY_START = ext4Inode.offsetOf('i_attributes') + 4;
/** Bytes for entries and values, 4 zero bytes between the two taken off. */
export const ATTRIBUTE_BODY_BYTES = INODE_SIZE - ATTRIBUTE_BODY_START - 4;
export const ATTRIBUTE_BLOCK_BYTES = BLOCK_SIZE - attributeBlockHeader.sizeBytes - 4;
export const attributeIndexes = { user: 1, aclAccess: 2, aclDefault: 3, trusted: 4, security: 6 } as const;

/** Access control lists: as getxattr(2) gives them, and as ext4 stores them (fs/ext4/acl.h in the kernel). */
export const aclHeader = struct('posix_acl_xattr_header', 'le', 4, [['a_version', u32]]);
export const aclEntry = struct('posix_acl_xattr_entry', 'le', 8, [
  ['e_tag', u16],
  ['e_perm', u16],
  ['e_id', u32],
]);
export const aclVersions = { getxattr: 2, stored: 1 } as const;
export const aclTags = { userObject: 1, user: 2, groupObject: 4, group: 8, mask: 0x10, other: 0x20 } as const;
/** Bytes of a stored entry without an id. */
export const ACL_SHORT_ENTRY_BYTES = 4;

/** journal.rst, "Super Block", version 2; big-endian unlike everything else. */
export const journalSuperblock = struct('journal_superblock_s', 'be', 1024, [
  ['h_magic', u32],
  ['h_blocktype', u32],
  ['h_sequence', u32],
  ['s_blocksize', u32],
  ['s_maxlen', u32],
  ['s_first', u32],
  ['s_sequence', u32],
  ['s_start', u32], // 0: nothing to replay.
  ['s_errno', u32],
  ['s_uuid', bytes(16), { at: 0x30 }],
  ['s_nr_users', u32, { at: 0x40 }],
]);
export const journalValues = { magic: 0xc03b3998, superblockV2: 4 } as const;

/** A block number as checksums cover it. */
export const checksumBlock = struct('checksum_block', 'le', 8, [['block', u64]]);
