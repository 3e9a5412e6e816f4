/**
 * The order of a hashed directory: which names each leaf holds. A million names take a few hundred milliseconds, so that
 * it can be made in slices.
 */
import { setImmediate } from 'node:timers/promises';
import { HTREE_CONTINUATION } from './format.ts';
import { halfMd4, hashSeedWords, type NameHash } from './half-md4.ts';
import { type NameTable, recordBytes } from './names.ts';

export interface DirectoryIndex {
  /** The names (indexes into the table) in the order of hash, minor hash, table. */
  readonly order: Uint32Array;
  /** Leaf l holds order[leafFirst[l] .. leafFirst[l + 1]]; one element more than there are leaves. */
  readonly leafFirst: Uint32Array;
  /** Smallest hash of each leaf, with the continuation bit where the leaf before it ends with that hash too. */
  readonly leafHash: Uint32Array;
}

/** Bytes a DirectoryIndex occupies. */
export function indexSizeBytes(index: DirectoryIndex): number {
  return index.order.byteLength + index.leafFirst.byteLength + index.leafHash.byteLength;
}

/** What an index is made with. */
export interface IndexOptions {
  /** s_hash_seed. */
  readonly seed: Uint8Array;
  readonly leaves: number;
  readonly leafBytes: number;
}

/** Names that are hashed or sorted between two looks at the clock: well under a millisecond. */
const STEP_NAMES = 2048;
/** How long an index may keep everything else waiting, milliseconds. */
const SLICE_MS = 4;

/**
 * Leaf l takes the names whose records, laid end to end, end in its leafBytes: so that the last leaf, too, has a name
 * whatever the order, which it would not by where records begin.
 */
export function indexDirectory(names: NameTable, options: IndexOptions): DirectoryIndex {
  const steps = indexing(names, options);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** As indexDirectory, in slices of a few milliseconds between which everything else has its turn. */
export async function indexDirectoryInSlices(names: NameTable, options: IndexOptions): Promise<DirectoryIndex> {
  const steps = indexing(names, options);
  for (;;) {
    const startedMs = performance.now();
    do {
      const { done, value } = steps.next();
      if (done) return value;
    } while (performance.now() - startedMs < SLICE_MS);
    await setImmediate();
  }
}

/** Yields after every step. */
function* indexing(
  names: NameTable,
  { seed, leaves, leafBytes }: IndexOptions,
): Generator<undefined, DirectoryIndex, undefined> {
  const { count } = names;
  const hashes = new Uint32Array(count);
  const minors = new Uint32Array(count);
  const seedWords = hashSeedWords(seed);
  for (let from = 0; from < count; from += STEP_NAMES) {
    hashNames(names, seedWords, { from, to: Math.min(count, from + STEP_NAMES) }, hashes, minors);
    yield;
  }
  const order = yield* sortByHash(hashes, minors);
  const leafFirst = new Uint32Array(leaves + 1);
  const leafHash = new Uint32Array(leaves);
  let leaf = -1;
  let bytes = 0;
  for (let place = 0; place < count; place++) {
    if (place % STEP_NAMES === 0) yield;
    const name = order[place]!;
    bytes += recordBytes(names.start[name + 1]! - names.start[name]!);
    if (bytes > (leaf + 1) * leafBytes) {
      leaf++;
      const hash = hashes[name]!;
      leafFirst[leaf] = place;
      leafHash[leaf] = place > 0 && hashes[order[place - 1]!] === hash ? hash | HTREE_CONTINUATION : hash;
    }
  }
  leafFirst[leaves] = count;
  return { order, leafFirst, leafHash };
}

function hashNames(
  { bytes, start }: NameTable,
  seed: Uint32Array,
  { from, to }: { from: number; to: number },
  hashes: Uint32Array,
  minors: Uint32Array,
): void {
  const result: NameHash = { hash: 0, minor: 0 };
  for (let name = from; name < to; name++) {
    halfMd4(seed, bytes, start[name]!, start[name + 1]!, result);
    hashes[name] = result.hash;
    minors[name] = result.minor;
  }
}

const DIGIT_BITS = 11;
const DIGITS = 1 << DIGIT_BITS;
/** Bit 0 of a hash is always clear: three digits of 11 bits cover the other 31. */
const DIGIT_SHIFTS = [1, 1 + DIGIT_BITS, 1 + 2 * DIGIT_BITS];

/** A stable radix sort by hash; the few names of equal hash are then put in the order of their minor hashes. */
function* sortByHash(hashes: Uint32Array, minors: Uint32Array): Generator<undefined, Uint32Array, undefined> {
  const count = hashes.length;
  let order = new Uint32Array(count);
  let other = new Uint32Array(count);
  for (let name = 0; name < count; name++) order[name] = name;
  for (const shift of DIGIT_SHIFTS) {
    const places = new Uint32Array(DIGITS + 1);
    for (let i = 0; i < count; i++) places[((hashes[i]! >>> shift) & (DIGITS - 1)) + 1]!++;
    for (let digit = 1; digit <= DIGITS; digit++) places[digit]! += places[digit - 1]!;
    yield;
    for (let from = 0; from < count; from += STEP_NAMES) {
      moveByDigit(hashes, shift, order.subarray(from, from + STEP_NAMES), places, other);
      yield;
    }
    [order, other] = [other, order];
  }
  for (let from = 0, lastStep = 0; from < count; ) {
    let to = from + 1;
    while (to < count && hashes[order[to]!] === hashes[order[from]!]) to++;
    if (to - from > 1) order.subarray(from, to).sort((a, b) => minors[a]! - minors[b]! || a - b);
    from = to;
    if (from - lastStep < STEP_NAMES) continue;
    lastStep = from;
    yield;
  }
  return order;
}

/** Puts names at the next free place of their digit. */
function moveByDigit(
  hashes: Uint32Array,
  shift: number,
  from: Uint32Array,
  places: Uint32Array,
  to: Uint32Array,
): void {
  for (let i = 0; i < from.length; i++) {
    const name = from[i]!;
    to[places[(hashes[name]! >>> shift) & (DIGITS - 1)]!++] = name;
  }
}
