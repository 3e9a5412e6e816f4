/** AES-256-GCM-SIV against RFC 8452 and @noble/ciphers, with each set of kernels. */
import { createCipheriv, createSecretKey } from 'node:crypto';
import { gcmsiv } from '@noble/ciphers/aes.js';
import { describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../../../src/core/errors.ts';
import { toHex } from '../../../../src/core/mac.ts';
import { GcmSivDecryptor, type Tags } from '../../../../src/kloset/codec/gcm-siv.ts';
import { createKernels, type KernelChoice } from '../../../../src/kloset/codec/kernels.ts';
import { randomBytesOf } from './store-writer.ts';

const OVERHEAD_BYTES = 28;

/** RFC 8452: name, key, nonce, plain, ciphertext and tag. Those without associated data, which segments never have. */
const rfc8452: readonly [string, string, string, string, string][] = [
  [
    'C.2, empty',
    '0100000000000000000000000000000000000000000000000000000000000000',
    '030000000000000000000000',
    '',
    '07f5f4169bbf55a8400cd47ea6fd400f',
  ],
  [
    'C.2, 8 bytes',
    '0100000000000000000000000000000000000000000000000000000000000000',
    '030000000000000000000000',
    '0100000000000000',
    'c2ef328e5c71c83b843122130f7364b761e0b97427e3df28',
  ],
  [
    'C.2, 12 bytes',
    '0100000000000000000000000000000000000000000000000000000000000000',
    '030000000000000000000000',
    '010000000000000000000000',
    '9aab2aeb3faa0a34aea8e2b18ca50da9ae6559e48fd10f6e5c9ca17e',
  ],
  [
    'C.2, 16 bytes',
    '0100000000000000000000000000000000000000000000000000000000000000',
    '030000000000000000000000',
    '01000000000000000000000000000000',
    '85a01b63025ba19b7fd3ddfc033b3e76c9eac6fa700942702e90862383c6c366',
  ],
  [
    'C.2, 32 bytes',
    '0100000000000000000000000000000000000000000000000000000000000000',
    '030000000000000000000000',
    '0100000000000000000000000000000002000000000000000000000000000000',
    '4a6a9db4c8c6549201b9edb53006cba821ec9cf850948a7c86c68ac7539d027fe819e63abcd020b006a976397632eb5d',
  ],
  [
    'C.3, counter wrap, 1',
    '0000000000000000000000000000000000000000000000000000000000000000',
    '000000000000000000000000',
    '000000000000000000000000000000004db923dc793ee6497c76dcc03a98e108',
    'f3f80f2cf0cb2dd9c5984fcda908456cc537703b5ba70324a6793a7bf218d3eaffffffff000000000000000000000000',
  ],
  [
    'C.3, counter wrap, 2',
    '0000000000000000000000000000000000000000000000000000000000000000',
    '000000000000000000000000',
    'eb3640277c7ffd1303c7a542d02d3e4c0000000000000000',
    '18ce4f0b8cb4d0cac65fea8f79257b20888e53e72299e56dffffffff000000000000000000000000',
  ],
];

const kernelChoices: readonly KernelChoice[] = ['typescript', 'webassembly'];

describe.each(kernelChoices)('with %s kernels', (choice) => {
  /** The plain bytes of `nonce | sealed`, or what decryption threw with the bytes that were there by then. */
  async function open(
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    tags: Tags = 'verify',
  ): Promise<{ plain: Uint8Array; error?: unknown }> {
    const decryptor = new GcmSivDecryptor(await createKernels(choice));
    const message = Buffer.concat([nonce, sealed]);
    const plain = new Uint8Array(message.byteLength - OVERHEAD_BYTES);
    try {
      decryptor.decryptInto(decryptor.openKey(createSecretKey(key)), message, plain, { tags });
      return { plain };
    } catch (error) {
      return { plain, error };
    }
  }

  test.each(rfc8452)('RFC 8452 %s', async (_, key, nonce, plain, sealed) => {
    const opened = await open(hex(key), hex(nonce), hex(sealed));
    expect(opened.error).toBeUndefined();
    expect(toHex(opened.plain)).toBe(plain);
  });

  test('agrees with @noble/ciphers at every length up to 100 bytes and around pieces of 64 KiB', async () => {
    const lengths = [...Array(100).keys(), 65519, 65520, 65535, 65536, 65537, 65552, 131072, 200_001];
    for (const [index, length] of lengths.entries()) {
      const key = randomBytesOf(index, 32);
      const nonce = randomBytesOf(index + 1, 12);
      const plain = randomBytesOf(index + 2, length);
      const opened = await open(key, nonce, gcmsiv(key, nonce).encrypt(plain));
      expect(opened.error).toBeUndefined();
      expect(Buffer.compare(opened.plain, plain), `${length} bytes`).toBe(0);
      const unverified = await open(key, nonce, gcmsiv(key, nonce).encrypt(plain), 'skip');
      expect(Buffer.compare(unverified.plain, plain), `${length} bytes, tag skipped`).toBe(0);
    }
  });

  test('the counter wraps at 2^32 without a carry, within a piece and between two', async () => {
    // Tags that begin near 2^32 are rare, so this one is made up: decryption fails, but its keystream was used by then.
    const key = randomBytesOf(5, 32);
    const nonce = randomBytesOf(6, 12);
    for (const blocksBeforeWrap of [1, 100, 4095, 4096, 4097, 9000]) {
      const tag = Buffer.from(randomBytesOf(7, 16));
      tag.writeUInt32LE(2 ** 32 - blocksBeforeWrap, 0);
      const opened = await open(key, nonce, Buffer.concat([new Uint8Array(160_000), tag]));
      expect(opened.error).toBeInstanceOf(CorruptStoreError);
      expect(Buffer.compare(opened.plain, keystreamOf(key, nonce, tag, 160_000))).toBe(0);
    }
  });

  test('refuses a message with any one bit changed', async () => {
    const key = randomBytesOf(8, 32);
    const nonce = randomBytesOf(9, 12);
    const plain = randomBytesOf(10, 37);
    const message = Buffer.concat([nonce, gcmsiv(key, nonce).encrypt(plain)]);
    for (let bit = 0; bit < 8 * message.byteLength; bit++) {
      const changed = Buffer.from(message);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      const opened = await open(key, changed.subarray(0, 12), changed.subarray(12));
      expect(opened.error, `bit ${bit}`).toBeInstanceOf(CorruptStoreError);
      const unverified = await open(key, changed.subarray(0, 12), changed.subarray(12), 'skip');
      expect(unverified.error).toBeUndefined();
      // Of the tag's last bit no plain byte depends: only the tag itself tells.
      const isLast = bit === 8 * message.byteLength - 1;
      expect(Buffer.compare(unverified.plain, plain) === 0, `bit ${bit}, tag skipped`).toBe(isLast);
    }
  });
});

/** RFC 8452, 4 and 5, one block at a time. */
function keystreamOf(key: Uint8Array, nonce: Uint8Array, tag: Buffer, length: number): Buffer {
  const ecb = (under: Uint8Array, block: Uint8Array) =>
    createCipheriv('aes-256-ecb', under, null).setAutoPadding(false).update(block);
  const derived = [2, 3, 4, 5].map((index) => ecb(key, Buffer.concat([Buffer.from([index, 0, 0, 0]), nonce])));
  const encryptionKey = Buffer.concat(derived.map((block) => block.subarray(0, 8)));
  const counter = Buffer.from(tag);
  counter[15]! |= 0x80;
  const blocks: Buffer[] = [];
  for (let at = 0; at < length; at += 16) {
    blocks.push(ecb(encryptionKey, counter));
    counter.writeUInt32LE((counter.readUInt32LE(0) + 1) % 2 ** 32, 0);
  }
  return Buffer.concat(blocks).subarray(0, length);
}

function hex(digits: string): Buffer {
  return Buffer.from(digits, 'hex');
}
