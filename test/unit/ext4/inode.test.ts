import { expect, test } from 'vitest';
import { ext4Inode } from '../../../src/ext4/format.ts';
import { timeExtra, writeInode } from '../../../src/ext4/inode.ts';

const fields = {
  mode: 0o100644,
  uid: 0x12345678,
  gid: 0xfedcba98,
  sizeBytes: 0x123_4567_89ab,
  links: 3,
  flags: 0x80000,
  blocks: 0x12_3456_7890 / 8,
  seconds: 2 ** 32 + 5,
  nanoseconds: 999_999_999,
  attributeBlock: 0x1_2345_6789,
};

test('the hand-written inode is what the table writes', () => {
  const hand = new Uint8Array(512);
  writeInode(hand, 256, fields);
  const extra = ((999_999_999 << 2) | 1) >>> 0;
  const table = ext4Inode.encode({
    i_mode: 0o100644,
    i_uid_lo: 0x5678,
    i_uid_high: 0x1234,
    i_gid_lo: 0xba98,
    i_gid_high: 0xfedc,
    i_size_lo: 0x456789ab,
    i_size_high: 0x123,
    i_links_count: 3,
    i_flags: 0x80000,
    i_blocks_lo: 0x34567890,
    i_blocks_high: 0x12,
    i_file_acl_lo: 0x23456789,
    i_file_acl_high: 1,
    i_extra_isize: 32,
    i_atime: 5,
    i_ctime: 5,
    i_mtime: 5,
    i_crtime: 5,
    i_atime_extra: extra,
    i_ctime_extra: extra,
    i_mtime_extra: extra,
    i_crtime_extra: extra,
  });
  expect(Buffer.from(hand.subarray(256))).toEqual(Buffer.from(table));
});

test.each([
  [0, 0, 0],
  [-1, 0, 0],
  [-(2 ** 31), 1, 4],
  [2 ** 31 - 1, 0, 0],
  [2 ** 31, 0, 1],
  [2 ** 32, 0, 1],
  [2 ** 34 - 2 ** 31 - 1, 0, 3],
])('second %i and nanosecond %i have the extra word %i', (seconds, nanoseconds, extra) => {
  expect(timeExtra(seconds, nanoseconds)).toBe(extra);
});
