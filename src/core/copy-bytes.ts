import { KiB } from './units.ts';

/** Below this a plain `set` costs less than the call of Buffer's. */
const LARGE_BYTES_MIN = 2 * KiB;

/**
 * Copies all of `source` to `target`, from byte `at` of it on, as `target.set` does; the two do not overlap.
 *
 * V8 copies from and to shared memory word by word, and byte by byte where the two sides are not aligned alike, as a chunk
 * and a reply mostly are: 1.4 GB/s where plain memory has 13. Buffer's `fill` with bytes of the same length is one memcpy
 * for either. Whoever copies shared memory sees to it that nobody writes to it meanwhile.
 */
export function copyBytes(source: Uint8Array, target: Uint8Array, at = 0): void {
  if (source.byteLength < LARGE_BYTES_MIN) target.set(source, at);
  else if (at + source.byteLength > target.byteLength) throw new RangeError('the copy does not fit');
  else Buffer.prototype.fill.call(target, source, at, at + source.byteLength);
}
