/**
 * Seeded random trees, judged by an independent reader, by e2fsck, and by the kernel. ext4-trees.slow.test.ts has more of
 * them; KLOSET_NBD_SEED=n begins with another seed.
 */
import { describe, expect, test } from 'vitest';
import { judgeMountedTree, judgeTree } from '../support/ext4-judges.ts';
import { requires } from '../support/requires.ts';

const firstSeed = Number(process.env.KLOSET_NBD_SEED ?? 1);
const seeds = (count: number) => Array.from({ length: count }, (_, i) => firstSeed + i);

const need = requires('e2fsck');
describe.skipIf(need.missing)(need.title('random trees'), () => {
  test.each(seeds(120))('content included: seed %i', async (seed) => {
    expect(await judgeTree(seed, { hugeFiles: false })).toEqual([]);
  });

  test.each(seeds(120))('with huge files: seed %i', async (seed) => {
    expect(await judgeTree(seed, { hugeFiles: true })).toEqual([]);
  });
});

const needMount = requires('root', 'mount', 'loop', 'e2fsck', 'getfattr');
describe.skipIf(needMount.missing)(needMount.title('random trees in the kernel'), () => {
  test.each(seeds(6))('seed %i', async (seed) => {
    expect(await judgeMountedTree(seed)).toEqual([]);
  });
});
