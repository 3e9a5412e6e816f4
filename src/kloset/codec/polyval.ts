/**
 * POLYVAL (RFC 8452, 3): the universal hash of AES-GCM-SIV. Field elements of GF(2^128) are 16 bytes; bit i of the
 * little-endian number is the coefficient of x^i, modulo x^128 + x^127 + x^126 + x^121 + 1.
 *
 * One step is `state = (state + block) · H · x^-128`. It is linear in the bits of the sum, so 16 tables, one a byte of
 * it, hold the product for each value of that byte: 16 look-ups a block. Bit i contributes H · x^(i - 128), that is
 * H divided by x (128 - i) times. The WebAssembly kernel has a twin of this file.
 *
 * Look-ups by secret bytes can leak through the processor's cache to other programs on the machine. Who can run those
 * on a backup server's core can read the server's memory by simpler means; the keys never leave that machine.
 */
import { assert } from '../../core/errors.ts';
import { xor } from './counter-mode.ts';
import type { PolyvalKernel } from './kernels.ts';

const BLOCK_BYTES = 16;
/** Words of a field element. */
const WORDS = 4;
const TABLE_WORDS = 256 * WORDS;

/** POLYVAL under one key at a time; reused, since its tables take 64 KiB. */
export class Polyval implements PolyvalKernel {
  /** Entry `value` of table `position` begins at word (256 · position + value) · 4. */
  readonly #tables = new Int32Array(BLOCK_BYTES * TABLE_WORDS);
  readonly #state = new Int32Array(WORDS);

  start(key: Uint8Array): void {
    assert(key.byteLength === BLOCK_BYTES, 'a POLYVAL key has 16 bytes');
    this.#state.fill(0);
    let [a, b, c, d] = [readU32(key, 0), readU32(key, 4), readU32(key, 8), readU32(key, 12)];
    const tables = this.#tables;
    for (let bit = 127; bit >= 0; bit--) {
      // Divide by x: shift right, and a coefficient of x^0 becomes x^-1 = x^127 + x^126 + x^125 + x^120.
      const carry = a & 1;
      a = (a >>> 1) | (b << 31);
      b = (b >>> 1) | (c << 31);
      c = (c >>> 1) | (d << 31);
      d = (d >>> 1) ^ (carry === 0 ? 0 : 0xe1000000);
      const at = (bit >>> 3) * TABLE_WORDS + (1 << (bit & 7)) * WORDS;
      tables[at] = a;
      tables[at + 1] = b;
      tables[at + 2] = c;
      tables[at + 3] = d;
    }
    // The entries of single bits are there; every other one is a sum of two smaller ones.
    for (let table = 0; table < tables.length; table += TABLE_WORDS) {
      for (let high = 2 * WORDS; high < TABLE_WORDS; high *= 2) {
        for (let low = WORDS; low < high; low++) {
          tables[table + high + low] = tables[table + high + (low & 3)]! ^ tables[table + low]!;
        }
      }
    }
  }

  decrypt(ciphertext: Uint8Array, keystream: Uint8Array, plain: Uint8Array): void {
    xor(ciphertext, keystream, plain);
    this.#update(plain);
  }

  block(block: Uint8Array): void {
    this.#update(block);
  }

  digest(): Uint8Array {
    const digest = new Uint8Array(BLOCK_BYTES);
    const view = new DataView(digest.buffer);
    for (const [index, word] of this.#state.entries()) view.setUint32(4 * index, word, true);
    return digest;
  }

  /** A last block that is not whole is padded with zeroes. */
  #update(data: Uint8Array): void {
    const whole = data.byteLength - (data.byteLength % BLOCK_BYTES);
    this.#updateBlocks(data, whole);
    if (whole === data.byteLength) return;
    const padded = new Uint8Array(BLOCK_BYTES);
    padded.set(data.subarray(whole));
    this.#updateBlocks(padded, BLOCK_BYTES);
  }

  /** Adds the first `bytes` bytes, whole blocks. */
  #updateBlocks(data: Uint8Array, bytes: number): void {
    const tables = this.#tables;
    const state = this.#state;
    let [a, b, c, d] = [state[0]!, state[1]!, state[2]!, state[3]!];
    for (let at = 0; at < bytes; at += BLOCK_BYTES) {
      const sum0 = a ^ readU32(data, at);
      const sum1 = b ^ readU32(data, at + 4);
      const sum2 = c ^ readU32(data, at + 8);
      const sum3 = d ^ readU32(data, at + 12);
      a = b = c = d = 0;
      for (let byte = 0; byte < 4; byte++) {
        const shift = 8 * byte;
        const entry0 = (256 * byte + ((sum0 >>> shift) & 255)) * WORDS;
        const entry1 = (256 * (4 + byte) + ((sum1 >>> shift) & 255)) * WORDS;
        const entry2 = (256 * (8 + byte) + ((sum2 >>> shift) & 255)) * WORDS;
        const entry3 = (256 * (12 + byte) + ((sum3 >>> shift) & 255)) * WORDS;
        a ^= tables[entry0]! ^ tables[entry1]! ^ tables[entry2]! ^ tables[entry3]!;
        b ^= tables[entry0 + 1]! ^ tables[entry1 + 1]! ^ tables[entry2 + 1]! ^ tables[entry3 + 1]!;
        c ^= tables[entry0 + 2]! ^ tables[entry1 + 2]! ^ tables[entry2 + 2]! ^ tables[entry3 + 2]!;
        d ^= tables[entry0 + 3]! ^ tables[entry1 + 3]! ^ tables[entry2 + 3]! ^ tables[entry3 + 3]!;
      }
    }
    state[0] = a;
    state[1] = b;
    state[2] = c;
    state[3] = d;
  }
}

function readU32(data: Uint8Array, at: number): number {
  return data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
}
