import { expect, test } from 'vitest';
import { SharedBuffers } from '../../../src/core/shared-buffers.ts';
import { KiB, MiB } from '../../../src/core/units.ts';

test('a buffer that was given back is used again, at the length that is asked for', () => {
  const buffers = new SharedBuffers();
  const first = buffers.take(100 * KiB);
  expect(first.byteLength).toBe(100 * KiB);
  buffers.give(first);
  const second = buffers.take(120 * KiB);
  expect(second.buffer).toBe(first.buffer);
  expect(second.byteLength).toBe(120 * KiB);
  expect(buffers.take(120 * KiB).buffer).not.toBe(first.buffer);
});

test('small ones, and more than a bound, are not kept', () => {
  const buffers = new SharedBuffers();
  const small = buffers.take(10);
  buffers.give(small);
  expect(buffers.take(10).buffer).not.toBe(small.buffer);
  const large = Array.from({ length: 9 }, () => buffers.take(4 * MiB));
  for (const each of large) buffers.give(each);
  const again = new Set(Array.from({ length: 9 }, () => buffers.take(4 * MiB).buffer));
  expect(large.filter(({ buffer }) => again.has(buffer))).toHaveLength(8);
});
