import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DistinctBlocks } from '../../../src/core/distinct-blocks.ts';
import { FileCosts } from '../../../src/core/file-costs.ts';
import { LatencyHistogram } from '../../../src/core/histogram.ts';
import { estimateRestore } from '../../../src/core/restore-estimate.ts';

const BLOCK = 4096;
const PAGE_BYTES = 128 * 1024 * 1024;

describe('blocks asked for', () => {
  test('are counted once each, whatever ranges ask for them', () => {
    const range = fc.record({
      // Around the border of two pages of bits, too.
      offset: fc.integer({ min: PAGE_BYTES - 80 * BLOCK, max: PAGE_BYTES + 80 * BLOCK }),
      length: fc.integer({ min: 1, max: 70 * BLOCK }),
    });
    fc.assert(
      fc.property(fc.array(range, { maxLength: 30 }), (ranges) => {
        const total = { distinctBytesAsked: 0 };
        const blocks = new DistinctBlocks(total);
        const expected = new Set<number>();
        for (const { offset, length } of ranges) {
          blocks.add(offset, length);
          for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + length; block++) expected.add(block);
        }
        expect([blocks.bytes, total.distinctBytesAsked]).toEqual([expected.size * BLOCK, expected.size * BLOCK]);
      }),
    );
  });

  test('beyond a terabyte told apart count as asked before', () => {
    const blocks = new DistinctBlocks({ distinctBytesAsked: 0 });
    for (let page = 0; page < 8192 + 10; page++) blocks.add(page * PAGE_BYTES, BLOCK);
    expect(blocks.bytes).toBe(8192 * BLOCK);
  });
});

test('a histogram has each observation in the first bucket that holds it', () => {
  const histogram = new LatencyHistogram();
  for (const ms of [0, 0.025, 0.026, 1, 60_000, 60_001]) histogram.observeMs(ms);
  const filled = Array.from(histogram.counts, (count, bucket) => [histogram.bounds[bucket] ?? 'more', count]);
  expect(filled.filter(([, count]) => count !== 0)).toEqual([
    [0.000025, 2],
    [0.00005, 1],
    [0.001, 1],
    [60, 1],
    ['more', 1],
  ]);
  expect(histogram.count).toBe(6);
  expect(histogram.sumSeconds).toBeCloseTo(120.002051);
});

test('files beyond those that are told apart are counted together', () => {
  const costs = new FileCosts();
  for (let entry = 0; entry < 50_010; entry++) costs.of(entry).requests++;
  expect([...costs.entries()].length).toBe(50_000);
  expect([costs.others.requests, costs.total().requests]).toEqual([10, 50_010]);
});

describe('the estimate of a restore', () => {
  const third = { contentBytes: 300, distinctFetchedBytes: 90 };

  test('calls it faster past a third of the data, what was fetched twice included', () => {
    const at = (fetchedBytes: number) => estimateRestore({ ...third, fetchedBytes, bytesPerSecond: 10 });
    expect(at(100)).toMatchObject({ restoreIsFaster: false, fetchSeconds: 10, restoreSeconds: 10, share: 0.3 });
    expect(at(101).restoreIsFaster).toBe(true);
  });

  test('knows no times before anything was fetched', () => {
    const none = { contentBytes: 0, fetchedBytes: 0, distinctFetchedBytes: 0, bytesPerSecond: 0 };
    expect(estimateRestore(none)).toMatchObject({
      share: 0,
      fetchSeconds: null,
      restoreSeconds: null,
      restoreIsFaster: false,
    });
  });
});
