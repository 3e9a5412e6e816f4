// POLYVAL: the twin of polyval.ts, which tells how the tables come about.
//
// Each step waits for the one before, which leaves the processor idle. Long inputs are therefore two interleaved hashes
// under the key's square: blocks 1, 3, 5 … and 2, 4, 6 …. Only the last step of the second is under the key itself,
// which makes its powers odd, as they are in one hash of all blocks.
import {
  POLYVAL_BLOCK,
  POLYVAL_KEY,
  POLYVAL_SQUARE_TABLES,
  POLYVAL_STATE,
  POLYVAL_TABLE_BYTES,
  POLYVAL_TABLES,
} from './layout';

/** From this many bytes on, two hashes are worth the tables of the square. */
const INTERLEAVED_BYTES_MIN: usize = 2048;

let squareIsReady = false;

/** Begins a new hash under the 16-byte key at `key`. */
export function polyvalStart(key: usize): void {
  v128.store(POLYVAL_STATE, i64x2.splat(0));
  v128.store(POLYVAL_KEY, v128.load(key));
  squareIsReady = false;
  makeTables(POLYVAL_TABLES, v128.load(key));
}

/** 64 KiB of tables at `tables`, to multiply by `factor`. */
function makeTables(tables: usize, factor: v128): void {
  let low = v128.extract_lane<u64>(factor, 0);
  let high = v128.extract_lane<u64>(factor, 1);
  for (let bit: i32 = 127; bit >= 0; bit--) {
    // Divide by x: shift right, and a coefficient of x^0 becomes x^-1 = x^127 + x^126 + x^125 + x^120.
    const carry = 0 - (low & 1);
    low = (low >> 1) | (high << 63);
    high = (high >> 1) ^ (carry & 0xe100000000000000);
    const entry = tables + <usize>(bit >> 3) * POLYVAL_TABLE_BYTES + (<usize>16 << (bit & 7));
    store<u64>(entry, low);
    store<u64>(entry, high, 8);
  }
  // The entries of single bits are there; every other one is a sum of two smaller ones.
  for (let table = tables; table < tables + 16 * POLYVAL_TABLE_BYTES; table += POLYVAL_TABLE_BYTES) {
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
  // The byte's value times 16, in two operations.
  const entry = (byte == 0 ? word << 4 : word >> (8 * byte - 4)) & 0xff0;
  return v128.load(table + <usize>entry);
}

/** `sum` times what the tables at the constant `tables` are for. */
// @ts-ignore: a decorator on a function
@inline
function multiply(sum: v128, tables: usize): v128 {
  const low = v128.extract_lane<u64>(sum, 0);
  const high = v128.extract_lane<u64>(sum, 1);
  const a = v128.xor(
    v128.xor(look(low, 0, tables), look(low, 1, tables + 0x1000)),
    v128.xor(look(low, 2, tables + 0x2000), look(low, 3, tables + 0x3000)),
  );
  const b = v128.xor(
    v128.xor(look(low, 4, tables + 0x4000), look(low, 5, tables + 0x5000)),
    v128.xor(look(low, 6, tables + 0x6000), look(low, 7, tables + 0x7000)),
  );
  const c = v128.xor(
    v128.xor(look(high, 0, tables + 0x8000), look(high, 1, tables + 0x9000)),
    v128.xor(look(high, 2, tables + 0xa000), look(high, 3, tables + 0xb000)),
  );
  const d = v128.xor(
    v128.xor(look(high, 4, tables + 0xc000), look(high, 5, tables + 0xd000)),
    v128.xor(look(high, 6, tables + 0xe000), look(high, 7, tables + 0xf000)),
  );
  return v128.xor(v128.xor(a, b), v128.xor(c, d));
}

/** Decrypts the block at offset `at` of the three buffers and returns it. */
// @ts-ignore: a decorator on a function
@inline
function decryptBlock(ciphertext: usize, keystream: usize, plain: usize, at: usize): v128 {
  const block = v128.xor(v128.load(ciphertext + at), v128.load(keystream + at));
  v128.store(plain + at, block);
  return block;
}

/**
 * Writes the XOR of `bytes` bytes at `ciphertext` and `keystream` to `plain` and adds that to the hash. A last block that
 * is not whole counts as padded with zeroes, and its neighbours in memory do not matter.
 */
export function polyvalDecrypt(ciphertext: usize, keystream: usize, plain: usize, bytes: usize): void {
  const whole = bytes & ~15;
  let state = v128.load(POLYVAL_STATE);
  let at: usize = 0;
  if (whole >= INTERLEAVED_BYTES_MIN) {
    if (!squareIsReady) {
      makeTables(POLYVAL_SQUARE_TABLES, multiply(v128.load(POLYVAL_KEY), POLYVAL_TABLES));
      squareIsReady = true;
    }
    let second = i64x2.splat(0);
    const lastPair = (whole & ~31) - 32;
    for (; at < lastPair; at += 32) {
      state = multiply(v128.xor(state, decryptBlock(ciphertext, keystream, plain, at)), POLYVAL_SQUARE_TABLES);
      second = multiply(v128.xor(second, decryptBlock(ciphertext, keystream, plain, at + 16)), POLYVAL_SQUARE_TABLES);
    }
    state = multiply(v128.xor(state, decryptBlock(ciphertext, keystream, plain, at)), POLYVAL_SQUARE_TABLES);
    second = multiply(v128.xor(second, decryptBlock(ciphertext, keystream, plain, at + 16)), POLYVAL_TABLES);
    state = v128.xor(state, second);
    at += 32;
  }
  for (; at < whole; at += 16) {
    state = multiply(v128.xor(state, decryptBlock(ciphertext, keystream, plain, at)), POLYVAL_TABLES);
  }
  if (whole != bytes) {
    v128.store(POLYVAL_BLOCK, i64x2.splat(0));
    for (; at < bytes; at++) {
      const byte = load<u8>(ciphertext + at) ^ load<u8>(keystream + at);
      store<u8>(plain + at, byte);
      store<u8>(POLYVAL_BLOCK + at - whole, byte);
    }
    state = multiply(v128.xor(state, v128.load(POLYVAL_BLOCK)), POLYVAL_TABLES);
  }
  v128.store(POLYVAL_STATE, state);
}

/** Adds the 16-byte block at `block`. */
export function polyvalBlock(block: usize): void {
  v128.store(POLYVAL_STATE, multiply(v128.xor(v128.load(POLYVAL_STATE), v128.load(block)), POLYVAL_TABLES));
}
