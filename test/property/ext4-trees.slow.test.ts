/** Ten thousand random trees before the judges of ext4-trees.test.ts; KLOSET_NBD_SEED=n begins with another seed. */
import { describe, expect, test } from 'vitest';
import { judgeMountedTree, judgeTree } from '../support/ext4-judges.ts';
import { requires } from '../support/requires.ts';

const TREES_PER_TEST = 100;
const firstSeed = Number(process.env.KLOSET_NBD_SEED ?? 100_000);
const starts = (trees: number) =>
  Array.from({ length: trees / TREES_PER_TEST }, (_, i) => firstSeed + i * TREES_PER_TEST);

/** What is wrong with any of a hundred trees. */
async function judgeSome(first: number, judge: (seed: number) => Promise<string[]>): Promise<string[]> {
  const wrong: string[] = [];
  for (let seed = first; seed < first + TREES_PER_TEST; seed++) wrong.push(...(await judge(seed)));
  return wrong;
}

const need = requires('e2fsck');
describe.skipIf(need.missing)(need.title('ten thousand random trees'), () => {
  test.each(starts(5000))('content included: a hundred from seed %i', async (first) => {
    expect(await judgeSome(first, (seed) => judgeTree(seed, { hugeFiles: false }))).toEqual([]);
  });

  test.each(starts(5000))('with huge files: a hundred from seed %i', async (first) => {
    expect(await judgeSome(first, (seed) => judgeTree(seed, { hugeFiles: true }))).toEqual([]);
  });
});

const needMount = requires('root', 'mount', 'loop', 'e2fsck', 'getfattr');
describe.skipIf(needMount.missing)(needMount.title('random trees in the kernel'), () => {
  test.each(starts(300))('a hundred from seed %i', async (first) => {
    expect(await judgeSome(first, judgeMountedTree)).toEqual([]);
  });
});
