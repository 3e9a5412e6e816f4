/**
 * The order of a hashed directory: which names each leaf holds. A pure function over typed arrays, so that it can run in
 * another thread; a million names take a few hundred milliseconds.
 */
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

/**
 * `seed` is s_hash_seed. Leaf l takes the names whose records, laid end to end, end in its leafBytes: so that the last
 * leaf, too, has a name whatever the order, which it would not by where records begin.
 */
export function indexDirectory(
  names: NameTable,
  { seed, leaves, leafBytes }: { seed: Uint8Array; leaves: number; leafBytes: number },
): DirectoryIndex {
  const { hashes, minors } = hashNames(names, hashSeedWords(seed));
  const order = sortByHash(hashes, minors);
  const leafFirst = new Uint32Array(leaves + 1);
  const leafHash = new Uint32Array(leaves);
  let leaf = -1;
  let bytes = 0;
  for (let place = 0; place < order.length; place++) {
    const name = order[place]!;
    bytes += recordBytes(names.start[name + 1]! - names.start[name]!);
    if (bytes > (leaf + 1) * leafBytes) {
      leaf++;
      const hash = hashes[name]!;
      leafFirst[leaf] = place;
      leafHash[leaf] = place > 0 && hashes[order[place - 1]!] === hash ? hash | HTREE_CONTINUATION : hash;
    }
  }
  leafFirst[leaves] = order.length;
  return { order, leafFirst, leafHash };
}

function hashNames({ bytes, start, count }: NameTable, seed: Uint32Array) {
  const hashes = new Uint32Array(count);
  const minors = new Uint32Array(count);
  const result: NameHash = { hash: 0, minor: 0 };
  for (let name = 0; name < count; name++) {
    halfMd4(seed, bytes, start[name]!, start[name + 1]!, result);
    hashes[name] = result.hash;
    minors[name] = result.minor;
  }
  return { hashes, minors };
}

const DIGIT_BITS = 11;
const DIGITS = 1 << DIGIT_BITS;
/** Bit 0 of a hash is always clear: three digits of 11 bits cover the other 31. */
const DIGIT_SHIFTS = [1, 1 + DIGIT_BITS, 1 + 2 * DIGIT_BITS];

/** A stable radix sort by hash; the few names of equal hash are then put in the order of their minor hashes. */
function sortByHash(hashes: Uint32Array, minors: Uint32Array): Uint32Array {
  const count = hashes.length;
  let order = new Uint32Array(count);
  let other = new Uint32Array(count);
  for (let name = 0; name < count; name++) order[name] = name;
  for (const shift of DIGIT_SHIFTS) {
    const places = new Uint32Array(DIGITS + 1);
    for (let i = 0; i < count; i++) places[((hashes[i]! >>> shift) & (DIGITS - 1)) + 1]!++;
    for (let digit = 1; digit <= DIGITS; digit++) places[digit]! += places[digit - 1]!;
    for (let i = 0; i < count; i++) {
      const name = order[i]!;
      other[places[(hashes[name]! >>> shift) & (DIGITS - 1)]!++] = name;
    }
    [order, other] = [other, order];
  }
  for (let from = 0; from < count; ) {
    let to = from + 1;
    while (to < count && hashes[order[to]!] === hashes[order[from]!]) to++;
    if (to - from > 1) order.subarray(from, to).sort((a, b) => minors[a]! - minors[b]! || a - b);
    from = to;
  }
  return order;
}
