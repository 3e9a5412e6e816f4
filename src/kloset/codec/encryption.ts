/**
 * Encrypted values (kloset-format.md 5.2): a wrapped 32-byte subkey, made for this value alone, then segments
 * `nonce 12 | ciphertext | tag 16` of `segmentBytes` plain bytes each but the last. Nothing marks the last one: a value
 * cut between segments shows by its length or its MAC only, which callers verify.
 */
import { createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import { CorruptStoreError, UnsupportedError } from '../../core/errors.ts';
import { GcmSivDecryptor, NONCE_BYTES, TAG_BYTES, type Tags } from './gcm-siv.ts';
import type { Kernels } from './kernels.ts';

/** The Encryption of CONFIG, as far as values are concerned, and the derived key. */
export interface EncryptionParameters {
  readonly subKeyAlgorithm: 'AES256-KW' | 'AES256-GCM';
  readonly dataAlgorithm: 'AES256-GCM-SIV';
  /** Plain bytes of every segment but the last: `ChunkSize` of CONFIG's Encryption. */
  readonly segmentBytes: number;
  /** 32 bytes: the derived key. */
  readonly key: KeyObject;
}

/** Default initial value of RFC 3394, 2.2.3.1: what unwrapping must bring out again. */
const KEY_WRAP_IV = Buffer.alloc(8, 0xa6);
const GCM_NONCE_BYTES = 12;
const GCM_TAG_BYTES = 16;
const KEY_BYTES = 32;
const wrappedBytes = { 'AES256-KW': KEY_BYTES + 8, 'AES256-GCM': GCM_NONCE_BYTES + KEY_BYTES + GCM_TAG_BYTES } as const;
const SEGMENT_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES;

export interface Decryptor {
  /** Plain bytes of an encrypted value, from its length. Throws CorruptStoreError if no value has that length. */
  plainBytes(encrypted: Uint8Array): number;
  /**
   * Decrypts into all of `plain`, which has `plainBytes(encrypted)` bytes. Throws CorruptStoreError if the key does not
   * fit or anything was changed; `plain` must not be used then. Where tags are skipped the caller has to verify `plain`.
   */
  decryptInto(encrypted: Uint8Array, plain: Uint8Array, options?: { tags: Tags }): void;
}

/** Throws UnsupportedError for algorithms and segment sizes that are not read. */
export function createDecryptor(parameters: EncryptionParameters, kernels: Kernels): Decryptor {
  const { subKeyAlgorithm, segmentBytes, key } = parameters;
  if (parameters.dataAlgorithm !== 'AES256-GCM-SIV' || !Object.hasOwn(wrappedBytes, subKeyAlgorithm)) {
    throw new UnsupportedError(`encryption ${parameters.dataAlgorithm} with subkeys ${subKeyAlgorithm} is not read`);
  }
  if (!Number.isSafeInteger(segmentBytes) || segmentBytes < 1) {
    throw new UnsupportedError(`encrypted segments of ${segmentBytes} bytes are not read`);
  }
  const segmentStride = segmentBytes + SEGMENT_OVERHEAD_BYTES;
  const headBytes = wrappedBytes[subKeyAlgorithm];
  const gcmSiv = new GcmSivDecryptor(kernels);

  const plainBytes = (encrypted: Uint8Array) => {
    const bodyBytes = encrypted.byteLength - headBytes;
    const segments = Math.ceil(bodyBytes / segmentStride);
    const lastBytes = bodyBytes - (segments - 1) * segmentStride;
    // An empty value has no segment at all, so none is ever empty.
    if (bodyBytes < 0 || (segments > 0 && lastBytes <= SEGMENT_OVERHEAD_BYTES)) {
      throw new CorruptStoreError('an encrypted value is cut short');
    }
    return bodyBytes - segments * SEGMENT_OVERHEAD_BYTES;
  };
  return {
    plainBytes,
    decryptInto(encrypted, plain, options) {
      const subkey = unwrap(subKeyAlgorithm, key, encrypted.subarray(0, headBytes));
      const cipher = gcmSiv.openKey(createSecretKey(subkey));
      let to = 0;
      for (let from = headBytes; from < encrypted.byteLength; from += segmentStride) {
        const segment = encrypted.subarray(from, from + segmentStride);
        const end = to + segment.byteLength - SEGMENT_OVERHEAD_BYTES;
        gcmSiv.decryptInto(cipher, segment, plain.subarray(to, end), options);
        to = end;
      }
    },
  };
}

function unwrap(algorithm: EncryptionParameters['subKeyAlgorithm'], key: KeyObject, wrapped: Uint8Array): Buffer {
  try {
    if (algorithm === 'AES256-KW') {
      const decipher = createDecipheriv('id-aes256-wrap', key, KEY_WRAP_IV);
      return Buffer.concat([decipher.update(wrapped), decipher.final()]);
    }
    const decipher = createDecipheriv('aes-256-gcm', key, wrapped.subarray(0, GCM_NONCE_BYTES), {
      authTagLength: GCM_TAG_BYTES,
    });
    decipher.setAuthTag(wrapped.subarray(GCM_NONCE_BYTES + KEY_BYTES));
    const encrypted = wrapped.subarray(GCM_NONCE_BYTES, GCM_NONCE_BYTES + KEY_BYTES);
    return Buffer.concat([decipher.update(encrypted), decipher.final()]);
  } catch (cause) {
    throw new CorruptStoreError('the subkey of an encrypted value does not unwrap', { cause });
  }
}
