// xxHash32, the twin of xxh32.ts: of one long input, seed 0, cut into calls so that it needs no long buffer; and of many
// blocks, four side by side, since one alone waits for its multiplications.

const PRIME_1: u32 = 0x9e3779b1;
const PRIME_2: u32 = 0x85ebca77;
const PRIME_3: u32 = 0xc2b2ae3d;
const PRIME_4: u32 = 0x27d4eb2f;
const PRIME_5: u32 = 0x165667b1;

let laneA: u32 = 0;
let laneB: u32 = 0;
let laneC: u32 = 0;
let laneD: u32 = 0;

export function xxh32Start(): void {
  laneA = PRIME_1 + PRIME_2;
  laneB = PRIME_2;
  laneC = 0;
  laneD = 0 - PRIME_1;
}

/** Adds [from, end), a multiple of 16 bytes. */
export function xxh32Update(from: usize, end: usize): void {
  let a = laneA, b = laneB, c = laneC, d = laneD;
  for (; from < end; from += 16) {
    a = rotl<u32>(a + load<u32>(from) * PRIME_2, 13) * PRIME_1;
    b = rotl<u32>(b + load<u32>(from, 4) * PRIME_2, 13) * PRIME_1;
    c = rotl<u32>(c + load<u32>(from, 8) * PRIME_2, 13) * PRIME_1;
    d = rotl<u32>(d + load<u32>(from, 12) * PRIME_2, 13) * PRIME_1;
  }
  laneA = a;
  laneB = b;
  laneC = c;
  laneD = d;
}

/** The hash, with the last, fewer than 16, bytes at [from, end). `totalBytes` counts all since the start. */
export function xxh32End(from: usize, end: usize, totalBytes: u32): u32 {
  let hash = totalBytes < 16
    ? PRIME_5
    : rotl<u32>(laneA, 1) + rotl<u32>(laneB, 7) + rotl<u32>(laneC, 12) + rotl<u32>(laneD, 18);
  hash += totalBytes;
  for (; from + 4 <= end; from += 4) hash = rotl<u32>(hash + load<u32>(from) * PRIME_3, 17) * PRIME_4;
  for (; from < end; from++) hash = rotl<u32>(hash + <u32>load<u8>(from) * PRIME_5, 11) * PRIME_1;
  return avalanche(hash);
}

/** Bytes of a block. */
const BLOCK: usize = 4096;

/**
 * Writes a u32 to `to` for each of `blocks` blocks of 4096 bytes from `from` on: its hash, the seed being `seed` for the
 * first block, one more for each that follows. Both counts of blocks are rounded up to four.
 */
export function xxh32Blocks(from: usize, blocks: u32, to: usize, seed: u32): void {
  for (let done: u32 = 0; done < blocks; done += 4) {
    let a = lanes(seed + done), b = lanes(seed + done + 1), c = lanes(seed + done + 2), d = lanes(seed + done + 3);
    for (const end = from + BLOCK; from < end; from += 32) {
      a = round(a, from);
      b = round(b, from + BLOCK);
      c = round(c, from + 2 * BLOCK);
      d = round(d, from + 3 * BLOCK);
      a = round(a, from + 16);
      b = round(b, from + BLOCK + 16);
      c = round(c, from + 2 * BLOCK + 16);
      d = round(d, from + 3 * BLOCK + 16);
    }
    from += 3 * BLOCK;
    store<u32>(to, merge(a));
    store<u32>(to, merge(b), 4);
    store<u32>(to, merge(c), 8);
    store<u32>(to, merge(d), 12);
    to += 16;
  }
}

// @ts-ignore: a decorator on a function
@inline
function lanes(seed: u32): v128 {
  return i32x4(seed + PRIME_1 + PRIME_2, seed + PRIME_2, seed, seed - PRIME_1);
}

// @ts-ignore: a decorator on a function
@inline
function round(lane: v128, at: usize): v128 {
  const sum = i32x4.add(lane, i32x4.mul(v128.load(at), i32x4.splat(PRIME_2)));
  return i32x4.mul(v128.or(i32x4.shl(sum, 13), i32x4.shr_u(sum, 19)), i32x4.splat(PRIME_1));
}

function merge(lane: v128): u32 {
  return avalanche(
    rotl<u32>(i32x4.extract_lane(lane, 0), 1) + rotl<u32>(i32x4.extract_lane(lane, 1), 7) +
    rotl<u32>(i32x4.extract_lane(lane, 2), 12) + rotl<u32>(i32x4.extract_lane(lane, 3), 18) + <u32>BLOCK,
  );
}

function avalanche(hash: u32): u32 {
  hash = (hash ^ (hash >> 15)) * PRIME_2;
  hash = (hash ^ (hash >> 13)) * PRIME_3;
  return hash ^ (hash >> 16);
}
