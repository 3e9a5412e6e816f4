/**
 * AES-256-GCM-SIV decryption (RFC 8452, 5), as a store's segments use it: no associated data. Node's ciphers do the AES
 * in hardware, POLYVAL is ours:
 *
 *   record keys = AES-ECB(key, LE32(0..5) | nonce), the first 8 bytes of each: 2 for authentication, 4 for encryption
 *   keystream   = AES-ECB(encryption key, counter blocks); the first is the tag with the top bit of byte 15 set
 *   tag         = AES-ECB(encryption key, POLYVAL(plain, padded | LE64(0) | LE64(plain bits)) ^ nonce, top bit cleared)
 *
 * AES-CTR cannot make the keystream: it counts big-endian, over all 16 bytes, while this counter is the first four bytes
 * of its block, little-endian, and wraps without a carry.
 */
import { createCipheriv, type KeyObject, timingSafeEqual } from 'node:crypto';
import { CorruptStoreError } from '../../core/errors.ts';
import { KiB } from '../../core/units.ts';
import type { Kernels } from './kernels.ts';

/** A key ready for use: AES-256 in ECB mode without padding. */
export type AesEcb = ReturnType<typeof aesEcb>;

/** Computing a tag takes as long as all the rest: wasted where a keyed MAC is verified over the same bytes. */
export type Tags = 'verify' | 'skip';

export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
const BLOCK_BYTES = 16;
const DERIVED_BLOCKS = 6;
/** Bytes decrypted at a time: two buffers of this size stay in the processor's second-level cache. */
const PIECE_BYTES = 64 * KiB;

/** Decrypts messages under one kernel set; holds scratch memory, so one a thread. */
export class GcmSivDecryptor {
  readonly #kernels: Kernels;
  readonly #derivation = new Uint8Array(DERIVED_BLOCKS * BLOCK_BYTES);

  constructor(kernels: Kernels) {
    this.#kernels = kernels;
    for (let block = 0; block < DERIVED_BLOCKS; block++) this.#derivation[block * BLOCK_BYTES] = block;
  }

  /** The key under which many messages are decrypted; 32 bytes. */
  openKey(key: KeyObject): AesEcb {
    return aesEcb(key);
  }

  /**
   * Decrypts `message` (nonce 12 | ciphertext | tag 16) into all of `plain`, which has its length less 28. Throws
   * CorruptStoreError if the tag does not match; `plain` must not be used then. Where tags are skipped whatever was changed
   * makes other plain bytes, and it is the caller who has to find that.
   */
  decryptInto(
    key: AesEcb,
    message: Uint8Array,
    plain: Uint8Array,
    { tags }: { tags: Tags } = { tags: 'verify' },
  ): void {
    const nonce = message.subarray(0, NONCE_BYTES);
    const ciphertext = message.subarray(NONCE_BYTES, message.byteLength - TAG_BYTES);
    const tag = message.subarray(message.byteLength - TAG_BYTES);
    const { authenticationKey, encryption } = this.#deriveKeys(key, nonce);
    const { polyval, counters, xor } = this.#kernels;
    const isVerified = tags === 'verify';

    if (isVerified) polyval.start(authenticationKey);
    const firstBlock = new Uint8Array(tag);
    firstBlock[15]! |= 0x80;
    let counter = new DataView(firstBlock.buffer).getUint32(0, true);
    for (let at = 0; at < ciphertext.byteLength; at += PIECE_BYTES) {
      const end = Math.min(at + PIECE_BYTES, ciphertext.byteLength);
      const blocks = Math.ceil((end - at) / BLOCK_BYTES);
      const keystream = encryption.update(counters(firstBlock, counter, blocks));
      const piece = plain.subarray(at, end);
      if (isVerified) polyval.decrypt(ciphertext.subarray(at, end), keystream, piece);
      else xor(ciphertext.subarray(at, end), keystream.subarray(0, end - at), piece);
      counter += blocks;
    }
    if (!isVerified) return;

    const lengths = new Uint8Array(BLOCK_BYTES);
    new DataView(lengths.buffer).setBigUint64(8, 8n * BigInt(ciphertext.byteLength), true);
    polyval.block(lengths);
    const digest = polyval.digest();
    for (let at = 0; at < NONCE_BYTES; at++) digest[at]! ^= nonce[at]!;
    digest[15]! &= 0x7f;
    if (!timingSafeEqual(encryption.update(digest), tag)) {
      throw new CorruptStoreError('an encrypted segment does not match its tag');
    }
  }

  #deriveKeys(key: AesEcb, nonce: Uint8Array): { authenticationKey: Uint8Array; encryption: AesEcb } {
    for (let block = 0; block < DERIVED_BLOCKS; block++) this.#derivation.set(nonce, block * BLOCK_BYTES + 4);
    const encrypted = key.update(this.#derivation);
    const keys = new Uint8Array(DERIVED_BLOCKS * 8);
    for (let block = 0; block < DERIVED_BLOCKS; block++) {
      keys.set(encrypted.subarray(block * BLOCK_BYTES, block * BLOCK_BYTES + 8), block * 8);
    }
    return {
      authenticationKey: keys.subarray(0, 16),
      encryption: aesEcb(keys.subarray(16)),
    };
  }
}

function aesEcb(key: KeyObject | Uint8Array) {
  return createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
}
