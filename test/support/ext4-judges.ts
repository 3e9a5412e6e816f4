/** Random trees of a seed, put before judges: an independent reader, e2fsck, the kernel. Each returns what is wrong. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../src/core/units.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import type { LayoutRequest } from '../../src/ext4/parameters.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { compareDevice, expectTree } from './ext4-expect.ts';
import { fsckRemarks, withTemporaryDirectory, writeImage } from './ext4-image-file.ts';
import { compareMounted, withMount } from './ext4-mounted.ts';
import { Random, randomRoot } from './ext4-random.ts';
import { makeTree, PatternContent } from './ext4-tree.ts';
import { writeLoad } from './ext4-write-load.ts';

const identity = { snapshotId: '5a'.repeat(32), createdSeconds: 1_750_000_000 };

function randomRequest(random: Random): LayoutRequest {
  return {
    free: random.pick([undefined, { bytes: 0 }, { bytes: 5 * MiB }, { percent: 10 }]),
    journalBlocks: random.pick([1024, 1024, 1500, 16_384]),
    owner: random.chance(0.2) ? { uid: 26, gid: 70_000 } : undefined,
    modeMask: random.chance(0.2) ? 0o1777 : undefined,
    spareInodes: random.pick([undefined, 0, 1000]),
  };
}

/** A tree, content included or, with files of up to a terabyte, their beginnings, ends and extents' starts. */
export async function judgeTree(seed: number, { hugeFiles }: { hugeFiles: boolean }): Promise<string[]> {
  const random = new Random(hugeFiles ? seed + 1_000_000 : seed);
  const tree = makeTree(randomRoot(random, { hugeFiles }));
  const request = randomRequest(random);
  const image = new Ext4Image(planLayout(tree, request, identity), new PatternContent(tree));
  const limit = hugeFiles ? { contentBytesMax: 5000 } : {};
  const wrong = await compareDevice(image, expectTree(tree, request), limit);
  return [...wrong, ...(await remarksOn(image))].map((line) => `seed ${seed}: ${line}`);
}

/** What e2fsck remarks on an image; `look` may look at the file, too, before it is gone. Files' content is left out. */
export function remarksOn(
  image: Ext4Image,
  look: (path: string) => Promise<void> = async () => {},
  timeoutMs = 120_000,
): Promise<string[]> {
  return withTemporaryDirectory(async (folder) => {
    const path = join(folder, 'image');
    await writeImage(image, path, { metadataOnly: true });
    const remarks = await fsckRemarks(path, { timeoutMs });
    await look(path);
    return remarks;
  });
}

/** A tree mounted: every entry compared, then a random write load, e2fsck, and what it left alone compared again. */
export async function judgeMountedTree(seed: number): Promise<string[]> {
  const random = new Random(seed + 2_000_000);
  const tree = makeTree(randomRoot(random));
  const layout = planLayout(tree, { free: { bytes: 200 * MiB }, journalBlocks: 1024 }, identity);
  const image = new Ext4Image(layout, new PatternContent(tree));
  const expected = expectTree(tree);
  return withTemporaryDirectory(async (parent) => {
    const path = join(parent, 'image');
    const folder = join(parent, 'mnt');
    await mkdir(folder);
    await writeImage(image, path);
    const readOnly = { image: path, folder, options: 'ro' };
    const fresh = await withMount(readOnly, () => compareMounted(folder, expected));
    const touched = await withMount({ ...readOnly, options: 'rw' }, () => writeLoad(folder, expected, random));
    const remarks = await fsckRemarks(path);
    const left = await withMount(readOnly, () => compareMounted(folder, expected, touched));
    return [...fresh, ...remarks, ...left].map((line) => `seed ${seed}: ${line}`);
  });
}
