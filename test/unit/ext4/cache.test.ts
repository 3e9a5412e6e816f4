import { expect, test } from 'vitest';
import { ByteCache } from '../../../src/ext4/cache.ts';

/** A cache of 100 bytes whose values are their own sizes, and the keys it had to make a value for. */
function cacheOf() {
  const made: number[] = [];
  const cache = new ByteCache<number>({ bytesMax: 100, sizeOf: (value) => value });
  const get = (key: number, size: number) =>
    cache.get(key, () => {
      made.push(key);
      return size;
    });
  return { cache, made, get };
}

test('makes a value once while it is held', () => {
  const { made, get } = cacheOf();
  expect([get(1, 10), get(1, 99)]).toEqual([10, 10]);
  expect(made).toEqual([1]);
});

test('lets go of what was used longest ago, and stays within its bytes', () => {
  const { cache, made, get } = cacheOf();
  get(1, 40);
  get(2, 40);
  get(1, 40);
  get(3, 40);
  expect(cache.sizeBytes).toBe(80);
  get(1, 40);
  get(2, 40);
  expect(made).toEqual([1, 2, 3, 2]);
});

test('keeps the newest value even if it is larger than the bound', () => {
  const { cache, made, get } = cacheOf();
  get(1, 50);
  get(2, 500);
  get(2, 500);
  expect(cache.sizeBytes).toBe(500);
  get(3, 1);
  expect(cache.sizeBytes).toBe(1);
  expect(made).toEqual([1, 2, 3]);
});
