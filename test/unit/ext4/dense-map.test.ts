import { describe, expect, test } from 'vitest';
import { backupGroups, DenseMap } from '../../../src/ext4/dense-map.ts';

test('backups lie in group 1 and the powers of 3, 5 and 7', () => {
  expect(backupGroups(1)).toEqual([]);
  expect(backupGroups(3)).toEqual([1]);
  expect(backupGroups(130)).toEqual([1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
});

describe('dense and physical numbers', () => {
  const map = new DenseMap(10, 17);

  test('are inverse, and what is in a backup has no dense number', () => {
    let dense = 0;
    for (let physical = 0; physical < 10 * 32_768; physical++) {
      const inBackup = map.backups.some((group) => physical >= group * 32_768 && physical < group * 32_768 + 17);
      if (map.toDense(physical) !== (inBackup ? -1 : dense)) expect.fail(`block ${physical}`);
      if ((map.backupAt(physical) !== undefined) !== inBackup) expect.fail(`backup at ${physical}`);
      if (!inBackup && map.toPhysical(dense) !== physical) expect.fail(`dense ${dense}`);
      if (!inBackup) dense++;
    }
  });

  test('a range is cut at each backup it crosses, and nowhere else', () => {
    expect(map.pieces(32_760, 8)).toEqual([{ logical: 0, physical: 32_760, length: 8 }]);
    expect(map.pieces(32_760, 9)).toEqual([
      { logical: 0, physical: 32_760, length: 8 },
      { logical: 8, physical: 32_785, length: 1 },
    ]);
    expect(map.pieces(0, 4 * 32_768).map(({ length }) => length)).toEqual([32_768, 65_519, 32_785]);
    expect(map.pieces(5, 0)).toEqual([]);
  });

  test('the next interruption is behind the block even where a backup just ended', () => {
    expect(map.nextInterruption(32_767)).toBe(32_768);
    expect(map.nextInterruption(32_768)).toBe(32_768 + 65_519);
    expect(map.nextBackup(32_785)).toBe(3 * 32_768);
    expect(map.nextBackup(9 * 32_768 + 17)).toBe(Number.POSITIVE_INFINITY);
  });

  test('counts the backups from a block on', () => {
    expect(map.backupBlocksFrom(0)).toBe(5 * 17);
    expect(map.backupBlocksFrom(3 * 32_768)).toBe(4 * 17);
    expect(map.backupBlocksFrom(3 * 32_768 + 17)).toBe(3 * 17);
  });
});
