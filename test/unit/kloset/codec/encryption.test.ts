/** Wrapped subkeys and the lengths of encrypted values (kloset-format.md 5.2). */
import { createSecretKey } from 'node:crypto';
import { gcmsiv } from '@noble/ciphers/aes.js';
import { describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../../../src/core/errors.ts';
import { toHex } from '../../../../src/core/mac.ts';
import { createDecryptor } from '../../../../src/kloset/codec/encryption.ts';
import { createTypescriptKernels } from '../../../../src/kloset/codec/kernels.ts';
import { encryptValue, randomBytesOf } from './store-writer.ts';

function decryptorWith(key: Uint8Array, subKeyAlgorithm: 'AES256-KW' | 'AES256-GCM', segmentBytes = 1024) {
  const parameters = { subKeyAlgorithm, dataAlgorithm: 'AES256-GCM-SIV', segmentBytes } as const;
  return createDecryptor({ ...parameters, key: createSecretKey(key) }, createTypescriptKernels());
}

test('the key wrap of RFC 3394, 4.6: 256 bits of key data under 256 bits', () => {
  const wrappingKey = Buffer.from('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'hex');
  const subkey = Buffer.from('00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f', 'hex');
  const wrapped = Buffer.from(
    '28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21',
    'hex',
  );
  const nonce = randomBytesOf(1, 12);
  const value = Buffer.concat([wrapped, nonce, gcmsiv(subkey, nonce).encrypt(Buffer.from('opened'))]);
  const plain = new Uint8Array(6);
  decryptorWith(wrappingKey, 'AES256-KW').decryptInto(value, plain);
  expect(Buffer.from(plain).toString()).toBe('opened');
});

describe.each([
  { subKeyAlgorithm: 'AES256-KW', wrappedBytes: 40 },
  { subKeyAlgorithm: 'AES256-GCM', wrappedBytes: 60 },
] as const)('$subKeyAlgorithm', ({ subKeyAlgorithm, wrappedBytes }) => {
  const key = randomBytesOf(2, 32);
  const decryptor = decryptorWith(key, subKeyAlgorithm);

  test('overhead: the subkey and 28 bytes a segment; an empty value has none', () => {
    for (const plainBytes of [0, 1, 1023, 1024, 1025, 2048, 14022]) {
      const plain = randomBytesOf(plainBytes, plainBytes);
      const value = encryptValue(plain, { key, subKeyAlgorithm, segmentBytes: 1024 });
      expect(value.byteLength).toBe(wrappedBytes + 28 * Math.ceil(plainBytes / 1024) + plainBytes);
      expect(decryptor.plainBytes(value)).toBe(plainBytes);
      const decrypted = new Uint8Array(plainBytes);
      decryptor.decryptInto(value, decrypted);
      expect(toHex(decrypted)).toBe(toHex(plain));
    }
  });

  test('lengths that no value has', () => {
    const impossible = [0, wrappedBytes - 1, wrappedBytes + 1, wrappedBytes + 28, wrappedBytes + 1024 + 28 + 28];
    for (const bytes of impossible) {
      expect(() => decryptor.plainBytes(new Uint8Array(bytes)), `${bytes} bytes`).toThrow(CorruptStoreError);
    }
  });

  test('a subkey with any one bit changed does not unwrap, even if nothing follows it', () => {
    const value = encryptValue(new Uint8Array(0), { key, subKeyAlgorithm, segmentBytes: 1024 });
    for (let bit = 0; bit < 8 * value.byteLength; bit++) {
      const changed = Buffer.from(value);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => decryptor.decryptInto(changed, new Uint8Array(0)), `bit ${bit}`).toThrow(CorruptStoreError);
    }
  });
});
