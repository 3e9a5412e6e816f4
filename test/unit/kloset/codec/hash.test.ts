/** Hashes and MACs: the vectors of kloset-format.md 4.2, and BLAKE3 against hash-wasm around every edge of its tree. */
import { createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { AssertionError } from '../../../../src/core/errors.ts';
import { toHex } from '../../../../src/core/mac.ts';
import { blake3, createCodec, plainHash } from '../../../../src/kloset/codec/codec.ts';
import { createBlake3 } from '../../../../src/kloset/codec/hash.ts';
import { createKernels } from '../../../../src/kloset/codec/kernels.ts';
import { randomBytesOf } from './store-writer.ts';

const storesDir = path.resolve(import.meta.dirname, '../../../../fixtures/stores');
const emptyNode = Buffer.from('84a776657273696f6ece00000000a46b657973c0a8706f696e74657273c0a676616c756573c0', 'hex');

const vectors = [
  {
    fixture: 'plain',
    hashing: 'BLAKE3',
    repositoryId: 'ef3fdb4c740c43739e97ad263f4a3303',
    key: '694702199f032f494023ecd412d38321c1df504f0b6d99933c2fa0ac8be31be8',
    mac: '6369ffacecf7abe153496c43c70059b9b3748bb893c466cbb0377efbe445d415',
    configFooter: 'b9bb246cce194d0ffee215b5f00456e9a89516fa5be793a2e77fadb607e2b77b',
  },
  {
    fixture: 'sha256-nocompress',
    hashing: 'SHA256',
    repositoryId: 'c0ddf6640b3e4574bc1a54e9c5e2542a',
    key: '3137f9c3664f5d1983f6bc4fc898d6fcc83f499c39a8f4fc8c3b9403c757bae2',
    mac: 'a1acd49a67ecc61b456b6b0ec3b2f00297e82c22b56af368e21ee33e208f5dd1',
    configFooter: '7e898e686761b14aa769ef9355718f4ce14b3ee58e78aeb3c5e7d9171b1ffd2e',
  },
] as const;

describe.each(vectors)('store $fixture', ({ fixture, hashing, repositoryId, key, mac, configFooter }) => {
  test('the key is the hash of the repository id', async () => {
    expect(toHex(await plainHash(hashing, Buffer.from(repositoryId, 'hex')))).toBe(key);
  });

  test('the MAC of an empty tree node', async () => {
    const macKey = createSecretKey(Buffer.from(key, 'hex'));
    const codec = await createCodec({ hashing, macKey, compression: undefined, encryption: undefined });
    expect(toHex(codec.mac(emptyNode))).toBe(mac);
    expect(codec.mac(emptyNode)).not.toBe(codec.mac(emptyNode));
  });

  test('the footer of CONFIG is BLAKE3 without a key', async () => {
    const config = readFileSync(path.join(storesDir, fixture, 'store/CONFIG'));
    expect(toHex(await blake3(config.subarray(0, -32)))).toBe(configFooter);
    expect(toHex(config.subarray(-32))).toBe(configFooter);
  });
});

test('the footer of CONFIG in an encrypted store is BLAKE3 under the derived key', async () => {
  const config = readFileSync(path.join(storesDir, 'encrypted/store/CONFIG'));
  const key = createSecretKey(Buffer.from('2a5933e74efed96a855a3cc342effe1adf3ca15e0d2bd1072f77997aa9e3447d', 'hex'));
  expect(toHex(await blake3(config.subarray(0, -32), key))).toBe(toHex(config.subarray(-32)));
});

describe('BLAKE3 in WebAssembly equals hash-wasm', () => {
  // Blocks have 64 bytes, chunks 1,024, vectors four chunks, groups 16, copies into the kernels' memory 64.
  const edges = [0, 64, 1024, 2048, 3072, 4096, 5120, 8192, 15360, 16384, 17408, 32768, 49152, 65536, 66560, 131072];
  const lengths = [...edges, 7 * 65536 + 5 * 1024, 1_000_000, 3_500_003].flatMap((edge) =>
    [edge - 1, edge, edge + 1].filter((length) => length >= 0),
  );

  test.each([true, false])('keyed: %s', async (keyed) => {
    const key = keyed ? createSecretKey(randomBytesOf(1, 32)) : undefined;
    const own = await createBlake3(await createKernels('webassembly'), key);
    const reference = await createBlake3(await createKernels('typescript'), key);
    const data = randomBytesOf(2, Math.max(...lengths));
    for (const length of lengths) {
      const part = data.subarray(0, length);
      expect(toHex(own(part)), `${length} bytes`).toBe(toHex(reference(part)));
    }
  });

  test('the hash of nothing, from the reference implementation', async () => {
    expect(toHex(await blake3(new Uint8Array(0)))).toBe(
      'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
    );
  });
});

test('a key of another length is a bug', async () => {
  const macKey = createSecretKey(new Uint8Array(16));
  for (const hashing of ['BLAKE3', 'SHA256'] as const) {
    const made = createCodec({ hashing, macKey, compression: undefined, encryption: undefined });
    await expect(made).rejects.toThrow(AssertionError);
  }
});
