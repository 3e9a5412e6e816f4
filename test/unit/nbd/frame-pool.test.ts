import { describe, expect, test } from 'vitest';
import { KiB, MiB } from '../../../src/core/units.ts';
import { FramePool, HEADROOM_BYTES } from '../../../src/nbd/frame-pool.ts';

describe('FramePool', () => {
  test.each([
    [0, 0],
    [1, 4 * KiB],
    [4 * KiB, 4 * KiB],
    [4 * KiB + 1, 8 * KiB],
    [64 * KiB, 64 * KiB],
    [1 * MiB, 1 * MiB],
    [1 * MiB + 1, 1 * MiB + 1],
  ])('a frame for %d bytes holds %d', (length, capacity) => {
    expect(new FramePool(MiB).take(length).capacity).toBe(capacity);
  });

  test('gives out again what came back, for any length of its class', () => {
    const pool = new FramePool(MiB);
    const frame = pool.take(5000);
    pool.give(frame);
    expect(pool.take(8192)).toBe(frame);
    expect(pool.take(8192)).not.toBe(frame);
  });

  test('keeps so many bytes and no more, and nothing above the largest class', () => {
    const frameBytes = 4 * KiB + HEADROOM_BYTES;
    const pool = new FramePool(2 * frameBytes);
    const frames = [pool.take(1), pool.take(1), pool.take(1)];
    for (const frame of frames) pool.give(frame);
    expect(pool.keptBytes).toBe(2 * frameBytes);
    const roomy = new FramePool(64 * MiB);
    roomy.give(roomy.take(2 * MiB));
    expect(roomy.keptBytes).toBe(0);
  });

  test('header and data leave as one slice', () => {
    const frame = new FramePool(0).take(3);
    frame.data(3).set([1, 2, 3]);
    frame.bytes.set([7, 7], HEADROOM_BYTES - 2);
    expect([...frame.slice(2, 3)]).toEqual([7, 7, 1, 2, 3]);
    expect([...frame.slice(2, 2)]).toEqual([7, 7, 1, 2]);
    expect([...frame.slice(1, 3)]).toEqual([7, 1, 2, 3]);
    expect(frame.data(2).length).toBe(2);
  });
});
