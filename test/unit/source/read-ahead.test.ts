/** Which reads are taken for those of a reader that goes on, and what is fetched ahead of it. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/core/units.ts';
import { AheadBench } from '../../support/ahead-files.ts';

const names = (entry: number, from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `${entry}:${from + i}`);

/** Numbers of chunks in `entry` that were fetched ahead. */
const chunksIn = (bench: AheadBench, entry: number) =>
  bench.fetched.filter((name) => name.startsWith(`${entry}:`)).map((name) => Number(name.split(':')[1]));

describe('a reader that goes on', () => {
  it.each([8 * KiB, 128 * KiB, 256 * KiB])(
    'in steps of %i bytes finds every chunk but the first fetched',
    async (step) => {
      const bench = new AheadBench([64 * MiB]);
      await bench.readOn(0, { step });
      expect(bench.fetched).toEqual(names(0, 1, 64));
      expect(bench.counters).toMatchObject({ aheadChunks: 63, aheadUsedChunks: 63, aheadDroppedChunks: 0 });
      await bench.close();
    },
  );

  it('is read ahead of by more and more, up to a bound', async () => {
    const bench = new AheadBench([200 * MiB]);
    const ahead: number[] = [];
    for (let mib = 0; mib < 100; mib++) {
      await bench.readOn(0, { from: mib * MiB, to: (mib + 1) * MiB, step: 128 * KiB });
      ahead.push(bench.fetched.length - mib);
    }
    expect(ahead[0]).toBe(1);
    expect(ahead[1]).toBeGreaterThan(1);
    expect(Math.max(...ahead)).toBeGreaterThan(24);
    expect(Math.max(...ahead)).toBeLessThanOrEqual(33);
    await bench.close();
  });

  it('may have many requests under way that come out of order', async () => {
    const bench = new AheadBench([64 * MiB]);
    for (let group = 0; group < 64; group++) {
      for (const place of [2, 0, 3, 1]) await bench.read(0, group * MiB + place * 256 * KiB, 256 * KiB);
    }
    expect(bench.fetched.length).toBeGreaterThan(58);
    expect(bench.counters.aheadDroppedChunks).toBe(0);
    await bench.close();
  });

  it('is one of several in one file, each with a window of its own', async () => {
    const bench = new AheadBench([256 * MiB]);
    const places = [0, 64, 128, 192];
    for (let step = 0; step < 40 * 8; step++) {
      for (const place of places) await bench.read(0, place * MiB + step * 128 * KiB, 128 * KiB);
    }
    const fetched = chunksIn(bench, 0);
    for (const place of places) {
      for (let chunk = place + 1; chunk < place + 40; chunk++) expect(fetched).toContain(chunk);
    }
    expect(bench.counters.aheadUsedChunks).toBe(4 * 39);
    await bench.close();
  });

  it('keeps its window while others read at random', async () => {
    const bench = new AheadBench([64 * MiB, 1024 * MiB]);
    for (let step = 0; step < 64 * 8; step++) {
      await bench.read(0, step * 128 * KiB, 128 * KiB);
      for (let i = 0; i < 40; i++) {
        await bench.read(1, ((step * 40 + i) * 7919 * 8 * KiB) % (1024 * MiB), 8 * KiB);
      }
    }
    expect(chunksIn(bench, 0)).toEqual(Array.from({ length: 63 }, (_, i) => i + 1));
    expect(chunksIn(bench, 1)).toEqual([]);
    await bench.close();
  });

  it('is not followed beyond the end of its file, unless it goes on in the next one', async () => {
    const sizes = Array.from({ length: 20 }, () => 4 * MiB);
    const table = new AheadBench(sizes);
    await table.readOn(0, { step: 128 * KiB });
    expect(table.fetched).toEqual(names(0, 1, 4));
    const disk = new AheadBench(sizes);
    for (let entry = 0; entry < 20; entry++) await disk.readOn(entry, { step: 256 * KiB });
    expect(disk.counters.aheadDroppedChunks).toBe(0);
    // All but the beginnings of the first file and of the second, with which it turned out to go on.
    expect(disk.fetched.length).toBe(20 * 4 - 2);
    await Promise.all([table.close(), disk.close()]);
  });

  it('is followed through small files', async () => {
    const bench = new AheadBench(Array.from({ length: 200 }, () => 16 * KiB));
    for (let entry = 0; entry < 200; entry++) await bench.read(entry, 0, 16 * KiB);
    expect(bench.fetched.length).toBeGreaterThan(150);
    expect(bench.counters.aheadUsedChunks).toBe(bench.fetched.length);
    await bench.close();
  });

  it('shares with others what may be fetched ahead', async () => {
    const bench = new AheadBench([512 * MiB], { bytesMax: 16 * MiB });
    let most = 0;
    for (let step = 0; step < 100 * 8; step++) {
      for (const place of [0, 128, 256, 384]) await bench.read(0, place * MiB + step * 128 * KiB, 128 * KiB);
      most = Math.max(most, bench.counters.aheadChunks - bench.counters.aheadUsedChunks);
    }
    expect(most).toBeLessThanOrEqual(16 + 4);
    expect(most).toBeGreaterThan(8);
    expect(bench.counters.aheadDroppedChunks).toBe(0);
    await bench.close();
  });
});

describe('reads that lead nowhere', () => {
  it('of pages side by side, again and again, fetch nothing', async () => {
    const bench = new AheadBench([64 * MiB]);
    for (let i = 0; i < 1000; i++) {
      await bench.read(0, 5 * MiB, 8 * KiB);
      await bench.read(0, 5 * MiB + 8 * KiB, 8 * KiB);
      await bench.read(0, 5 * MiB + 64 * KiB, 8 * KiB);
    }
    expect(bench.fetched).toEqual([]);
    await bench.close();
  });

  it('after a while cost less: what was fetched for nothing makes it harder to be taken for going on', async () => {
    const bench = new AheadBench([4096 * MiB]);
    const runs = 200;
    for (let run = 0; run < runs; run++) {
      const from = ((run * 1_103_515_245 + 12_345) % 1021) * 4 * MiB;
      await bench.readOn(0, { from, to: from + 512 * KiB, step: 128 * KiB });
    }
    expect(bench.fetched.length).toBeLessThan(runs / 4);
    await bench.close();
    const { aheadChunks, aheadUsedChunks, aheadDroppedChunks } = bench.counters;
    expect(aheadDroppedChunks).toBe(aheadChunks - aheadUsedChunks);
  });
});
