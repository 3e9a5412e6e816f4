import fc from 'fast-check';
import { createXXHash32 } from 'hash-wasm';
import { expect, test } from 'vitest';
import { xxh32Blocks, xxh32BlocksInTypescript } from '../../../src/core/block-checksums.ts';
import { AssertionError } from '../../../src/core/errors.ts';
import { BLOCK_SIZE } from '../../../src/core/units.ts';
import { supportsKernels } from '../../../src/core/wasm/instance.ts';
import { randomBytesOf } from '../kloset/codec/store-writer.ts';

/** Some counts around the four blocks that are hashed side by side, and the sixteen copied at a time. */
const counts = [0, 1, 2, 3, 4, 5, 15, 16, 17, 33];
const first = fc.oneof(fc.constantFrom(0, 2 ** 31, 2 ** 32 - 3), fc.nat(2 ** 32 - 1));

test('a checksum is xxHash32 of its block, with its number as the seed', async () => {
  expect(supportsKernels()).toBe(true);
  for (const count of counts) {
    const data = randomBytesOf(count, count * BLOCK_SIZE);
    const checksums = xxh32Blocks(7, data);
    for (let at = 0; at < count; at++) {
      const reference = (await createXXHash32(7 + at)).init();
      reference.update(data.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE));
      expect(checksums[at]).toBe(Number.parseInt(reference.digest('hex'), 16));
    }
    expect(checksums).toHaveLength(count);
  }
});

test('the twin in TypeScript gives the same', () => {
  fc.assert(
    fc.property(first, fc.constantFrom(...counts), fc.nat(), (block, count, seed) => {
      const data = randomBytesOf(seed, count * BLOCK_SIZE);
      const checksums = new Uint32Array(count);
      xxh32BlocksInTypescript(block, data, checksums);
      expect(xxh32Blocks(block, data)).toEqual(checksums);
    }),
  );
});

test('a change of one bit, and another place, are seen', () => {
  fc.assert(
    fc.property(first, fc.nat(BLOCK_SIZE * 8 - 1), (block, bit) => {
      const data = randomBytesOf(bit, BLOCK_SIZE);
      const [before] = xxh32Blocks(block, data);
      expect(xxh32Blocks(block + 1, data)[0]).not.toBe(before);
      data[bit >>> 3]! ^= 1 << (bit & 7);
      expect(xxh32Blocks(block, data)[0]).not.toBe(before);
    }),
  );
});

test('parts of blocks have none', () => {
  expect(() => xxh32Blocks(0, Buffer.alloc(BLOCK_SIZE + 1))).toThrow(AssertionError);
});
