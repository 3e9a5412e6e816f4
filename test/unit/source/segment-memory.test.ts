/** The memory tier: what is read again stays, whatever is read once meanwhile, and all of it stays below its bound. */
import { describe, expect, it } from 'vitest';
import { newCacheCounters } from '../../../src/core/counters.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { SEGMENT_BYTES } from '../../../src/source/limits.ts';
import { SegmentMemory } from '../../../src/source/segment-memory.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const CHUNK = 4 * SEGMENT_BYTES;
const chunkOf = (seed: number, length = CHUNK) => new Uint8Array(length).fill(seed % 251);

/** Reads a block as a cache does: from memory, or after a fetch of its chunk; true if it was in memory. */
function read(memory: SegmentMemory, seed: number, offset: number, length: number): boolean {
  const target = new Uint8Array(length);
  if (memory.read(`${seed}`, offset, target)) {
    expect(target.every((byte) => byte === seed % 251)).toBe(true);
    return true;
  }
  memory.insertChunk(`${seed}`, chunkOf(seed));
  memory.countRead(`${seed}`, offset, length);
  return false;
}

describe('the memory of segments', () => {
  it('keeps what is read twice through a scan of many times its size', () => {
    const memory = new SegmentMemory(4 * MiB, newCacheCounters());
    const hot = [1, 2, 3, 4, 5];
    for (let round = 0; round < 2; round++) for (const seed of hot) read(memory, seed, 0, CHUNK);
    for (let seed = 1000; seed < 1200; seed++) {
      for (let at = 0; at < CHUNK; at += 32 * KiB) read(memory, seed, at, 32 * KiB);
    }
    expect(hot.map((seed) => read(memory, seed, 0, CHUNK))).toEqual(hot.map(() => true));
  });

  it('takes the requests of a scan for one use: a second scan finds nothing that pushed others out', () => {
    const memory = new SegmentMemory(4 * MiB, newCacheCounters());
    for (const seed of [1, 1]) read(memory, seed, 0, CHUNK);
    for (let round = 0; round < 3; round++) {
      for (let seed = 1000; seed < 1100; seed++)
        for (let at = 0; at < CHUNK; at += 8 * KiB) read(memory, seed, at, 8 * KiB);
    }
    expect(read(memory, 1, 0, CHUNK)).toBe(true);
  });

  it('gives right bytes and stays below its bound, whatever comes', () => {
    const random = seededRandom(7);
    const bytesMax = 2 * MiB;
    const memory = new SegmentMemory(bytesMax, newCacheCounters());
    for (let i = 0; i < 5000; i++) {
      const offset = random.below(CHUNK - 1);
      read(memory, random.below(40), offset, 1 + random.below(Math.min(CHUNK - offset, 100 * KiB)));
      expect(memory.bytes).toBeLessThanOrEqual(bytesMax);
    }
  });

  it('keeps of a chunk the segments that are read again', () => {
    const memory = new SegmentMemory(2 * MiB, newCacheCounters());
    for (let i = 0; i < 9; i++) read(memory, 1, 0, 8 * KiB);
    for (let seed = 1000; seed < 1050; seed++) read(memory, seed, 0, CHUNK);
    expect(memory.read('1', 8 * KiB, new Uint8Array(8 * KiB))).toBe(true);
    expect(memory.read('1', SEGMENT_BYTES, new Uint8Array(1))).toBe(false);
  });
});
