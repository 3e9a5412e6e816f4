/** Mixes of readers at random: those that jump cost nothing, those that go on little more than what they read. */
import { describe, expect, test } from 'vitest';
import { KiB, MiB } from '../../src/core/units.ts';
import { AheadBench } from '../support/ahead-files.ts';
import { Random } from '../support/ext4-random.ts';

const FILE_BYTES = 1024 * MiB;
const seeds = Array.from({ length: 12 }, (_, i) => i + 1);
const BYTES_MAX = 64 * MiB;

describe('readers at random', () => {
  test.each(seeds)('of small requests never have anything fetched, seed %i', async (seed) => {
    const random = new Random(seed);
    const bench = new AheadBench([FILE_BYTES, FILE_BYTES]);
    for (let i = 0; i < 3000; i++) {
      const bytes = random.pick([4 * KiB, 8 * KiB, 16 * KiB, 32 * KiB]);
      const hot = random.pick([FILE_BYTES, FILE_BYTES, 16 * MiB]);
      await bench.read(random.integer(0, 2 - 1), random.integer(0, (hot - bytes) / (4 * KiB) - 1) * 4 * KiB, bytes);
    }
    expect(bench.fetched).toEqual([]);
    await bench.close();
  });

  test.each(seeds)('mixed with others have no more fetched than a window for each, seed %i', async (seed) => {
    const random = new Random(seed);
    const bench = new AheadBench([FILE_BYTES, FILE_BYTES], { bytesMax: BYTES_MAX });
    const readers = Array.from({ length: 1 + random.integer(0, 6 - 1) }, () => ({
      entry: random.integer(0, 2 - 1),
      at: random.integer(0, 500 - 1) * MiB,
    }));
    for (let i = 0; i < 2000; i++) {
      if (random.integer(0, 3 - 1) === 0)
        await bench.read(random.integer(0, 2 - 1), random.integer(0, FILE_BYTES / KiB - 8 - 1) * KiB, 8 * KiB);
      const reader = random.pick(readers);
      await bench.read(reader.entry, reader.at, 128 * KiB);
      reader.at += 128 * KiB;
      if (random.integer(0, 300 - 1) === 0) reader.at = random.integer(0, 500 - 1) * MiB;
      const { aheadBytes, aheadUsedBytes, aheadDroppedBytes } = bench.counters;
      // The last chunk of each reader's window may reach beyond its share.
      expect(aheadBytes - aheadUsedBytes - aheadDroppedBytes).toBeLessThanOrEqual(2 * BYTES_MAX);
    }
    await bench.close();
    const { aheadBytes, aheadUsedBytes } = bench.counters;
    expect(aheadUsedBytes).toBeGreaterThan(aheadBytes / 4);
  });
});
