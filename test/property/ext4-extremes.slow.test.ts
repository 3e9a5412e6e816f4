/** Trees at the edges of what the format holds that write gigabytes of metadata, judged by e2fsck. */
import { describe, expect, test } from 'vitest';
import { Ext4Image } from '../../src/ext4/image.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { debugfs } from '../support/ext4-image-file.ts';
import { remarksOn } from '../support/ext4-judges.ts';
import { directory, file, makeTree, PatternContent, type TreeNode } from '../support/ext4-tree.ts';
import { requires } from '../support/requires.ts';

const identity = { snapshotId: 'e7'.repeat(32), createdSeconds: 1_750_000_000 };
const FSCK_MS_MAX = 1_200_000;
const need = requires('e2fsck', 'debugfs');

function imageOf(root: TreeNode): Ext4Image {
  const tree = makeTree(root);
  const layout = planLayout(tree, { free: { bytes: 0 }, journalBlocks: 1024, spareInodes: 0 }, identity);
  return new Ext4Image(layout, new PatternContent(tree));
}

function files(count: number, name: (i: number) => string, sizeBytes = 0) {
  return Array.from({ length: count }, (_, i) => [name(i), file(Math.max(0, sizeBytes - i))] as const);
}

describe.skipIf(need.missing)(need.title('directories'), () => {
  test('of a million names, found by their hashes', async () => {
    const image = imageOf(directory([['many', directory(files(1_000_000, (i) => `entry number ${i}`))]]));
    const look = async (path: string) => {
      expect(await debugfs(path, 'stat "/many/entry number 12345"')).toMatch(/^Inode: \d+ {3}Type: regular/);
    };
    expect(await remarksOn(image, look, FSCK_MS_MAX)).toEqual([]);
  });

  // Half a gigabyte of leaves, an index of three levels, the feature largedir.
  test('of 2.1 million names of 255 bytes', async () => {
    const long = directory(files(2_100_000, (i) => `${'n'.repeat(247)}${i + 10_000_000}`));
    const image = imageOf(directory([['huge', long]]));
    expect(image.layout.largeDirectories).toBe(true);
    expect(await remarksOn(image, undefined, FSCK_MS_MAX)).toEqual([]);
  });
});

test.skipIf(need.missing)(need.title('just below 16 TiB, in 10,000 files'), async () => {
  const image = imageOf(directory(files(10_000, (i) => `${i}`, Math.floor((15.9 * 2 ** 40) / 10_000))));
  expect(await remarksOn(image, undefined, FSCK_MS_MAX)).toEqual([]);
});

test('above 16 TiB there is no resize inode: its block numbers have 32 bits', () => {
  const image = imageOf(directory(files(10_000, (i) => `${i}`, Math.floor((20 * 2 ** 40) / 10_000))));
  expect(image.layout.geometry.reservedBlocks).toBe(0);
});
