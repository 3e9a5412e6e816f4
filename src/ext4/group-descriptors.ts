/** Group descriptors (group_descr.rst). Nearly all groups are full or unused: those share their bitmap checksums. */

import { crc32c } from '../core/crc32c.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { freeBlocksIn, isFullGroup, renderBlockBitmap, renderInodeBitmap, usedInodesIn } from './bitmaps.ts';
import { high32, low32, viewOf } from './bytes.ts';
import { DESCRIPTORS_PER_BLOCK, ext4GroupDescriptor, GROUP_DESCRIPTOR_SIZE, groupFlags } from './format.ts';
import { groupSpace, inodeTableBlock } from './geometry.ts';
import type { Layout } from './layout.ts';

const LOW_16 = 2 ** 16 - 1;
const numberBytes = new Uint8Array(4);
const numberView = viewOf(numberBytes);

/** Renders blocks of the descriptor table; remembers the checksums that many groups share. */
export class GroupDescriptors {
  readonly #layout: Layout;
  #fullBlockBitmap: number | undefined;
  #fullInodeBitmap: number | undefined;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** Descriptors 64 * index and on, the same in the primary table and in backups. `target` is zero. */
  render(index: number, target: Uint8Array): void {
    const { groupCount } = this.#layout.geometry;
    const first = index * DESCRIPTORS_PER_BLOCK;
    for (let i = 0; i < DESCRIPTORS_PER_BLOCK && first + i < groupCount; i++) {
      this.#renderOne(first + i, target, i * GROUP_DESCRIPTOR_SIZE);
    }
  }

  #renderOne(group: number, target: Uint8Array, at: number): void {
    const layout = this.#layout;
    const { geometry, lastInode } = layout;
    const { map, inodesPerGroup } = geometry;
    const usedInodes = usedInodesIn(geometry, group, lastInode);
    const blockBitmap = map.toPhysical(geometry.blockBitmaps + group);
    const inodeBitmap = map.toPhysical(geometry.inodeBitmaps + group);
    const table = inodeTableBlock(geometry, group);
    const blockChecksum = this.#blockBitmapChecksum(group);
    const inodeChecksum = this.#inodeBitmapChecksum(group, usedInodes);
    const directories =
      usedInodes === 0 ? 0 : layout.directoriesAmong(group * inodesPerGroup + 1, (group + 1) * inodesPerGroup + 1);
    // Without inodeTableZeroed the kernel's lazy initialisation would write zeroes over every table.
    let flags: number = groupFlags.inodeTableZeroed;
    if (usedInodes === 0) flags |= groupFlags.inodeUninit;
    if (groupSpace(geometry, group).uninit) flags |= groupFlags.blockUninit;
    ext4GroupDescriptor.write(
      target,
      {
        bg_block_bitmap_lo: low32(blockBitmap),
        bg_block_bitmap_hi: high32(blockBitmap),
        bg_inode_bitmap_lo: low32(inodeBitmap),
        bg_inode_bitmap_hi: high32(inodeBitmap),
        bg_inode_table_lo: low32(table),
        bg_inode_table_hi: high32(table),
        // Counts up to 32,768 fit the low halves.
        bg_free_blocks_count_lo: freeBlocksIn(geometry, group),
        bg_free_inodes_count_lo: inodesPerGroup - usedInodes,
        bg_used_dirs_count_lo: directories,
        bg_flags: flags,
        bg_block_bitmap_csum_lo: blockChecksum & LOW_16,
        bg_block_bitmap_csum_hi: blockChecksum >>> 16,
        bg_inode_bitmap_csum_lo: inodeChecksum & LOW_16,
        bg_inode_bitmap_csum_hi: inodeChecksum >>> 16,
        bg_itable_unused_lo: inodesPerGroup - usedInodes,
      },
      at,
    );
    numberView.setUint32(0, group, true);
    const start = crc32c(layout.checksumSeed, numberBytes);
    const checksum = crc32c(start, target.subarray(at, at + GROUP_DESCRIPTOR_SIZE));
    ext4GroupDescriptor.write(target, { bg_checksum: checksum & LOW_16 }, at);
  }

  /** 0 where the bitmap is not initialised. */
  #blockBitmapChecksum(group: number): number {
    const { geometry, checksumSeed } = this.#layout;
    if (groupSpace(geometry, group).uninit) return 0;
    const full = isFullGroup(geometry, group);
    if (full && this.#fullBlockBitmap !== undefined) return this.#fullBlockBitmap;
    const bitmap = new Uint8Array(BLOCK_SIZE);
    renderBlockBitmap(geometry, group, bitmap);
    const checksum = crc32c(checksumSeed, bitmap);
    if (full) this.#fullBlockBitmap = checksum;
    return checksum;
  }

  #inodeBitmapChecksum(group: number, usedInodes: number): number {
    const { geometry, checksumSeed, lastInode } = this.#layout;
    if (usedInodes === 0) return 0;
    const full = usedInodes === geometry.inodesPerGroup;
    if (full && this.#fullInodeBitmap !== undefined) return this.#fullInodeBitmap;
    const bitmap = new Uint8Array(BLOCK_SIZE);
    renderInodeBitmap(geometry, group, lastInode, bitmap);
    const checksum = crc32c(checksumSeed, bitmap.subarray(0, geometry.inodesPerGroup / 8));
    if (full) this.#fullInodeBitmap = checksum;
    return checksum;
  }
}
