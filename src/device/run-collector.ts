/**
 * Many runs of blocks, later ones replacing earlier ones, turned into what is left of them in ascending order.
 *
 * Opening a log means applying millions of entries. Putting each where it belongs in a BlockMap costs a search and a
 * shift of half a leaf; sorting all of them once and sweeping over them costs a tenth. The sweep goes from block to
 * block with the runs that cover the current one in a heap, the newest on top; where nothing overlaps, as nearly
 * everywhere, the heap stays empty.
 */
import { assert } from '../core/errors.ts';
import { DEVICE_BLOCKS_MAX, valueAt } from './block-map.ts';

/** Words of a run as it is added: first, count, value. */
const WORDS = 3;
/** Words of a run in the sweep: first, count, value, and how many were added before it. */
const SORTED_WORDS = 4;
/** Bits of a key that one pass of the sort looks at, at most: two passes for a disk of 64 GiB. */
const RADIX_BITS_MAX = 12;
/** Runs of a chunk: 48 KB, as much as a small log needs. Chunks do not have to be copied to make room. */
const CHUNK_RUNS = 4096;

export class RunCollector {
  readonly #chunks: Uint32Array[] = [];
  #length = 0;
  #ascending = true;
  #lowest = DEVICE_BLOCKS_MAX;
  #highest = 0;

  /** Runs added. 12 bytes of memory each, and 32 more while `resolve` runs. */
  get length(): number {
    return this.#length;
  }

  /** A run that replaces what was added before; its value means what it means in a BlockMap. */
  add(first: number, count: number, value: number): void {
    assert(count > 0 && first + count <= DEVICE_BLOCKS_MAX, 'a run lies inside the largest device');
    const index = this.#length % CHUNK_RUNS;
    if (index === 0) this.#chunks.push(new Uint32Array(CHUNK_RUNS * WORDS));
    const chunk = this.#chunks[this.#chunks.length - 1]!;
    const at = index * WORDS;
    chunk[at] = first;
    chunk[at + 1] = count;
    chunk[at + 2] = value;
    this.#length++;
    if (first < this.#highest) this.#ascending = false;
    else this.#highest = first;
    if (first < this.#lowest) this.#lowest = first;
  }

  /** Calls `each` with every run in the order they came. */
  forEach(each: (first: number, count: number, value: number) => void): void {
    let left = this.#length;
    for (const chunk of this.#chunks) {
      const end = Math.min(left, CHUNK_RUNS) * WORDS;
      for (let at = 0; at < end; at += WORDS) each(chunk[at]!, chunk[at + 1]!, chunk[at + 2]!);
      left -= CHUNK_RUNS;
    }
  }

  /** Calls `emit` with what is left: ascending, without overlaps. A run that is partly replaced may come in parts. */
  resolve(emit: (first: number, count: number, value: number) => void): void {
    const words = this.#sorted();
    const end = this.#length * SORTED_WORDS;
    const covering = new NewestFirst(words);
    let at = 0;
    for (let next = 0; next < end || covering.top !== undefined; ) {
      const first = next < end ? words[next]! : DEVICE_BLOCKS_MAX;
      const top = covering.top;
      if (top === undefined) {
        const count = words[next + 1]!;
        const following = next + SORTED_WORDS < end ? words[next + SORTED_WORDS]! : DEVICE_BLOCKS_MAX;
        if (first + count <= following) emit(first, count, words[next + 2]!);
        else covering.push(next);
        at = first;
        next += SORTED_WORDS;
        continue;
      }
      if (first <= at && next < end) {
        covering.push(next);
        next += SORTED_WORDS;
        continue;
      }
      const topFirst = words[top]!;
      const topEnd = topFirst + words[top + 1]!;
      const stop = Math.min(topEnd, first);
      if (stop > at) {
        emit(at, stop - at, valueAt(words[top + 2]!, at - topFirst));
        at = stop;
      }
      if (topEnd <= at) covering.pop();
    }
  }

  /** All runs by their first block, those of one block in the order they came. */
  #sorted(): Uint32Array {
    let sorted = this.#flat();
    if (this.#ascending) return sorted;
    let other: Uint32Array = new Uint32Array(sorted.length);
    const bits = 32 - Math.clz32(this.#highest - this.#lowest);
    const passes = Math.ceil(bits / RADIX_BITS_MAX);
    const radixBits = Math.ceil(bits / passes);
    for (let shift = 0; shift < bits; shift += radixBits) {
      sortByDigit(sorted, other, { lowest: this.#lowest, shift, radixBits });
      [sorted, other] = [other, sorted];
    }
    return sorted;
  }

  #flat(): Uint32Array {
    const flat = new Uint32Array(this.#length * SORTED_WORDS);
    let to = 0;
    let order = 0;
    this.forEach((first, count, value) => {
      flat[to] = first;
      flat[to + 1] = count;
      flat[to + 2] = value;
      flat[to + 3] = order++;
      to += SORTED_WORDS;
    });
    return flat;
  }
}

/** One pass of a radix sort: whole runs move, because fetching them by an index later costs a miss of the cache each. */
function sortByDigit(
  from: Uint32Array,
  to: Uint32Array,
  { lowest, shift, radixBits }: { readonly lowest: number; readonly shift: number; readonly radixBits: number },
): void {
  const mask = 2 ** radixBits - 1;
  const places = new Uint32Array(mask + 2);
  for (let at = 0; at < from.length; at += SORTED_WORDS) places[(((from[at]! - lowest) >>> shift) & mask) + 1]!++;
  for (let digit = 0; digit < mask; digit++) places[digit + 1]! += places[digit]!;
  for (let at = 0; at < from.length; at += SORTED_WORDS) {
    const place = places[((from[at]! - lowest) >>> shift) & mask]!++ * SORTED_WORDS;
    to[place] = from[at]!;
    to[place + 1] = from[at + 1]!;
    to[place + 2] = from[at + 2]!;
    to[place + 3] = from[at + 3]!;
  }
}

/** Places of runs in `words`, the one added last on top: a binary heap. */
class NewestFirst {
  readonly #words: Uint32Array;
  readonly #heap: number[] = [];

  constructor(words: Uint32Array) {
    this.#words = words;
  }

  get top(): number | undefined {
    return this.#heap[0];
  }

  push(run: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(run);
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (this.#isNewer(heap[parent]!, run)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = run;
  }

  pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#isNewer(heap[child + 1]!, heap[child]!)) child++;
      if (this.#isNewer(last, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }

  #isNewer(run: number, other: number): boolean {
    return this.#words[run + 3]! > this.#words[other + 3]!;
  }
}
