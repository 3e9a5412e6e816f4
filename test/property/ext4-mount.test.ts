/** Random trees mounted by a kernel: every entry compared, then a random write load, then e2fsck and the compare again. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { expectTree } from '../support/ext4-expect.ts';
import { fsckRemarks, withTemporaryDirectory, writeImage } from '../support/ext4-image-file.ts';
import { compareMounted, withMount } from '../support/ext4-mounted.ts';
import { Random, randomRoot } from '../support/ext4-random.ts';
import { makeTree, PatternContent } from '../support/ext4-tree.ts';
import { writeLoad } from '../support/ext4-write-load.ts';
import { requires } from '../support/requires.ts';

const identity = { snapshotId: 'c3'.repeat(32), createdSeconds: 1_750_000_000 };
const trees = Number(process.env.EXT4_TREES ?? 6);
const firstSeed = Number(process.env.EXT4_SEED ?? 1);
const need = requires('root', 'mount', 'loop', 'e2fsck', 'getfattr');

describe.skipIf(need.missing)(need.title('random trees in the kernel'), () => {
  test.each(Array.from({ length: trees }, (_, i) => firstSeed + i))('seed %i', async (seed) => {
    const random = new Random(seed + 2_000_000);
    const tree = makeTree(randomRoot(random));
    const layout = planLayout(tree, { free: { bytes: 200 * MiB }, journalBlocks: 1024 }, identity);
    const image = new Ext4Image(layout, new PatternContent(tree));
    const expected = expectTree(tree);
    await withTemporaryDirectory(async (parent) => {
      const path = join(parent, 'image');
      const folder = join(parent, 'mnt');
      await mkdir(folder);
      await writeImage(image, path);
      const readOnly = { image: path, folder, options: 'ro' };
      expect(await withMount(readOnly, () => compareMounted(folder, expected))).toEqual([]);
      const touched = await withMount({ ...readOnly, options: 'rw' }, () => writeLoad(folder, expected, random));
      expect(await fsckRemarks(path)).toEqual([]);
      expect(await withMount(readOnly, () => compareMounted(folder, expected, touched))).toEqual([]);
    });
  });
});
