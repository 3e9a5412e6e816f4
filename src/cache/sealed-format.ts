/**
 * A sealed file: written once, from beginning to end; read in any order; no byte of it is used unauthenticated.
 *
 *   header, 64 bytes     magic, version, protection, segment size, salt
 *   segment 0 .. n-1     data ‖ tag (16); all but the last hold exactly the segment size, there is always one
 *
 * The file's key is HKDF-SHA256 of the store's key with the salt, 32 bytes, random unless one name stands for the same
 * bytes for ever; the header's other fields and the file's name go in as its purpose. So each key encrypts one file, a changed header gives another key, and a file under
 * another's name, or another store's, opens nothing. A segment is AES-256-GCM under that key: its nonce is its number
 * and whether it is the last, so that none can be moved, left out or cut off behind. Of plaintext stores the data stays
 * readable, as it is in the store: it is what is authenticated (GMAC), and nothing is encrypted.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto';
import { bytes, struct, u32 } from '../core/struct.ts';
import { CacheDamagedError } from './errors.ts';

export const SEAL_MAGIC = 'KNBDSEAL';
export const SEAL_VERSION = 1;
export const TAG_BYTES = 16;
export const SALT_BYTES = 32;

/** What a file's segments have besides their tag. Numbers on disk: append only. */
export const protections = { authenticated: 1, encrypted: 2 } as const;
export type Protection = (typeof protections)[keyof typeof protections];

export const sealHeader = struct('sealed file', 'le', 64, [
  ['magic', bytes(8)],
  ['version', u32],
  ['protection', u32],
  ['segmentBytes', u32],
  ['salt', bytes(SALT_BYTES), { at: 32 }],
]);

/** Where the keys of sealed files come from, and what they are for. */
export interface SealKeys {
  readonly protection: Protection;
  /** The key for a purpose and a salt: another one for each pair. */
  derive(purpose: string, salt: Uint8Array): KeyObject;
}

/** What, besides the salt, a file's key depends on. */
export function sealPurpose(name: string, segmentBytes: number, protection: Protection): string {
  return `sealed file ${SEAL_VERSION} ${protection} ${segmentBytes} ${name}`;
}

/** One file's segments, sealed and opened in memory. */
export class SegmentCipher {
  readonly #key: KeyObject;
  readonly #protection: Protection;

  constructor(key: KeyObject, protection: Protection) {
    this.#key = key;
    this.#protection = protection;
  }

  /** What is to be stored for a segment: its data, the same buffer where nothing is encrypted, and its tag. */
  seal(data: Uint8Array, index: number, isLast: boolean): { stored: Uint8Array; tag: Uint8Array } {
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(index, isLast));
    const isEncrypted = this.#protection === protections.encrypted;
    if (!isEncrypted) cipher.setAAD(data);
    const stored = isEncrypted ? cipher.update(data) : data;
    cipher.final();
    return { stored, tag: cipher.getAuthTag() };
  }

  /** The data of a stored segment, the same buffer where nothing is encrypted. Throws CacheDamagedError. */
  open(stored: Uint8Array, tag: Uint8Array, index: number, isLast: boolean): Uint8Array {
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonceOf(index, isLast), { authTagLength: TAG_BYTES });
    decipher.setAuthTag(tag);
    const isEncrypted = this.#protection === protections.encrypted;
    if (!isEncrypted) decipher.setAAD(stored);
    const data = isEncrypted ? decipher.update(stored) : stored;
    try {
      decipher.final();
    } catch (cause) {
      throw new CacheDamagedError(`its segment ${index} is not what was written`, { cause });
    }
    return data;
  }
}

function nonceOf(index: number, isLast: boolean): Uint8Array {
  const nonce = new Uint8Array(12);
  const view = new DataView(nonce.buffer);
  view.setUint32(0, index, true);
  view.setUint32(8, isLast ? 1 : 0, true);
  return nonce;
}

/** What a file is sealed as. */
export interface Seal {
  readonly name: string;
  readonly segmentBytes: number;
  readonly keys: SealKeys;
  /** For names that stand for the same bytes for ever; default: a random one. */
  readonly salt?: Uint8Array;
}

/** A new sealed file's header, with a salt of its own, and what seals its segments. */
export function beginSeal(seal: Seal): { header: Uint8Array; cipher: SegmentCipher } {
  const { name, segmentBytes, keys, salt = randomBytes(SALT_BYTES) } = seal;
  const { protection } = keys;
  const magic = Buffer.from(SEAL_MAGIC);
  const header = sealHeader.encode({ magic, version: SEAL_VERSION, protection, segmentBytes, salt });
  const key = keys.derive(sealPurpose(name, segmentBytes, protection), salt);
  return { header, cipher: new SegmentCipher(key, protection) };
}
