/**
 * Which blocks of a device an overlay holds, and where: a sorted list of runs, so that a trimmed TiB costs as much as a
 * trimmed block and an untouched device costs nothing.
 *
 * A run is (first block, number of blocks, value), three 32-bit numbers. The runs sit in leaves of RUNS_PER_LEAF in one
 * typed array each; a directory of the leaves' first blocks is searched by halving. 10 GiB of scattered 4 KiB blocks are
 * 2.6 million runs: about 45 MB, and some hundred nanoseconds a look-up.
 *
 * A value below ZERO_FLAG is a place in the overlay's store, and counts up inside its run: block first + i is at
 * value + i. A value from ZERO_FLAG up means that all blocks of the run read as zeroes; its low bits belong to the store.
 * Blocks in no run are clean: the base has them.
 */
import { assert } from '../core/errors.ts';
import { WRITABLE_DEVICE_BYTES_MAX } from '../core/limits.ts';
import { BLOCK_SIZE } from '../core/units.ts';

/** Set in the value of a run of zeroes. */
export const ZERO_FLAG = 0x8000_0000;
/** Largest number of blocks a device can have: block numbers are 32 bits. */
export const DEVICE_BLOCKS_MAX = WRITABLE_DEVICE_BYTES_MAX / BLOCK_SIZE;
/** Longest run: its count is 32 bits, and 2 ** 32 would not fit. */
export const RUN_BLOCKS_MAX = 2 ** 31;

const RUNS_PER_LEAF = 256;
/** Words of a run in a leaf: first, count, value. */
const WORDS = 3;

/** Part of a run. `value` is undefined for clean blocks. */
export interface Run {
  readonly first: number;
  readonly count: number;
  readonly value: number | undefined;
}

interface Leaf {
  length: number;
  readonly words: Uint32Array;
}

export function isZeroValue(value: number): boolean {
  return value >= ZERO_FLAG;
}

/** The value of the block `distance` blocks into a run that begins with `value`. */
export function valueAt(value: number, distance: number): number {
  return isZeroValue(value) ? value : value + distance;
}

function newLeaf(): Leaf {
  return { length: 0, words: new Uint32Array(RUNS_PER_LEAF * WORDS) };
}

export class BlockMap {
  /** Never empty; only an empty map has an empty leaf. */
  readonly #leaves: Leaf[] = [newLeaf()];
  /** First block of each leaf; the first leaf counts as starting at 0. */
  readonly #firsts: number[] = [0];
  #dataBlocks = 0;
  #zeroBlocks = 0;
  #runCount = 0;

  /** Blocks with a place in the store. */
  get dataBlocks(): number {
    return this.#dataBlocks;
  }

  /** Blocks that read as zeroes without a place in the store. */
  get zeroBlocks(): number {
    return this.#zeroBlocks;
  }

  get runCount(): number {
    return this.#runCount;
  }

  /** The part of the run at block `first`, ending at block `end` at the latest; `first < end`. */
  runAt(first: number, end: number): Run {
    let leafIndex = this.#leafOf(first);
    let leaf = this.#leaves[leafIndex]!;
    let index = indexOf(leaf, first);
    if (index === leaf.length && leafIndex + 1 < this.#leaves.length) {
      leaf = this.#leaves[++leafIndex]!;
      index = 0;
    }
    if (index === leaf.length) return { first, count: end - first, value: undefined };
    const { words } = leaf;
    const runFirst = words[index * WORDS]!;
    if (runFirst > first) return { first, count: Math.min(end, runFirst) - first, value: undefined };
    const runEnd = runFirst + words[index * WORDS + 1]!;
    const value = valueAt(words[index * WORDS + 2]!, first - runFirst);
    return { first, count: Math.min(end, runEnd) - first, value };
  }

  /**
   * Gives the blocks from `first` on `value`, counting up where it is a place. Calls `replaced` once for each part of a
   * run that had them before. Costs the number of those parts.
   */
  set(first: number, count: number, value: number, replaced: (value: number, count: number) => void): void {
    assert(count > 0 && first + count <= DEVICE_BLOCKS_MAX, 'a run lies inside the largest device');
    for (let done = 0; done < count; done += RUN_BLOCKS_MAX) {
      const part = Math.min(RUN_BLOCKS_MAX, count - done);
      this.#setRun(first + done, part, valueAt(value, done), replaced);
    }
  }

  /** Adds a run behind all others: how a map is built from sorted runs, without a search. */
  append(first: number, count: number, value: number): void {
    for (let done = 0; done < count; done += RUN_BLOCKS_MAX) {
      const part = Math.min(RUN_BLOCKS_MAX, count - done);
      const at = first + done;
      const leafIndex = this.#leaves.length - 1;
      const leaf = this.#leaves[leafIndex]!;
      const last = (leaf.length - 1) * WORDS;
      const behind = leaf.length === 0 || at >= leaf.words[last]! + leaf.words[last + 1]!;
      assert(behind, 'runs are appended in ascending order');
      const partValue = valueAt(value, done);
      if (!this.#extendLeft(leafIndex, leaf.length, at, part, partValue)) {
        this.#insert(leafIndex, leaf.length, at, part, partValue);
      }
      this.#count(partValue, part);
    }
  }

  /** A map of its own with the same runs. */
  copy(): BlockMap {
    const copy = new BlockMap();
    copy.#leaves.length = copy.#firsts.length = 0;
    for (const { length, words } of this.#leaves) copy.#leaves.push({ length, words: words.slice() });
    for (const first of this.#firsts) copy.#firsts.push(first);
    copy.#dataBlocks = this.#dataBlocks;
    copy.#zeroBlocks = this.#zeroBlocks;
    copy.#runCount = this.#runCount;
    return copy;
  }

  /** Calls `each` with every run, ascending. */
  forEach(each: (first: number, count: number, value: number) => void): void {
    for (const { words, length } of this.#leaves) {
      for (let at = 0; at < length * WORDS; at += WORDS) each(words[at]!, words[at + 1]!, words[at + 2]!);
    }
  }

  #setRun(first: number, count: number, value: number, replaced: (value: number, count: number) => void): void {
    const end = first + count;
    let leafIndex = this.#leafOf(first);
    let index = indexOf(this.#leaves[leafIndex]!, first);

    const left = this.#cutLeft(leafIndex, index, first, end, replaced);
    if (left !== undefined) index++;
    this.#removeInside(leafIndex, index, end, replaced);

    if (this.#extendLeft(leafIndex, index, first, count, value)) index--;
    else [leafIndex, index] = this.#insert(leafIndex, index, first, count, value);
    this.#count(value, count);
    if (left?.rest !== undefined) {
      this.#insert(leafIndex, index + 1, left.rest.first, left.rest.count, left.rest.value);
      this.#count(left.rest.value, left.rest.count);
    } else this.#joinRight(leafIndex, index);
  }

  /**
   * Cuts the run at `index` off at `first` if it begins before; undefined if it does not. What it has behind `end` is
   * handed back in `rest`: a run was split in two.
   */
  #cutLeft(
    leafIndex: number,
    index: number,
    first: number,
    end: number,
    replaced: (value: number, count: number) => void,
  ): { rest: { first: number; count: number; value: number } | undefined } | undefined {
    const leaf = this.#leaves[leafIndex]!;
    if (index === leaf.length) return undefined;
    const { words } = leaf;
    const at = index * WORDS;
    const runFirst = words[at]!;
    if (runFirst >= first) return undefined;
    const runEnd = runFirst + words[at + 1]!;
    const value = words[at + 2]!;
    const overlap = Math.min(runEnd, end) - first;
    replaced(valueAt(value, first - runFirst), overlap);
    words[at + 1] = first - runFirst;
    this.#count(value, -(runEnd - first));
    if (runEnd <= end) return { rest: undefined };
    return { rest: { first: end, count: runEnd - end, value: valueAt(value, end - runFirst) } };
  }

  /** Removes all runs from (leafIndex, index) on that begin before `end`; one that goes on behind it loses its front. */
  #removeInside(leafIndex: number, index: number, end: number, replaced: (value: number, count: number) => void): void {
    let emptied = 0;
    let at = leafIndex;
    let from = index;
    for (; at < this.#leaves.length; at++, from = 0) {
      const leaf = this.#leaves[at]!;
      const { words } = leaf;
      let to = from;
      let more = true;
      for (; to < leaf.length; to++) {
        const word = to * WORDS;
        const runFirst = words[word]!;
        more = runFirst < end;
        if (!more) break;
        const count = words[word + 1]!;
        const value = words[word + 2]!;
        const overlap = Math.min(runFirst + count, end) - runFirst;
        replaced(value, overlap);
        this.#count(value, -overlap);
        if (overlap < count) {
          words[word] = end;
          words[word + 1] = count - overlap;
          words[word + 2] = valueAt(value, overlap);
          more = false;
          break;
        }
      }
      removeRuns(leaf, from, to);
      this.#runCount -= to - from;
      if (leaf.length === 0 && at > leafIndex) emptied++;
      else if (leaf.length > 0 && from === 0 && at > 0) this.#firsts[at] = words[0]!;
      if (!more) break;
    }
    if (emptied > 0) {
      this.#leaves.splice(leafIndex + 1, emptied);
      this.#firsts.splice(leafIndex + 1, emptied);
    }
  }

  /** Lengthens the run before `index` if the new one continues it. */
  #extendLeft(leafIndex: number, index: number, first: number, count: number, value: number): boolean {
    if (index === 0) return false;
    const { words } = this.#leaves[leafIndex]!;
    const at = (index - 1) * WORDS;
    const runCount = words[at + 1]!;
    if (words[at]! + runCount !== first || runCount + count > RUN_BLOCKS_MAX) return false;
    if (valueAt(words[at + 2]!, runCount) !== value) return false;
    words[at + 1] = runCount + count;
    return true;
  }

  /** Joins the run at `index` with the one behind it if that continues it. Runs of two leaves stay apart: harmless. */
  #joinRight(leafIndex: number, index: number): void {
    const leaf = this.#leaves[leafIndex]!;
    if (index + 1 >= leaf.length) return;
    const at = (index + 1) * WORDS;
    const { words } = leaf;
    if (this.#extendLeft(leafIndex, index + 1, words[at]!, words[at + 1]!, words[at + 2]!)) {
      removeRuns(leaf, index + 1, index + 2);
      this.#runCount--;
    }
  }

  /** Inserts a run before `index`; a full leaf is halved first. Returns where the run is now. */
  #insert(leafIndex: number, index: number, first: number, count: number, value: number): [number, number] {
    let leaf = this.#leaves[leafIndex]!;
    if (leaf.length === RUNS_PER_LEAF) {
      // Ascending writes leave full leaves behind instead of half-full ones.
      const isLast = leafIndex + 1 === this.#leaves.length && index === leaf.length;
      const keep = isLast ? leaf.length : RUNS_PER_LEAF / 2;
      const right = newLeaf();
      right.words.set(leaf.words.subarray(keep * WORDS));
      right.length = leaf.length - keep;
      leaf.length = keep;
      this.#leaves.splice(leafIndex + 1, 0, right);
      this.#firsts.splice(leafIndex + 1, 0, right.length > 0 ? right.words[0]! : first);
      if (index > keep || isLast) {
        leafIndex++;
        index -= keep;
        leaf = right;
      }
    }
    const { words } = leaf;
    const at = index * WORDS;
    if (index < leaf.length) words.copyWithin(at + WORDS, at, leaf.length * WORDS);
    words[at] = first;
    words[at + 1] = count;
    words[at + 2] = value;
    leaf.length++;
    this.#runCount++;
    if (index === 0 && leafIndex > 0) this.#firsts[leafIndex] = first;
    return [leafIndex, index];
  }

  #count(value: number, blocks: number): void {
    if (isZeroValue(value)) this.#zeroBlocks += blocks;
    else this.#dataBlocks += blocks;
  }

  /** The last leaf that begins at or before `block`. */
  #leafOf(block: number): number {
    let low = 0;
    let high = this.#firsts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#firsts[middle]! <= block) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Index of the first run that ends behind `block`; the leaf's length if none does. */
function indexOf({ words, length }: Leaf, block: number): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (words[middle * WORDS]! + words[middle * WORDS + 1]! > block) high = middle;
    else low = middle + 1;
  }
  return low;
}

function removeRuns(leaf: Leaf, from: number, to: number): void {
  if (from === to) return;
  leaf.words.copyWithin(from * WORDS, to * WORDS, leaf.length * WORDS);
  leaf.length -= to - from;
}
