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

/** Words of a run: first, count, value. */
const WORDS = 3;
/** Bits of a key that one pass of the sort looks at: three passes for 32 bits, and counters that fit the cache. */
const RADIX_BITS = 11;
const RADIX = 1 << RADIX_BITS;
/** Runs there is room for at first: 48 KB, as much as a small log needs. */
const CAPACITY_MIN = 4096;

export class RunCollector {
  #words = new Uint32Array(CAPACITY_MIN * WORDS);
  #length = 0;
  #ascending = true;

  /** Runs added. 12 bytes of memory each, and 28 more while `resolve` runs. */
  get length(): number {
    return this.#length;
  }

  /** A run that replaces what was added before; its value means what it means in a BlockMap. */
  add(first: number, count: number, value: number): void {
    assert(count > 0 && first + count <= DEVICE_BLOCKS_MAX, 'a run lies inside the largest device');
    const at = this.#length * WORDS;
    if (at === this.#words.length) {
      const larger = new Uint32Array(this.#words.length * 2);
      larger.set(this.#words);
      this.#words = larger;
    }
    if (at > 0 && first < this.#words[at - WORDS]!) this.#ascending = false;
    this.#words[at] = first;
    this.#words[at + 1] = count;
    this.#words[at + 2] = value;
    this.#length++;
  }

  /** Calls `each` with every run in the order they came. */
  forEach(each: (first: number, count: number, value: number) => void): void {
    const words = this.#words;
    for (let at = 0; at < this.#length * WORDS; at += WORDS) each(words[at]!, words[at + 1]!, words[at + 2]!);
  }

  /** Calls `emit` with what is left: ascending, without overlaps. A run that is partly replaced may come in parts. */
  resolve(emit: (first: number, count: number, value: number) => void): void {
    const length = this.#length;
    const order = this.#ascending ? undefined : sortedOrder(this.#words, length);
    // Gathered first, so that the sweep goes through memory from front to back.
    const words = order === undefined ? this.#words : gathered(this.#words, order);
    const covering = new NewestFirst();
    let at = 0;
    for (let next = 0; next < length || covering.top !== undefined; ) {
      const first = next < length ? words[next * WORDS]! : DEVICE_BLOCKS_MAX;
      const top = covering.top;
      if (top === undefined) {
        const count = words[next * WORDS + 1]!;
        const following = next + 1 < length ? words[(next + 1) * WORDS]! : DEVICE_BLOCKS_MAX;
        if (first + count <= following) emit(first, count, words[next * WORDS + 2]!);
        else covering.push(order?.[next] ?? next);
        at = first;
        next++;
        continue;
      }
      if (first <= at && next < length) {
        covering.push(order?.[next] ?? next);
        next++;
        continue;
      }
      const topFirst = this.#words[top * WORDS]!;
      const end = topFirst + this.#words[top * WORDS + 1]!;
      const stop = Math.min(end, first);
      if (stop > at) {
        emit(at, stop - at, valueAt(this.#words[top * WORDS + 2]!, at - topFirst));
        at = stop;
      }
      if (end <= at) covering.pop();
    }
  }
}

function gathered(words: Uint32Array, order: Uint32Array): Uint32Array {
  const sorted = new Uint32Array(order.length * WORDS);
  for (let index = 0; index < order.length; index++) {
    const from = order[index]! * WORDS;
    const to = index * WORDS;
    sorted[to] = words[from]!;
    sorted[to + 1] = words[from + 1]!;
    sorted[to + 2] = words[from + 2]!;
  }
  return sorted;
}

/** Indices of runs, the highest on top: a binary heap. */
class NewestFirst {
  readonly #heap: number[] = [];

  get top(): number | undefined {
    return this.#heap[0];
  }

  push(index: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(index);
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (heap[parent]! >= index) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = index;
  }

  pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]! > heap[child]!) child++;
      if (heap[child]! <= last) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

/** Indices of the runs by their first block, those of one block in the order they came. */
function sortedOrder(words: Uint32Array, length: number): Uint32Array {
  let keys = new Uint32Array(length);
  let order = new Uint32Array(length);
  for (let index = 0; index < length; index++) {
    keys[index] = words[index * WORDS]!;
    order[index] = index;
  }
  let otherKeys = new Uint32Array(length);
  let otherOrder = new Uint32Array(length);
  for (let shift = 0; shift < 32; shift += RADIX_BITS) {
    const places = new Uint32Array(RADIX + 1);
    for (let index = 0; index < length; index++) places[((keys[index]! >>> shift) & (RADIX - 1)) + 1]!++;
    for (let digit = 0; digit < RADIX; digit++) places[digit + 1]! += places[digit]!;
    for (let index = 0; index < length; index++) {
      const key = keys[index]!;
      const place = places[(key >>> shift) & (RADIX - 1)]!++;
      otherKeys[place] = key;
      otherOrder[place] = order[index]!;
    }
    [keys, otherKeys] = [otherKeys, keys];
    [order, otherOrder] = [otherOrder, order];
  }
  return order;
}
