/**
 * Trees at the edges of what the format holds, judged by e2fsck and the independent reader. Images are sparse, files'
 * content is not written. ext4-extremes.slow.test.ts has those that write gigabytes of metadata.
 */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { SnapshotTree } from '../../src/core/snapshot-tree.ts';
import { BLOCK_SIZE, GiB, MiB } from '../../src/core/units.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import type { LayoutRequest } from '../../src/ext4/parameters.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { compareDevice, expectTree } from '../support/ext4-expect.ts';
import { debugfs } from '../support/ext4-image-file.ts';
import { remarksOn } from '../support/ext4-judges.ts';
import { Ext4Reader } from '../support/ext4-reader.ts';
import { directory, file, makeTree, PatternContent, type TreeNode } from '../support/ext4-tree.ts';
import { requires } from '../support/requires.ts';

const identity = { snapshotId: 'e7'.repeat(32), createdSeconds: 1_750_000_000 };
const tight: LayoutRequest = { free: { bytes: 0 }, journalBlocks: 1024, spareInodes: 0 };
const need = requires('e2fsck', 'debugfs');

function imageOf(tree: SnapshotTree, request: LayoutRequest): Ext4Image {
  return new Ext4Image(planLayout(tree, request, identity), new PatternContent(tree));
}

async function judge(image: Ext4Image, look?: (path: string) => Promise<void>): Promise<void> {
  expect(await remarksOn(image, look)).toEqual([]);
}

async function readerOf(image: Ext4Image): Promise<Ext4Reader> {
  const reader = new Ext4Reader(image);
  await reader.open();
  return reader;
}

function numbered(count: number, node: (i: number) => TreeNode, name = (i: number) => `entry number ${i}`) {
  return Array.from({ length: count }, (_, i) => [name(i), node(i)] as const);
}

describe.skipIf(need.missing)(need.title('sizes'), () => {
  test.each([0, 1, 10_000, 40_000, 100_000])('not a block to spare, with %i blocks of data', async (blocks) => {
    const tree = makeTree(directory([['a', file(blocks * BLOCK_SIZE)]]));
    const image = imageOf(tree, tight);
    await judge(image);
    expect(await compareDevice(image, expectTree(tree), { contentBytesMax: 5000 })).toEqual([]);
  });

  test('the end of the device anywhere around a backup', async () => {
    const tree = makeTree(directory([['a', file(5000)]]));
    for (const behind of [-1, 0, 1, 17, 18, 81, 82, 83, 500]) {
      await judge(imageOf(tree, { journalBlocks: 1024, sizeBytes: (3 * 32_768 + behind) * BLOCK_SIZE }));
    }
  });

  test('inode tables around the backups', async () => {
    const tree = makeTree(directory([['a', file(5000)]]));
    for (const spareInodes of [700_000, 1_300_000, 2_500_000]) {
      const image = imageOf(tree, { ...tight, spareInodes });
      expect(image.layout.geometry.gaps.length).toBeGreaterThan(0);
      await judge(image);
    }
  });

  test('a journal of many extents', async () => {
    const image = imageOf(makeTree(directory()), { ...tight, journalBlocks: 200_000 });
    expect(image.layout.geometry.journalTreeBlocks).toBe(1);
    await judge(image);
  });
});

describe.skipIf(need.missing)(need.title('extent trees'), () => {
  test('of more than 4, 340 and 1360 extents', async () => {
    const sizes = [1, 3 * GiB, 45 * GiB, 5, 180 * GiB];
    const tree = makeTree(directory(sizes.map((size, i) => [`file ${i}`, file(size)])));
    const image = imageOf(tree, tight);
    await judge(image);
    expect(await compareDevice(image, expectTree(tree), { contentBytesMax: 5000 })).toEqual([]);
    const counts = sizes.map(async (_, i) => (await (await readerOf(image)).inode(12 + i)).extents.length);
    expect((await Promise.all(counts)).map((count) => [4, 340, 1360].filter((limit) => count > limit).length)).toEqual([
      0, 1, 2, 0, 3,
    ]);
  });

  test('that only their own block makes unnecessary', async () => {
    const request = { ...tight, sizeBytes: 8 * GiB };
    const withFiller = (blocks: number) =>
      makeTree(
        directory([
          ['a', file(blocks * BLOCK_SIZE)],
          ['b', file(4 * 32_768 * BLOCK_SIZE)],
          ['c', file(1)],
        ]),
      );
    const { map, files } = planLayout(withFiller(1), request, identity).geometry;
    const behindBackup = map.toDense(25 * 32_768 + map.backupBlocks);
    // The filler is long enough to need a tree block itself.
    const tree = withFiller(behindBackup - 3 * 32_768 - 1 - files - 1);
    const image = imageOf(tree, request);
    await judge(image);
    expect((await (await readerOf(image)).inode(13)).extents).toHaveLength(6);
  });
});

describe.skipIf(need.missing)(need.title('directories'), () => {
  test('of 150,000 names, found by their hashes', async () => {
    const image = imageOf(makeTree(directory([['many', directory(numbered(150_000, () => file()))]])), tight);
    await judge(image, async (path) => {
      expect(await debugfs(path, 'stat "/many/entry number 12345"')).toMatch(/^Inode: \d+ {3}Type: regular/);
      expect(await debugfs(path, 'htree_dump /many')).toMatch(/Indirect levels: 1/);
    });
  });

  test('of every number of names around one block and the first leaves', async () => {
    const name = (i: number) => `${'n'.repeat(240)}${i}`;
    const root = numbered(60, (i) => directory(numbered(i, () => file(), name)));
    const tree = makeTree(directory(root));
    const image = imageOf(tree, tight);
    await judge(image);
    expect(await compareDevice(image, expectTree(tree))).toEqual([]);
  });

  test.each([5, 300])('whose names had to change, %i of them', async (count) => {
    const odd = ['', '.', '..', 'a/b', 'n'.repeat(300), 'lost+found', 'entry number 3', 'entry number 4'];
    const names = [...numbered(count, () => file()), ...odd.map((name) => [name, file()] as const)];
    const image = imageOf(makeTree(directory([...names, ['below', directory(names)]])), tight);
    await judge(image);
    const entries = await (await readerOf(image)).walk();
    // Twice all names, the directory between them, the root, and the added lost+found.
    expect(entries.size).toBe(2 * names.length + 3);
    expect(entries.get('below/lost+found')?.mode).toBe(0o100644);
  });

  test('with more sub-directories than can be counted', async () => {
    const linksOf = async (image: Ext4Image) => (await (await readerOf(image)).inode(12)).links;
    const parentOf = (count: number) => makeTree(directory([['many', directory(numbered(count, () => directory()))]]));
    expect(await linksOf(imageOf(parentOf(64_998), tight))).toBe(65_000);
    const image = imageOf(parentOf(64_999), tight);
    expect(await linksOf(image)).toBe(1);
    await judge(image);
  });
});

test.skipIf(need.missing)(need.title('more names of one file than an inode counts go on as another file'), async () => {
  const names = numbered(
    130_001,
    () => file(5000, { link: 'same' }),
    (i) => String(i).padStart(7, '0'),
  );
  const tree = makeTree(directory(names));
  const image = imageOf(tree, tight);
  expect(image.layout.warnings).toMatchObject([{ kind: 'hard-links-split', count: 2, example: '/0065000' }]);
  await judge(image);
  const reader = await readerOf(image);
  const groups = await Promise.all([12, 13, 14].map((inode) => reader.inode(inode)));
  expect(groups.map(({ links }) => links)).toEqual([65_000, 65_000, 1]);
  const contents = await Promise.all(groups.map(({ extents }) => reader.content(extents, 0, 5000)));
  expect(contents[1]).toEqual(contents[0]);
  expect(contents[2]).toEqual(contents[0]);
});

test.skipIf(need.missing)(need.title('paths longer than any call takes'), async () => {
  let node = file(5000);
  for (let level = 0; level < 100; level++) node = directory([[`${'d'.repeat(250)}${level}`, node]]);
  const tree = makeTree(directory([['deep', node]]));
  const image = imageOf(tree, tight);
  await judge(image);
  expect(await compareDevice(image, expectTree(tree))).toEqual([]);
});

test.skipIf(need.missing)(need.title('a tebibyte in 10,000 files'), async () => {
  const bytes = Math.floor(2 ** 40 / 10_000);
  await judge(imageOf(makeTree(directory(numbered(10_000, (i) => file(bytes - i)))), tight));
});

test('two runs give the same bytes', async () => {
  const digest = async () => {
    const tree = makeTree(
      directory([
        ['a', file(70_000)],
        ['d', directory(numbered(500, (i) => file(i)))],
      ]),
    );
    const image = imageOf(tree, { journalBlocks: 1024, free: { bytes: MiB } });
    const hash = createHash('sha256');
    const buffer = new Uint8Array(MiB);
    for (let at = 0; at < image.sizeBytes; at += MiB) {
      const piece = buffer.subarray(0, Math.min(MiB, image.sizeBytes - at));
      await image.read(at, piece);
      hash.update(piece);
    }
    return hash.digest('hex');
  };
  expect(await digest()).toBe(await digest());
});
