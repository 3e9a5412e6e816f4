// POLYVAL: the twin of polyval.ts, which tells how the tables come about.
import { POLYVAL_BLOCK, POLYVAL_STATE, POLYVAL_TABLE_BYTES, POLYVAL_TABLES } from './layout';

/** Begins a new hash under the 16-byte key at `key`. */
export function polyvalStart(key: usize): void {
  v128.store(POLYVAL_STATE, i64x2.splat(0));
  let low = load<u64>(key);
  let high = load<u64>(key, 8);
  for (let bit: i32 = 127; bit >= 0; bit--) {
    // Divide by x: shift right, and a coefficient of x^0 becomes x^-1 = x^127 + x^126 + x^125 + x^120.
    const carry = 0 - (low & 1);
    low = (low >> 1) | (high << 63);
    high = (high >> 1) ^ (carry & 0xe100000000000000);
    const entry = POLYVAL_TABLES + <usize>(bit >> 3) * POLYVAL_TABLE_BYTES + (<usize>16 << (bit & 7));
    store<u64>(entry, low);
    store<u64>(entry, high, 8);
  }
  // The entries of single bits are there; every other one is a sum of two smaller ones.
  for (let table = POLYVAL_TABLES; table < POLYVAL_STATE; table += POLYVAL_TABLE_BYTES) {
    v128.store(table, i64x2.splat(0));
    for (let power: usize = 32; power < POLYVAL_TABLE_BYTES; power <<= 1) {
      const top = v128.load(table + power);
      for (let entry: usize = 16; entry < power; entry += 16) {
        v128.store(table + power + entry, v128.xor(top, v128.load(table + entry)));
      }
    }
  }
}

// @ts-ignore: a decorator on a function
@inline
function look(word: u64, byte: u64, table: usize): v128 {
  return v128.load(POLYVAL_TABLES + table * POLYVAL_TABLE_BYTES + <usize>(((word >> (8 * byte)) & 255) << 4));
}

// @ts-ignore: a decorator on a function
@inline
function multiply(sum: v128): v128 {
  const low = v128.extract_lane<u64>(sum, 0);
  const high = v128.extract_lane<u64>(sum, 1);
  const a = v128.xor(v128.xor(look(low, 0, 0), look(low, 1, 1)), v128.xor(look(low, 2, 2), look(low, 3, 3)));
  const b = v128.xor(v128.xor(look(low, 4, 4), look(low, 5, 5)), v128.xor(look(low, 6, 6), look(low, 7, 7)));
  const c = v128.xor(v128.xor(look(high, 0, 8), look(high, 1, 9)), v128.xor(look(high, 2, 10), look(high, 3, 11)));
  const d = v128.xor(v128.xor(look(high, 4, 12), look(high, 5, 13)), v128.xor(look(high, 6, 14), look(high, 7, 15)));
  return v128.xor(v128.xor(a, b), v128.xor(c, d));
}

/**
 * Writes the XOR of `bytes` bytes at `ciphertext` and `keystream` to `plain` and adds that to the hash. A last block that
 * is not whole counts as padded with zeroes, and its neighbours in memory do not matter.
 */
export function polyvalDecrypt(ciphertext: usize, keystream: usize, plain: usize, bytes: usize): void {
  const whole = bytes & ~15;
  let state = v128.load(POLYVAL_STATE);
  for (let at: usize = 0; at < whole; at += 16) {
    const block = v128.xor(v128.load(ciphertext + at), v128.load(keystream + at));
    v128.store(plain + at, block);
    state = multiply(v128.xor(state, block));
  }
  if (whole != bytes) {
    v128.store(POLYVAL_BLOCK, i64x2.splat(0));
    for (let at = whole; at < bytes; at++) {
      const byte = load<u8>(ciphertext + at) ^ load<u8>(keystream + at);
      store<u8>(plain + at, byte);
      store<u8>(POLYVAL_BLOCK + at - whole, byte);
    }
    state = multiply(v128.xor(state, v128.load(POLYVAL_BLOCK)));
  }
  v128.store(POLYVAL_STATE, state);
}

/** Adds the 16-byte block at `block`. */
export function polyvalBlock(block: usize): void {
  v128.store(POLYVAL_STATE, multiply(v128.xor(v128.load(POLYVAL_STATE), v128.load(block))));
}
