/**
 * xxHash32: the checksum of LZ4 frames (seed 0) and of an overlay's blocks (xxHash specification 0.2, "XXH32 algorithm
 * description"). It guards against accidents only. The WebAssembly kernels have twins of this file.
 */
const PRIME_1 = 0x9e3779b1;
const PRIME_2 = 0x85ebca77;
const PRIME_3 = 0xc2b2ae3d;
const PRIME_4 = 0x27d4eb2f;
const PRIME_5 = 0x165667b1;

/** The checksum of all of `data`, as an unsigned 32-bit number. */
export function xxh32(data: Uint8Array, seed = 0): number {
  const end = data.byteLength;
  let at = 0;
  let hash: number;
  if (end >= 16) {
    let a = (seed + PRIME_1 + PRIME_2) | 0;
    let b = (seed + PRIME_2) | 0;
    let c = seed | 0;
    let d = (seed - PRIME_1) | 0;
    for (; at + 16 <= end; at += 16) {
      a = round(a, readU32(data, at));
      b = round(b, readU32(data, at + 4));
      c = round(c, readU32(data, at + 8));
      d = round(d, readU32(data, at + 12));
    }
    hash = rotateLeft(a, 1) + rotateLeft(b, 7) + rotateLeft(c, 12) + rotateLeft(d, 18);
  } else {
    hash = seed + PRIME_5;
  }
  hash = (hash + end) | 0;
  for (; at + 4 <= end; at += 4) {
    hash = Math.imul(rotateLeft((hash + Math.imul(readU32(data, at), PRIME_3)) | 0, 17), PRIME_4);
  }
  for (; at < end; at++) hash = Math.imul(rotateLeft((hash + Math.imul(data[at]!, PRIME_5)) | 0, 11), PRIME_1);
  hash = Math.imul(hash ^ (hash >>> 15), PRIME_2);
  hash = Math.imul(hash ^ (hash >>> 13), PRIME_3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function round(lane: number, input: number): number {
  return Math.imul(rotateLeft((lane + Math.imul(input, PRIME_2)) | 0, 13), PRIME_1);
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function readU32(data: Uint8Array, at: number): number {
  return data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
}
