import { describe, expect, it } from 'vitest';
import { BlockMap, DEVICE_BLOCKS_MAX, isZeroValue, ZERO_FLAG } from '../../../src/device/block-map.ts';
import { runSeed, seededRandom } from '../../support/overlay-random.ts';

const ignore = () => {};

describe('BlockMap', () => {
  it('says the same as an array of blocks', () => {
    for (let round = 0; round < 30; round++) {
      const seed = runSeed() * 100 + round;
      const random = seededRandom(seed);
      const blocks = 3000;
      const model: (number | undefined)[] = new Array(blocks).fill(undefined);
      const map = new BlockMap();
      let place = 0;
      for (let step = 0; step < 1500; step++) {
        const long = random.chance(0.02);
        const count = 1 + random.below(long ? 1500 : 4);
        const first = random.chance(0.3) ? step % (blocks - count) : random.below(blocks - count + 1);
        const zero = random.chance(0.2);
        const value = zero ? ZERO_FLAG + random.below(2) : place;
        if (!zero) place += count + random.below(2);
        const replaced: (number | undefined)[] = [];
        map.set(first, count, value, (from, parts) => {
          for (let at = 0; at < parts; at++) replaced.push(isZeroValue(from) ? from : from + at);
        });
        const wanted = model.slice(first, first + count).filter((one) => one !== undefined);
        expect(replaced, `seed ${seed} step ${step}`).toEqual(wanted);
        for (let at = 0; at < count; at++) model[first + at] = zero ? value : value + at;
      }
      const got: (number | undefined)[] = [];
      for (let at = 0; at < blocks; ) {
        const run = map.runAt(at, blocks);
        expect(run.first).toBe(at);
        for (let i = 0; i < run.count; i++) {
          got.push(run.value === undefined || isZeroValue(run.value) ? run.value : run.value + i);
        }
        at += run.count;
      }
      expect(got, `seed ${seed}`).toEqual(model);
      const zeroes = model.filter((value) => value !== undefined && isZeroValue(value)).length;
      expect(map.zeroBlocks).toBe(zeroes);
      expect(map.dataBlocks).toBe(model.filter((value) => value !== undefined).length - zeroes);
    }
  });

  it('takes ranges of 16 TiB as a run or two', () => {
    const map = new BlockMap();
    map.set(0, DEVICE_BLOCKS_MAX, ZERO_FLAG, ignore);
    expect(map.runCount).toBe(2);
    expect(map.zeroBlocks).toBe(DEVICE_BLOCKS_MAX);
    map.set(DEVICE_BLOCKS_MAX - 1, 1, 7, ignore);
    expect(map.runAt(DEVICE_BLOCKS_MAX - 1, DEVICE_BLOCKS_MAX)).toEqual({
      first: DEVICE_BLOCKS_MAX - 1,
      count: 1,
      value: 7,
    });
    map.set(2 ** 31 - 5, 10, 100, ignore);
    expect(map.runAt(2 ** 31, DEVICE_BLOCKS_MAX)).toEqual({ first: 2 ** 31, count: 5, value: 105 });
    map.set(0, DEVICE_BLOCKS_MAX, ZERO_FLAG, ignore);
    expect(map.runCount).toBe(2);
    expect(map.dataBlocks).toBe(0);
  });

  it('joins what continues: a sequential write is one run', () => {
    const map = new BlockMap();
    for (let block = 0; block < 10_000; block++) map.set(block + 5, 1, block, ignore);
    expect(map.runCount).toBe(1);
    for (let block = 0; block < 10_000; block += 2) map.set(block + 5, 1, ZERO_FLAG, ignore);
    expect(map.runCount).toBe(10_000);
    map.set(0, 20_000, ZERO_FLAG, ignore);
    expect(map.runCount).toBe(1);
  });
});
