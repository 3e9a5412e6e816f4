import { assert } from './errors.ts';
import { KiB } from './units.ts';

/** What memory is given out in; smaller pieces are made apart. */
export const ARENA_UNIT_BYTES = 64 * KiB;

/** Free units, `end` exclusive. */
interface FreeRange {
  start: number;
  end: number;
}

/**
 * One large piece of shared memory for what lives for a while and then makes room for others: decoded chunks and their
 * segments. Shared memory of its own lives until each thread that has seen it has collected its garbage, which shared
 * memory does not make it do; that adds up to gigabytes while a disk is read. Here nothing is left to be collected.
 *
 * What is asked for from the low end is expected to go in about the order in which it came, so that its gaps close again;
 * what stays for long comes from the high end. The system gives memory only to what was once in use.
 */
export class SharedArena {
  readonly #units: number;
  #memory: SharedArrayBuffer | undefined;
  /** In order, and none of them next to another. */
  readonly #free: FreeRange[] = [];

  constructor(bytesMax: number) {
    this.#units = Math.floor(bytesMax / ARENA_UNIT_BYTES);
  }

  /** `length` bytes of any content, from elsewhere if there is no room; they are given back when nobody reads them any more. */
  take(length: number, from: 'low' | 'high' = 'low'): Uint8Array<SharedArrayBuffer> {
    if (length < ARENA_UNIT_BYTES) return new Uint8Array(new SharedArrayBuffer(length));
    const units = Math.ceil(length / ARENA_UNIT_BYTES);
    const memory = this.#allocate();
    const isLarge = ({ start, end }: FreeRange) => end - start >= units;
    const at = from === 'low' ? this.#free.findIndex(isLarge) : this.#free.findLastIndex(isLarge);
    const range = this.#free[at];
    if (memory === undefined || range === undefined) return new Uint8Array(new SharedArrayBuffer(length));
    const start = from === 'low' ? range.start : range.end - units;
    if (range.end - range.start === units) this.#free.splice(at, 1);
    else if (from === 'low') range.start += units;
    else range.end -= units;
    return new Uint8Array(memory, start * ARENA_UNIT_BYTES, length);
  }

  /** Takes back what `take` gave, as it was given. Anything else is left alone. */
  give({ buffer, byteOffset, byteLength }: Uint8Array): void {
    if (buffer !== this.#memory || byteLength === 0) return;
    const start = byteOffset / ARENA_UNIT_BYTES;
    const end = start + Math.ceil(byteLength / ARENA_UNIT_BYTES);
    const at = firstAtOrBehind(this.#free, start);
    const [before, behind] = [this.#free[at - 1], this.#free[at]];
    assert((before?.end ?? 0) <= start && end <= (behind?.start ?? this.#units), 'memory is given back once');
    const joinsBefore = before?.end === start;
    const joinsBehind = behind?.start === end;
    if (joinsBefore && joinsBehind) {
      before.end = behind.end;
      this.#free.splice(at, 1);
    } else if (joinsBefore) before.end = end;
    else if (joinsBehind) behind.start = start;
    else this.#free.splice(at, 0, { start, end });
  }

  #allocate(): SharedArrayBuffer | undefined {
    if (this.#memory !== undefined || this.#units === 0) return this.#memory;
    try {
      this.#memory = new SharedArrayBuffer(this.#units * ARENA_UNIT_BYTES);
      this.#free.push({ start: 0, end: this.#units });
    } catch (error) {
      // The system promises no more than it has: then each piece is asked for by itself.
      if (!(error instanceof RangeError)) throw error;
    }
    return this.#memory;
  }
}

/** Index of the first range that begins at or behind a unit. */
function firstAtOrBehind(ranges: readonly FreeRange[], unit: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle]!.start < unit) low = middle + 1;
    else high = middle;
  }
  return low;
}
