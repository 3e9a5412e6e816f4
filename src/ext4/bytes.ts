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
  return lastBetween(starts, 0, count, value);
}

/** Elements under one sample: their search stays within a page or so of memory. */
const SAMPLE_EVERY = 512;

/** lastAtOrBefore for millions of elements: a search among samples comes first, which fit the processor's caches. */
export class SampledStarts {
  readonly #starts: ArrayLike<number>;
  readonly #count: number;
  readonly #samples: Float64Array;

  /** `starts` is borrowed, and does not change. */
  constructor(starts: ArrayLike<number>, count: number) {
    this.#starts = starts;
    this.#count = count;
    this.#samples = Float64Array.from({ length: Math.ceil(count / SAMPLE_EVERY) }, (_, i) => starts[i * SAMPLE_EVERY]!);
  }

  /** As the function of that name. */
  lastAtOrBefore(value: number): number {
    const low = lastBetween(this.#samples, 0, this.#samples.length, value) * SAMPLE_EVERY;
    return lastBetween(this.#starts, low, Math.min(this.#count, low + SAMPLE_EVERY), value);
  }
}

/** As lastAtOrBefore, within starts[from .. to - 1]. */
function lastBetween(starts: ArrayLike<number>, from: number, to: number, value: number): number {
  let low = from;
  let high = to;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (starts[middle]! <= value) low = middle;
    else high = middle;
  }
  return low;
}
