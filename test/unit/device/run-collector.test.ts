import { describe, expect, it } from 'vitest';
import { BlockMap, isZeroValue, ZERO_FLAG } from '../../../src/device/block-map.ts';
import { RunCollector } from '../../../src/device/run-collector.ts';
import { runSeed, seededRandom } from '../../support/overlay-random.ts';

const BLOCKS = 500;

/** The value of every block, undefined for clean ones. */
function valuesOf(map: BlockMap): (number | undefined)[] {
  const values: (number | undefined)[] = [];
  for (let at = 0; at < BLOCKS; ) {
    const { count, value } = map.runAt(at, BLOCKS);
    for (let i = 0; i < count; i++) values.push(value === undefined || isZeroValue(value) ? value : value + i);
    at += count;
  }
  return values;
}

describe('RunCollector', () => {
  it('leaves what putting the runs into a map one by one leaves', () => {
    for (let round = 0; round < 200; round++) {
      const seed = runSeed() * 1000 + round;
      const random = seededRandom(seed);
      const oneByOne = new BlockMap();
      const collector = new RunCollector();
      const runs = random.below(200);
      const longest = 1 + random.below(random.chance(0.3) ? 200 : 4);
      let place = 0;
      for (let run = 0; run < runs; run++) {
        const count = 1 + random.below(longest);
        const first = round % 5 === 0 ? Math.min(run * 2, BLOCKS - count) : random.below(BLOCKS - count + 1);
        const value = random.chance(0.2) ? ZERO_FLAG + random.below(2) : place;
        if (!isZeroValue(value)) place += count + random.below(2);
        oneByOne.set(first, count, value, () => {});
        collector.add(first, count, value);
      }
      const built = new BlockMap();
      collector.resolve((first, count, value) => built.append(first, count, value));
      expect(valuesOf(built), `seed ${seed}`).toEqual(valuesOf(oneByOne));
      expect(built.dataBlocks, `seed ${seed}`).toBe(oneByOne.dataBlocks);
      expect(built.zeroBlocks, `seed ${seed}`).toBe(oneByOne.zeroBlocks);
      // What was built is a map like any other.
      for (const map of [built, oneByOne]) map.set(7, 90, ZERO_FLAG, () => {});
      expect(valuesOf(built)).toEqual(valuesOf(oneByOne));
    }
  });

  it('sorts by all 32 bits of a block, and takes runs of 16 TiB', () => {
    const collector = new RunCollector();
    const firsts = [2 ** 32 - 1, 5, 2 ** 31, 2 ** 11, 2 ** 22 + 1, 2 ** 22];
    collector.add(0, 2 ** 31, ZERO_FLAG);
    collector.add(2 ** 31, 2 ** 31, ZERO_FLAG);
    for (const first of firsts) collector.add(first, 1, first % 1000);
    const seen: number[] = [];
    let blocks = 0;
    collector.resolve((first, count, value) => {
      expect(first).toBe(blocks);
      blocks += count;
      if (!isZeroValue(value)) seen.push(first);
    });
    expect(blocks).toBe(2 ** 32);
    expect(seen).toEqual([...firsts].sort((a, b) => a - b));
  });
});
