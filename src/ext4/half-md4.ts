/**
 * The directory hash "half MD4" (directory.rst, "Hash Tree Directories"; version 1 with unsigned characters): MD4 cut to
 * three rounds of eight steps over 32 bytes of the name at a time.
 */
import { HTREE_HASH_END, HTREE_HASH_LAST } from './format.ts';

const CHUNK_BYTES = 32;
/** MD4's constants: the square roots of 2 and of 3, as 32-bit fractions. */
const ROUND_2 = 0x5a827999;
const ROUND_3 = 0x6ed9eba1;

/** The hash decides a name's leaf; its lowest bit is free for the index's continuation mark. `minor` orders equal hashes. */
export interface NameHash {
  hash: number;
  minor: number;
}

/** The four words a hash starts from, from s_hash_seed: 16 bytes, not all zero. */
export function hashSeedWords(seed: Uint8Array): Uint32Array {
  const view = new DataView(seed.buffer, seed.byteOffset, 16);
  return Uint32Array.from([0, 4, 8, 12], (at) => view.getUint32(at, true));
}

const words = new Uint32Array(CHUNK_BYTES / 4);
const state = new Uint32Array(4);

/** Hashes names[from .. to] into `result`. Synchronous, and so free to use the module's scratch words. */
export function halfMd4(seed: Uint32Array, names: Uint8Array, from: number, to: number, result: NameHash): void {
  state.set(seed);
  for (let at = from; at < to; at += CHUNK_BYTES) {
    fillWords(names, at, to - at);
    mix();
  }
  const hash = (state[1]! & ~1) >>> 0;
  result.hash = hash === HTREE_HASH_END ? HTREE_HASH_LAST : hash;
  result.minor = state[2]!;
}

/** Packs up to 32 of the `rest` bytes into eight words, most significant first, padded with the length's low byte. */
function fillWords(names: Uint8Array, at: number, rest: number): void {
  const padByte = rest & 255;
  const pad = padByte | (padByte << 8) | (padByte << 16) | (padByte << 24);
  const length = Math.min(rest, CHUNK_BYTES);
  let word = 0;
  let value = pad;
  for (let i = 0; i < length; i++) {
    value = names[at + i]! + (value << 8);
    if ((i & 3) === 3) {
      words[word++] = value;
      value = pad;
    }
  }
  if (word < words.length) words[word++] = value;
  while (word < words.length) words[word++] = pad;
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

/** One step each: a + f(b, c, d) + word, rotated. */
function choose(a: number, b: number, c: number, d: number, word: number, bits: number): number {
  return rotate((a + (d ^ (b & (c ^ d))) + word) | 0, bits);
}
function majority(a: number, b: number, c: number, d: number, word: number, bits: number): number {
  return rotate((a + ((b & c) + ((b ^ c) & d)) + word + ROUND_2) | 0, bits);
}
function parity(a: number, b: number, c: number, d: number, word: number, bits: number): number {
  return rotate((a + (b ^ c ^ d) + word + ROUND_3) | 0, bits);
}

function mix(): void {
  let [a, b, c, d] = state as unknown as [number, number, number, number];
  for (let i = 0; i < 8; i += 4) {
    a = choose(a, b, c, d, words[i]!, 3);
    d = choose(d, a, b, c, words[i + 1]!, 7);
    c = choose(c, d, a, b, words[i + 2]!, 11);
    b = choose(b, c, d, a, words[i + 3]!, 19);
  }
  for (let i = 1; i >= 0; i--) {
    a = majority(a, b, c, d, words[i]!, 3);
    d = majority(d, a, b, c, words[i + 2]!, 5);
    c = majority(c, d, a, b, words[i + 4]!, 9);
    b = majority(b, c, d, a, words[i + 6]!, 13);
  }
  for (let i = 3; i >= 1; i -= 2) {
    // Words 3 7 2 6, then 1 5 0 4.
    a = parity(a, b, c, d, words[i]!, 3);
    d = parity(d, a, b, c, words[i + 4]!, 9);
    c = parity(c, d, a, b, words[i - 1]!, 11);
    b = parity(b, c, d, a, words[i + 3]!, 15);
  }
  state[0]! += a;
  state[1]! += b;
  state[2]! += c;
  state[3]! += d;
}
