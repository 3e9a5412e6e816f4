// xxHash32, seed 0: the twin of xxh32.ts, cut into calls so that long inputs need no long buffer.

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
  hash = (hash ^ (hash >> 15)) * PRIME_2;
  hash = (hash ^ (hash >> 13)) * PRIME_3;
  return hash ^ (hash >> 16);
}
