/** Little helpers for little-endian words that are too hot, or too loose, for a struct table. */

/** The upper 32 bits of an unsigned integer below 2 ** 53. */
export function high32(value: number): number {
  return Math.floor(value / 2 ** 32);
}

/** The lower 32 bits, unsigned; of a negative integer its two's complement. */
export function low32(value: number): number {
  return value >>> 0;
}

export function viewOf(source: Uint8Array): DataView {
  return new DataView(source.buffer, source.byteOffset, source.byteLength);
}

/** Index of the last element <= value in ascending starts[0 .. count - 1]; starts[0] must be <= value. */
export function lastAtOrBefore(starts: ArrayLike<number>, count: number, value: number): number {
  let low = 0;
  let high = count;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (starts[middle]! <= value) low = middle;
    else high = middle;
  }
  return low;
}
