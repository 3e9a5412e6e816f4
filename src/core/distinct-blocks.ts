import { BLOCK_SIZE, GiB } from './units.ts';

/** Blocks that one page of bits stands for: 4 KiB of bits for 128 MiB of disk. */
const BLOCKS_PER_PAGE = 32 * 1024;
/** Bytes of a disk that can be told apart; what lies in further pages counts as asked before. 32 MiB of bits at most. */
const COVERED_BYTES_MAX = 1024 * GiB;
const PAGES_MAX = COVERED_BYTES_MAX / (BLOCKS_PER_PAGE * BLOCK_SIZE);

/** Which blocks of a disk were asked for at least once: exact, in a bit a block, in pages where there is one. */
export class DistinctBlocks {
  readonly #pages = new Map<number, Uint32Array>();
  readonly #total: { distinctBytesAsked: number };
  #count = 0;

  /** Adds the bytes of new blocks to `total`. */
  constructor(total: { distinctBytesAsked: number }) {
    this.#total = total;
  }

  /** Bytes of the blocks that were asked for. */
  get bytes(): number {
    return this.#count * BLOCK_SIZE;
  }

  /** Marks the blocks that the range touches; bytes, `length` at least 1. */
  add(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / BLOCK_SIZE);
    let found = 0;
    for (let block = Math.floor(offset / BLOCK_SIZE); block <= last; ) {
      const pageEnd = Math.min(last + 1, (Math.floor(block / BLOCKS_PER_PAGE) + 1) * BLOCKS_PER_PAGE);
      const page = this.#page(Math.floor(block / BLOCKS_PER_PAGE));
      if (page !== undefined) found += mark(page, block % BLOCKS_PER_PAGE, pageEnd - block);
      block = pageEnd;
    }
    if (found === 0) return;
    this.#count += found;
    this.#total.distinctBytesAsked += found * BLOCK_SIZE;
  }

  #page(index: number): Uint32Array | undefined {
    const known = this.#pages.get(index);
    if (known !== undefined || this.#pages.size >= PAGES_MAX) return known;
    const page = new Uint32Array(BLOCKS_PER_PAGE / 32);
    this.#pages.set(index, page);
    return page;
  }
}

/** Sets `count` bits from `first` on, a word at a time; returns how many were not set before. */
function mark(page: Uint32Array, first: number, count: number): number {
  let isNew = 0;
  for (let bit = first; bit < first + count; ) {
    const within = bit % 32;
    const width = Math.min(32 - within, first + count - bit);
    const mask = width === 32 ? 0xffffffff : ((1 << width) - 1) << within;
    const word = bit >>> 5;
    const missing = mask & ~page[word]!;
    if (missing !== 0) {
      isNew += countOnes(missing);
      page[word]! |= mask;
    }
    bit += width;
  }
  return isNew;
}

/** Bits set in 32 of them, added up in pairs, fours and bytes. */
function countOnes(bits: number): number {
  const pairs = bits - ((bits >>> 1) & 0x55555555);
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
