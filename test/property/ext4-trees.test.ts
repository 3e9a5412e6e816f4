/**
 * Seeded random trees, judged by an independent reader, by e2fsck, and by the kernel (ext4-mount.test.ts). A seed that
 * ever failed stays in the list.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import type { LayoutRequest } from '../../src/ext4/parameters.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { compareDevice, expectTree } from '../support/ext4-expect.ts';
import { fsckRemarks, withTemporaryDirectory, writeImage } from '../support/ext4-image-file.ts';
import { Random, randomRoot } from '../support/ext4-random.ts';
import { makeTree, PatternContent } from '../support/ext4-tree.ts';
import { requires } from '../support/requires.ts';

const identity = { snapshotId: '5a'.repeat(32), createdSeconds: 1_750_000_000 };
const trees = Number(process.env.EXT4_TREES ?? 40);
const firstSeed = Number(process.env.EXT4_SEED ?? 1);
const seeds = Array.from({ length: trees }, (_, i) => firstSeed + i);
const need = requires('e2fsck');

function randomRequest(random: Random): LayoutRequest {
  return {
    free: random.pick([undefined, { bytes: 0 }, { bytes: 5 * MiB }, { percent: 10 }]),
    journalBlocks: random.pick([1024, 1024, 1500, 16_384]),
    owner: random.chance(0.2) ? { uid: 26, gid: 70_000 } : undefined,
    modeMask: random.chance(0.2) ? 0o1777 : undefined,
    spareInodes: random.pick([undefined, 0, 1000]),
  };
}

describe.skipIf(need.missing)(need.title('random trees, content included'), () => {
  test.each(seeds)('seed %i', async (seed) => {
    const random = new Random(seed);
    const tree = makeTree(randomRoot(random));
    const request = randomRequest(random);
    const layout = planLayout(tree, request, identity);
    const image = new Ext4Image(layout, new PatternContent(tree));
    expect(await compareDevice(image, expectTree(tree, request))).toEqual([]);
    await withTemporaryDirectory(async (folder) => {
      const path = join(folder, 'image');
      await writeImage(image, path, { metadataOnly: true });
      expect(await fsckRemarks(path)).toEqual([]);
    });
  });
});

describe.skipIf(need.missing)(need.title('random trees with huge files'), () => {
  test.each(seeds)('seed %i', async (seed) => {
    const random = new Random(seed + 1_000_000);
    const tree = makeTree(randomRoot(random, { hugeFiles: true }));
    const request = randomRequest(random);
    const layout = planLayout(tree, request, identity);
    const image = new Ext4Image(layout, new PatternContent(tree));
    expect(await compareDevice(image, expectTree(tree, request), { contentBytesMax: 5000 })).toEqual([]);
    const again = planLayout(tree, request, identity);
    expect(again.parameters).toEqual(layout.parameters);
    expect(again.geometry).toEqual(layout.geometry);
    await withTemporaryDirectory(async (folder) => {
      const path = join(folder, 'image');
      await writeImage(image, path, { metadataOnly: true });
      expect(await fsckRemarks(path)).toEqual([]);
    });
  });
});
