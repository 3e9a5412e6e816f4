import { describe, expect, test } from 'vitest';
import { DenseMap } from '../../../src/ext4/dense-map.ts';
import { planExtents, treeBlocksAt, treeBlocksForExtents } from '../../../src/ext4/extents.ts';
import { Random } from '../../support/ext4-random.ts';

test('tree blocks outside the inode', () => {
  const cases = [
    [0, 0],
    [4, 0],
    [5, 1],
    [340, 1],
    [341, 2],
    [1360, 4],
    [1361, 6],
    [340 * 340, 341],
    [340 * 340 + 1, 343],
  ] as const;
  for (const [extents, blocks] of cases) expect(treeBlocksForExtents(extents)).toBe(blocks);
});

describe('a tree that its own blocks make unnecessary', () => {
  const map = new DenseMap(100, 33);
  /** Dense number behind the backup of group 25, which nothing follows for 65,000 blocks. */
  const behind25 = map.toDense(25 * 32_768 + 33);

  test('is kept, and needed: extents are cut shorter', () => {
    // Without a tree 3 * 32,768 + 1 blocks lie before the backup: 5 extents. One block further on they are 4.
    const start = behind25 - 3 * 32_768 - 1;
    expect(treeBlocksAt(map, start, 4 * 32_768)).toBe(1);
    const plan = planExtents(map, start, 1, 4 * 32_768);
    // Both pieces were whole multiples of 32,768, so cutting a block earlier adds an extent to each.
    expect(plan.count).toBe(6);
    expect(plan.extentBlocks).toBe(32_767);
  });

  test('any position and length has a tree that is exactly filled', () => {
    const random = new Random(7);
    for (let i = 0; i < 20_000; i++) {
      const near = random.pick([1, 5, 340, 1360]) * 32_768;
      const blocks = Math.max(1, near + random.integer(-3, 3));
      const start = behind25 - random.integer(0, 50) * 32_768 + random.integer(-3, 3);
      // planExtents asserts it.
      planExtents(map, start, treeBlocksAt(map, start, blocks), blocks);
    }
  });
});

test('a huge directory is cut into at least five extents, so that its one tree block is always needed', () => {
  const map = new DenseMap(100, 33);
  for (const blocks of [65_537, 100_000, 131_072, 200_000]) {
    expect(planExtents(map, 50, 1, blocks).count).toBeGreaterThan(4);
  }
});
