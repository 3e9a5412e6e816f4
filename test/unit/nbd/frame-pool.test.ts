import { describe, expect, test } from 'vitest';
import { isAligned } from '../../../src/core/aligned-buffer.ts';
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

  test('large data is aligned as long as there is room for it, and frames without are as good', () => {
    const pool = new FramePool(3 * MiB);
    const frames = Array.from({ length: 4 }, () => pool.take(MiB));
    expect(frames.map((frame) => isAligned(frame.data(MiB)))).toEqual([true, true, false, false]);
    for (const frame of frames) {
      frame.data(MiB).fill(frames.indexOf(frame) + 1);
      frame.bytes.fill(0xee, 0, HEADROOM_BYTES);
    }
    const own = frames.map((frame, i) => frame.data(MiB).every((byte) => byte === i + 1));
    expect(own).toEqual([true, true, true, true]);
    for (const frame of frames) pool.give(frame);
    // What is aligned always comes back: its memory is the pool's for good.
    const again = Array.from({ length: 4 }, () => pool.take(MiB));
    expect(again.filter((frame) => frame.isAligned)).toHaveLength(2);
    expect(isAligned(pool.take(4 * KiB).data(4 * KiB))).toBe(false);
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
