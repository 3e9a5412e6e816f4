/**
 * Bytes at rest, encrypted and authenticated: AES-256-GCM (NIST SP 800-38D) under one key, with nonces that are counted,
 * so that no two things one object seals ever share one. That holds as long as a key has one object that seals, for
 * ever: keys for sealing are made from fresh random bytes and never read back to seal with (`forSealing`).
 *
 * What was sealed is SEAL_BYTES longer:
 *
 *   ciphertext, as long as the plain text
 *   u64 counter, little-endian: the nonce is four zero bytes and this
 *   16 bytes authentication tag
 */
import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { assert } from './errors.ts';

const ALGORITHM = 'aes-256-gcm';
const NONCE_BYTES = 12;
const COUNTER_BYTES = 8;
const TAG_BYTES = 16;
export const SEAL_BYTES = COUNTER_BYTES + TAG_BYTES;

export class Sealer {
  readonly #key: KeyObject;
  readonly #forSealing: boolean;
  #sealed = 0n;
  /** Made anew for each value it would be a buffer with memory of its own: the collector has enough of these from ciphers. */
  readonly #nonce = Buffer.alloc(NONCE_BYTES);

  private constructor(key: KeyObject, forSealing: boolean) {
    this.#key = key;
    this.#forSealing = forSealing;
  }

  /** `key`: 256 bits that nobody else seals with, made a moment ago from fresh random bytes. */
  static forSealing(key: KeyObject): Sealer {
    return new Sealer(key, true);
  }

  /** Opens what another object sealed under `key`. */
  static forOpening(key: KeyObject): Sealer {
    return new Sealer(key, false);
  }

  /** Writes `plain`, sealed, to the front of `target`, which does not overlap it. `context` is authenticated, not stored. */
  seal(plain: Uint8Array, context: Uint8Array, target: Buffer): void {
    assert(this.#forSealing, 'a key that was read from a file seals nothing more');
    const nonce = this.#nonce;
    nonce.writeBigUInt64LE(++this.#sealed, NONCE_BYTES - COUNTER_BYTES);
    const cipher = createCipheriv(ALGORITHM, this.#key, nonce).setAAD(context);
    target.set(cipher.update(plain));
    cipher.final();
    target.set(nonce.subarray(NONCE_BYTES - COUNTER_BYTES), plain.length);
    target.set(cipher.getAuthTag(), plain.length + COUNTER_BYTES);
  }

  /** Fills `target` with what was sealed; false if that was something else, and then `target` holds nothing of meaning. */
  open(sealed: Uint8Array, context: Uint8Array, target: Uint8Array): boolean {
    if (sealed.length !== target.length + SEAL_BYTES) return false;
    const nonce = this.#nonce;
    nonce.set(sealed.subarray(target.length, target.length + COUNTER_BYTES), NONCE_BYTES - COUNTER_BYTES);
    const decipher = createDecipheriv(ALGORITHM, this.#key, nonce, { authTagLength: TAG_BYTES }).setAAD(context);
    decipher.setAuthTag(sealed.subarray(target.length + COUNTER_BYTES));
    target.set(decipher.update(sealed.subarray(0, target.length)));
    try {
      decipher.final();
      return true;
    } catch {
      return false; // The one thing it can say: the tag does not match.
    }
  }
}
