/** The memory tier: what is read again stays, whatever is read once meanwhile, and all of it stays below its bound. */
import { describe, expect, it } from 'vitest';
import { newCacheCounters } from '../../../src/core/counters.ts';
import { SharedArena } from '../../../src/core/shared-arena.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { HeldChunk } from '../../../src/source/held-chunk.ts';
import { SEGMENT_BYTES } from '../../../src/source/limits.ts';
import { SegmentMemory } from '../../../src/source/segment-memory.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const CHUNK = 4 * SEGMENT_BYTES;
const chunkOf = (seed: number, length = CHUNK) =>
  new HeldChunk(new Uint8Array(length).fill(seed % 251), () => undefined);

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
    const memory = new SegmentMemory(4 * MiB, newCacheCounters(), new SharedArena(MiB));
    const hot = [1, 2, 3, 4, 5];
    for (let round = 0; round < 2; round++) for (const seed of hot) read(memory, seed, 0, CHUNK);
    for (let seed = 1000; seed < 1200; seed++) {
      for (let at = 0; at < CHUNK; at += 32 * KiB) read(memory, seed, at, 32 * KiB);
    }
    expect(hot.map((seed) => read(memory, seed, 0, CHUNK))).toEqual(hot.map(() => true));
  });

  it('takes the requests of a scan for one use: a second scan finds nothing that pushed others out', () => {
    const memory = new SegmentMemory(4 * MiB, newCacheCounters(), new SharedArena(MiB));
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
    const memory = new SegmentMemory(bytesMax, newCacheCounters(), new SharedArena(MiB));
    for (let i = 0; i < 5000; i++) {
      const offset = random.below(CHUNK - 1);
      read(memory, random.below(40), offset, 1 + random.below(Math.min(CHUNK - offset, 100 * KiB)));
      expect(memory.bytes).toBeLessThanOrEqual(bytesMax);
    }
  });

  it('keeps of a chunk the segments that are read again', () => {
    const memory = new SegmentMemory(2 * MiB, newCacheCounters(), new SharedArena(MiB));
    for (let i = 0; i < 9; i++) read(memory, 1, 0, 8 * KiB);
    for (let seed = 1000; seed < 1050; seed++) read(memory, seed, 0, CHUNK);
    expect(memory.read('1', 8 * KiB, new Uint8Array(8 * KiB))).toBe(true);
    expect(memory.read('1', SEGMENT_BYTES, new Uint8Array(1))).toBe(false);
  });

  it('keeps a chunk as it came, without a copy, and gives it back when its last segment has left it', () => {
    const memory = new SegmentMemory(4 * MiB, newCacheCounters(), new SharedArena(4 * MiB));
    let givenBack = 0;
    const held = new HeldChunk(new Uint8Array(CHUNK).fill(1), () => givenBack++);
    memory.insertChunk('1', held);
    held.release();
    expect(memory.whole('1')).toBe(held);
    // Used again: it has a copy of its own now, and the chunk holds its place until the others go, too.
    for (let i = 0; i < 2; i++) memory.read('1', 0, new Uint8Array(SEGMENT_BYTES));
    expect(memory.bytes).toBeGreaterThan(CHUNK + SEGMENT_BYTES);
    expect(givenBack).toBe(0);
    for (let seed = 1000; seed < 1050; seed++) read(memory, seed, 0, CHUNK);
    expect(givenBack).toBe(1);
    held.plain.fill(2); // As its next user may.
    const target = new Uint8Array(SEGMENT_BYTES);
    expect(memory.read('1', 0, target)).toBe(true);
    expect(target.every((byte) => byte === 1)).toBe(true);
    expect(memory.whole('1')).toBeUndefined();
    memory.clear();
    expect(memory.bytes).toBe(0);
  });

  it('takes the segments that are missing from a chunk that comes again', () => {
    const memory = new SegmentMemory(4 * MiB, newCacheCounters(), new SharedArena(4 * MiB));
    memory.insert('1', 1, memory.take(SEGMENT_BYTES).fill(1));
    memory.insertChunk('1', chunkOf(1));
    memory.insertChunk('1', chunkOf(1));
    expect(memory.hasAll('1', CHUNK)).toBe(true);
    expect(read(memory, 1, 0, CHUNK)).toBe(true);
    expect(memory.bytes).toBeLessThan(CHUNK + 2 * SEGMENT_BYTES);
  });

  it('copies a chunk that is large beside all memory', () => {
    const memory = new SegmentMemory(CHUNK + SEGMENT_BYTES, newCacheCounters(), new SharedArena(CHUNK));
    memory.insertChunk('1', chunkOf(1));
    expect(memory.whole('1')).toBeUndefined();
    expect(read(memory, 1, 0, CHUNK)).toBe(true);
  });

  it('has as its working set what was used again and single pages, the last used last, and no scan', () => {
    const memory = new SegmentMemory(2 * MiB, newCacheCounters(), new SharedArena(MiB));
    const set = () => memory.workingSet().map(({ chunk, index }) => `${chunk.key}/${index}`);
    for (let i = 0; i < 9; i++) read(memory, 1, 0, 8 * KiB); // Used again.
    read(memory, 2, SEGMENT_BYTES, 8 * KiB);
    read(memory, 3, 0, CHUNK);
    expect(set()).toEqual(['2/1', '1/0']);
    // Long gone from memory, and remembered.
    for (let seed = 1000; seed < 1010; seed++) read(memory, seed, 0, CHUNK);
    expect(memory.has('2', 1)).toBe(false);
    expect(set()).toEqual(['2/1', '1/0']);
    for (let seed = 2000; seed < 2100; seed++) read(memory, seed, 0, 1);
    expect(set().length).toBeLessThan((0.75 * 2 * MiB) / SEGMENT_BYTES);
    expect(set().at(-1)).toBe('1/0');
  });

  it('takes the first read of what was used before for another use', () => {
    const memory = new SegmentMemory(2 * MiB, newCacheCounters(), new SharedArena(MiB));
    for (const [seed, cameBack] of [
      [1, true],
      [2, false],
    ] as const) {
      memory.insert(`${seed}`, 0, memory.take(SEGMENT_BYTES).fill(seed), { cameBack });
      memory.read(`${seed}`, 0, new Uint8Array(8 * KiB));
    }
    for (let seed = 1000; seed < 1050; seed++) read(memory, seed, 0, CHUNK);
    expect([memory.has('1', 0), memory.has('2', 0)]).toEqual([true, false]);
  });

  it('remembers what was read, not what came in with it', () => {
    const memory = new SegmentMemory(2 * MiB, newCacheCounters(), new SharedArena(MiB));
    const back = (index: number) => {
      memory.insert('1', index, memory.take(SEGMENT_BYTES).fill(1));
      memory.read('1', index * SEGMENT_BYTES, new Uint8Array(8 * KiB));
    };
    read(memory, 1, 0, 8 * KiB);
    for (let seed = 1000; seed < 1006; seed++) read(memory, seed, 0, CHUNK);
    back(0);
    back(1);
    for (let seed = 2000; seed < 2050; seed++) read(memory, seed, 0, CHUNK);
    expect([memory.has('1', 0), memory.has('1', 1)]).toEqual([true, false]);
  });
});
