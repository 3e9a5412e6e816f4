// BLAKE3 (its paper, sections 2 and 5): chunks of 1,024 bytes are hashed in blocks of 64, each alone, and their chaining
// values are joined pairwise into a binary tree. Four chunks, or four parents, run side by side in the lanes of
// vectors; where fewer are left, lanes idle: one compression function does for all.
import { BLAKE3_CHAINING, BLAKE3_DIGEST, BLAKE3_GROUP, BLAKE3_KEY, BLAKE3_MESSAGE, BLAKE3_STACK } from './layout';

const CHUNK_BYTES: usize = 1024;
const BLOCK_BYTES: usize = 64;
const CHAINING_BYTES: usize = 32;
const LANES: usize = 4;
/** Chunks that are joined into one subtree before the stack sees them: full vectors for its two lower levels. */
const GROUP_CHUNKS: usize = 16;
const GROUP_LEVEL: u32 = 4;

const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

/** Flags of every compression: keyed mode or none. */
let modeFlags: u32 = 0;
let chunksDone: u32 = 0;
let stackLength: usize = 0;

// @ts-ignore: a decorator on a function
@inline
function add(a: v128, b: v128): v128 {
  return i32x4.add(a, b);
}
// @ts-ignore: a decorator on a function
@inline
function message(index: usize): v128 {
  return v128.load(BLAKE3_MESSAGE + 16 * index);
}
// @ts-ignore: a decorator on a function
@inline
function rotate16(x: v128, y: v128): v128 {
  const v = v128.xor(x, y);
  return i8x16.swizzle(v, i8x16(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
}
// @ts-ignore: a decorator on a function
@inline
function rotate12(x: v128, y: v128): v128 {
  const v = v128.xor(x, y);
  return v128.or(i32x4.shr_u(v, 12), i32x4.shl(v, 20));
}
// @ts-ignore: a decorator on a function
@inline
function rotate8(x: v128, y: v128): v128 {
  const v = v128.xor(x, y);
  return i8x16.swizzle(v, i8x16(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
}
// @ts-ignore: a decorator on a function
@inline
function rotate7(x: v128, y: v128): v128 {
  const v = v128.xor(x, y);
  return v128.or(i32x4.shr_u(v, 7), i32x4.shl(v, 25));
}

/** Turns four vectors at p0 … p3, one a lane, into the four words of all lanes. */
// @ts-ignore: a decorator on a function
@inline
function transpose(to: usize, p0: usize, p1: usize, p2: usize, p3: usize): void {
  const a = v128.load(p0), b = v128.load(p1), c = v128.load(p2), d = v128.load(p3);
  const ab0 = i8x16.shuffle(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const ab2 = i8x16.shuffle(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const cd0 = i8x16.shuffle(c, d, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const cd2 = i8x16.shuffle(c, d, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  v128.store(to, i8x16.shuffle(ab0, cd0, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  v128.store(to, i8x16.shuffle(ab0, cd0, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31), 16);
  v128.store(to, i8x16.shuffle(ab2, cd2, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), 32);
  v128.store(to, i8x16.shuffle(ab2, cd2, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31), 48);
}

/** Compresses one 64-byte block of each lane, at p0 … p3, into BLAKE3_CHAINING. */
function compress(p0: usize, p1: usize, p2: usize, p3: usize, counters: v128, blockBytes: u32, flags: u32): void {
  for (let at: usize = 0; at < BLOCK_BYTES; at += 16) {
    transpose(BLAKE3_MESSAGE + 4 * at, p0 + at, p1 + at, p2 + at, p3 + at);
  }
  let a0 = v128.load(BLAKE3_CHAINING), a1 = v128.load(BLAKE3_CHAINING, 16);
  let a2 = v128.load(BLAKE3_CHAINING, 32), a3 = v128.load(BLAKE3_CHAINING, 48);
  let b0 = v128.load(BLAKE3_CHAINING, 64), b1 = v128.load(BLAKE3_CHAINING, 80);
  let b2 = v128.load(BLAKE3_CHAINING, 96), b3 = v128.load(BLAKE3_CHAINING, 112);
  let c0 = i32x4.splat(0x6a09e667), c1 = i32x4.splat(0xbb67ae85);
  let c2 = i32x4.splat(0x3c6ef372), c3 = i32x4.splat(0xa54ff53a);
  // Word 13 would be the counter's upper half: above four TiB in one value only.
  let d0 = counters, d1 = i32x4.splat(0), d2 = i32x4.splat(blockBytes), d3 = i32x4.splat(modeFlags | flags);

  // Seven rounds, written out: where each finds its words is then part of the code, which is a tenth faster than a table.
  a0 = add(add(a0, b0), message(0)); a1 = add(add(a1, b1), message(2)); a2 = add(add(a2, b2), message(4)); a3 = add(add(a3, b3), message(6));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(1)); a1 = add(add(a1, b1), message(3)); a2 = add(add(a2, b2), message(5)); a3 = add(add(a3, b3), message(7));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(8)); a1 = add(add(a1, b2), message(10)); a2 = add(add(a2, b3), message(12)); a3 = add(add(a3, b0), message(14));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(9)); a1 = add(add(a1, b2), message(11)); a2 = add(add(a2, b3), message(13)); a3 = add(add(a3, b0), message(15));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);

  a0 = add(add(a0, b0), message(2)); a1 = add(add(a1, b1), message(3)); a2 = add(add(a2, b2), message(7)); a3 = add(add(a3, b3), message(4));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(6)); a1 = add(add(a1, b1), message(10)); a2 = add(add(a2, b2), message(0)); a3 = add(add(a3, b3), message(13));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(1)); a1 = add(add(a1, b2), message(12)); a2 = add(add(a2, b3), message(9)); a3 = add(add(a3, b0), message(15));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(11)); a1 = add(add(a1, b2), message(5)); a2 = add(add(a2, b3), message(14)); a3 = add(add(a3, b0), message(8));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);

  a0 = add(add(a0, b0), message(3)); a1 = add(add(a1, b1), message(10)); a2 = add(add(a2, b2), message(13)); a3 = add(add(a3, b3), message(7));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(4)); a1 = add(add(a1, b1), message(12)); a2 = add(add(a2, b2), message(2)); a3 = add(add(a3, b3), message(14));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(6)); a1 = add(add(a1, b2), message(9)); a2 = add(add(a2, b3), message(11)); a3 = add(add(a3, b0), message(8));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(5)); a1 = add(add(a1, b2), message(0)); a2 = add(add(a2, b3), message(15)); a3 = add(add(a3, b0), message(1));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);

  a0 = add(add(a0, b0), message(10)); a1 = add(add(a1, b1), message(12)); a2 = add(add(a2, b2), message(14)); a3 = add(add(a3, b3), message(13));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(7)); a1 = add(add(a1, b1), message(9)); a2 = add(add(a2, b2), message(3)); a3 = add(add(a3, b3), message(15));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(4)); a1 = add(add(a1, b2), message(11)); a2 = add(add(a2, b3), message(5)); a3 = add(add(a3, b0), message(1));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(0)); a1 = add(add(a1, b2), message(2)); a2 = add(add(a2, b3), message(8)); a3 = add(add(a3, b0), message(6));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);

  a0 = add(add(a0, b0), message(12)); a1 = add(add(a1, b1), message(9)); a2 = add(add(a2, b2), message(15)); a3 = add(add(a3, b3), message(14));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(13)); a1 = add(add(a1, b1), message(11)); a2 = add(add(a2, b2), message(10)); a3 = add(add(a3, b3), message(8));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(7)); a1 = add(add(a1, b2), message(5)); a2 = add(add(a2, b3), message(0)); a3 = add(add(a3, b0), message(6));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(2)); a1 = add(add(a1, b2), message(3)); a2 = add(add(a2, b3), message(1)); a3 = add(add(a3, b0), message(4));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);

  a0 = add(add(a0, b0), message(9)); a1 = add(add(a1, b1), message(11)); a2 = add(add(a2, b2), message(8)); a3 = add(add(a3, b3), message(15));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(14)); a1 = add(add(a1, b1), message(5)); a2 = add(add(a2, b2), message(12)); a3 = add(add(a3, b3), message(1));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(13)); a1 = add(add(a1, b2), message(0)); a2 = add(add(a2, b3), message(2)); a3 = add(add(a3, b0), message(4));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(3)); a1 = add(add(a1, b2), message(10)); a2 = add(add(a2, b3), message(6)); a3 = add(add(a3, b0), message(7));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);

  a0 = add(add(a0, b0), message(11)); a1 = add(add(a1, b1), message(5)); a2 = add(add(a2, b2), message(1)); a3 = add(add(a3, b3), message(8));
  d0 = rotate16(d0, a0); d1 = rotate16(d1, a1); d2 = rotate16(d2, a2); d3 = rotate16(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate12(b0, c0); b1 = rotate12(b1, c1); b2 = rotate12(b2, c2); b3 = rotate12(b3, c3);
  a0 = add(add(a0, b0), message(15)); a1 = add(add(a1, b1), message(0)); a2 = add(add(a2, b2), message(9)); a3 = add(add(a3, b3), message(6));
  d0 = rotate8(d0, a0); d1 = rotate8(d1, a1); d2 = rotate8(d2, a2); d3 = rotate8(d3, a3);
  c0 = add(c0, d0); c1 = add(c1, d1); c2 = add(c2, d2); c3 = add(c3, d3);
  b0 = rotate7(b0, c0); b1 = rotate7(b1, c1); b2 = rotate7(b2, c2); b3 = rotate7(b3, c3);
  a0 = add(add(a0, b1), message(14)); a1 = add(add(a1, b2), message(2)); a2 = add(add(a2, b3), message(3)); a3 = add(add(a3, b0), message(7));
  d3 = rotate16(d3, a0); d0 = rotate16(d0, a1); d1 = rotate16(d1, a2); d2 = rotate16(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate12(b1, c2); b2 = rotate12(b2, c3); b3 = rotate12(b3, c0); b0 = rotate12(b0, c1);
  a0 = add(add(a0, b1), message(10)); a1 = add(add(a1, b2), message(12)); a2 = add(add(a2, b3), message(4)); a3 = add(add(a3, b0), message(13));
  d3 = rotate8(d3, a0); d0 = rotate8(d0, a1); d1 = rotate8(d1, a2); d2 = rotate8(d2, a3);
  c2 = add(c2, d3); c3 = add(c3, d0); c0 = add(c0, d1); c1 = add(c1, d2);
  b1 = rotate7(b1, c2); b2 = rotate7(b2, c3); b3 = rotate7(b3, c0); b0 = rotate7(b0, c1);
  v128.store(BLAKE3_CHAINING, v128.xor(a0, c0)); v128.store(BLAKE3_CHAINING, v128.xor(a1, c1), 16);
  v128.store(BLAKE3_CHAINING, v128.xor(a2, c2), 32); v128.store(BLAKE3_CHAINING, v128.xor(a3, c3), 48);
  v128.store(BLAKE3_CHAINING, v128.xor(b0, d0), 64); v128.store(BLAKE3_CHAINING, v128.xor(b1, d1), 80);
  v128.store(BLAKE3_CHAINING, v128.xor(b2, d2), 96); v128.store(BLAKE3_CHAINING, v128.xor(b3, d3), 112);
}

/** Every lane begins with the key. */
function resetChaining(): void {
  for (let index: usize = 0; index < 8; index++) {
    v128.store(BLAKE3_CHAINING + 16 * index, v128.load32_splat(BLAKE3_KEY + 4 * index));
  }
}

/** Writes the chaining values of the first `lanes` lanes to `to`, 32 bytes each. */
function storeChaining(to: usize, lanes: usize): void {
  for (let lane: usize = 0; lane < lanes; lane++) {
    for (let index: usize = 0; index < 8; index++) {
      store<u32>(to + CHAINING_BYTES * lane + 4 * index, load<u32>(BLAKE3_CHAINING + 16 * index + 4 * lane));
    }
  }
}

/** Hashes `lanes` whole chunks at `from`, the first of number `counter`; chaining values go to `to`. */
function hashChunks(from: usize, lanes: usize, counter: u32, to: usize): void {
  // Idle lanes repeat the first one's input: it is there to be read.
  const p1 = lanes > 1 ? from + CHUNK_BYTES : from;
  const p2 = lanes > 2 ? from + 2 * CHUNK_BYTES : from;
  const p3 = lanes > 3 ? from + 3 * CHUNK_BYTES : from;
  const counters = add(i32x4.splat(counter), i32x4(0, 1, 2, 3));
  resetChaining();
  for (let at: usize = 0; at < CHUNK_BYTES; at += BLOCK_BYTES) {
    const flags = (at == 0 ? CHUNK_START : 0) | (at == CHUNK_BYTES - BLOCK_BYTES ? CHUNK_END : 0);
    compress(from + at, p1 + at, p2 + at, p3 + at, counters, <u32>BLOCK_BYTES, flags);
  }
  storeChaining(to, lanes);
}

/** Joins 2 · `parents` chaining values at `from` pairwise; results go to `to`, which may be `from`. */
function joinPairs(from: usize, parents: usize, to: usize, flags: u32): void {
  for (let first: usize = 0; first < parents; first += LANES) {
    const lanes = min<usize>(LANES, parents - first);
    const p0 = from + BLOCK_BYTES * first;
    const p1 = lanes > 1 ? p0 + BLOCK_BYTES : p0;
    const p2 = lanes > 2 ? p0 + 2 * BLOCK_BYTES : p0;
    const p3 = lanes > 3 ? p0 + 3 * BLOCK_BYTES : p0;
    resetChaining();
    compress(p0, p1, p2, p3, i32x4.splat(0), <u32>BLOCK_BYTES, PARENT | flags);
    storeChaining(to + CHAINING_BYTES * first, lanes);
  }
}

/** Puts the chaining value at `from`, of a subtree of 2^level chunks, on the stack and joins what is complete. */
function push(from: usize, level: u32): void {
  memory.copy(BLAKE3_STACK + CHAINING_BYTES * stackLength++, from, CHAINING_BYTES);
  chunksDone += 1 << level;
  // Each zero bit at the end of the count of subtrees of this level is a pair that has just become complete. More input
  // always follows, so none of them is the root.
  for (let pairs = chunksDone >> level; (pairs & 1) == 0; pairs >>= 1) {
    const left = BLAKE3_STACK + CHAINING_BYTES * (--stackLength - 1);
    joinPairs(left, 1, left, 0);
  }
}

/** Begins a new hash under the 8 words at BLAKE3_KEY. */
export function blake3Start(flags: u32): void {
  modeFlags = flags;
  chunksDone = 0;
  stackLength = 0;
}

/** Adds `chunks` whole chunks at `from`; at least one byte must follow them. */
export function blake3Update(from: usize, chunks: usize): void {
  while (chunks > 0) {
    if (chunks >= GROUP_CHUNKS && (chunksDone & (<u32>GROUP_CHUNKS - 1)) == 0) {
      for (let done: usize = 0; done < GROUP_CHUNKS; done += LANES) {
        hashChunks(from + CHUNK_BYTES * done, LANES, chunksDone + <u32>done, BLAKE3_GROUP + CHAINING_BYTES * done);
      }
      for (let parents = GROUP_CHUNKS / 2; parents > 0; parents /= 2) joinPairs(BLAKE3_GROUP, parents, BLAKE3_GROUP, 0);
      push(BLAKE3_GROUP, GROUP_LEVEL);
      from += CHUNK_BYTES * GROUP_CHUNKS;
      chunks -= GROUP_CHUNKS;
    } else {
      const lanes = min<usize>(LANES, chunks);
      hashChunks(from, lanes, chunksDone, BLAKE3_GROUP);
      for (let lane: usize = 0; lane < lanes; lane++) push(BLAKE3_GROUP + CHAINING_BYTES * lane, 0);
      from += CHUNK_BYTES * lanes;
      chunks -= lanes;
    }
  }
}

/** Adds the last `bytes` bytes at `from`, at most a chunk, and leaves the hash at BLAKE3_DIGEST. */
export function blake3End(from: usize, bytes: usize): void {
  // The last block is padded with zeroes, in the slack behind the caller's buffer.
  memory.fill(from + bytes, 0, BLOCK_BYTES);
  const onlyChunk: u32 = stackLength == 0 ? ROOT : 0;
  resetChaining();
  let at: usize = 0;
  let flags = CHUNK_START;
  for (; at + BLOCK_BYTES < bytes; at += BLOCK_BYTES) {
    const block = from + at;
    compress(block, block, block, block, i32x4.splat(chunksDone), <u32>BLOCK_BYTES, flags);
    flags = 0;
  }
  const last = from + at;
  compress(last, last, last, last, i32x4.splat(chunksDone), <u32>(bytes - at), flags | CHUNK_END | onlyChunk);
  storeChaining(BLAKE3_STACK + CHAINING_BYTES * stackLength, 1);
  while (stackLength > 0) {
    const left = BLAKE3_STACK + CHAINING_BYTES * --stackLength;
    joinPairs(left, 1, left, stackLength == 0 ? ROOT : 0);
  }
  memory.copy(BLAKE3_DIGEST, BLAKE3_STACK, CHAINING_BYTES);
}
