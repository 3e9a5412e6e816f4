/** The codec on values of kloset-format.md 6.2 and 8.5, and parameters that are not read. */
import { createSecretKey } from 'node:crypto';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { CorruptStoreError, UnsupportedError } from '../../../../src/core/errors.ts';
import { toHex } from '../../../../src/core/mac.ts';
import { KiB, MiB } from '../../../../src/core/units.ts';
import { type CodecParameters, createCodec } from '../../../../src/kloset/codec/codec.ts';
import { encryptValue, randomBytesOf, writeLz4Frame } from './store-writer.ts';

const storeKey = Buffer.from('2a5933e74efed96a855a3cc342effe1adf3ca15e0d2bd1072f77997aa9e3447d', 'hex');

function encryptedStore(changes: Partial<CodecParameters> = {}): CodecParameters {
  const key = createSecretKey(storeKey);
  const encryption = {
    subKeyAlgorithm: 'AES256-KW',
    dataAlgorithm: 'AES256-GCM-SIV',
    segmentBytes: 65536,
    key,
  } as const;
  return { hashing: 'BLAKE3', macKey: key, compression: 'LZ4', encryption, ...changes };
}

describe('the worked example', () => {
  const blob = Buffer.from(
    '0709cffb8beae4e8d15c7abbc10bef210d125fa7a9b53ca6985e6abac9a12b03ea9f53be426c049c' +
      'cfe5c5da380045e2253aaec8' +
      '44052730fcbbad5725ee4ad1fc5c185f2a19371154caae867366c14a536d29b8' +
      'ed2e7783f6505209f7c8791d821407b5c8daed383b8a01bbc3' +
      'df683c4978bd99f65c9d978b3d8d6fa4',
    'hex',
  );
  const plain = '84a776657273696f6ece00000000a46b657973c0a8706f696e74657273c0a676616c756573c0';
  const mac = '449ab6685f5d01575690163e66ebdc3568e5ffa3b5a8ef976e9cf0f46804985a';

  test('a blob decrypts, decompresses and has the MAC that is its id', async () => {
    const codec = await createCodec(encryptedStore());
    const decoded = codec.decode(blob, 1 * KiB);
    expect(toHex(decoded)).toBe(plain);
    expect(toHex(codec.mac(decoded))).toBe(mac);
    const target = new Uint8Array(38);
    codec.decodeChecked(blob, target, Buffer.from(mac, 'hex'));
    expect(toHex(target)).toBe(plain);
  });

  test('another key opens nothing', async () => {
    const key = createSecretKey(randomBytesOf(1, 32));
    const codec = await createCodec(encryptedStore({ encryption: { ...encryptedStore().encryption!, key } }));
    expect(() => codec.decode(blob, 1 * KiB)).toThrow(CorruptStoreError);
  });

  test('the parameters cross to another thread', async () => {
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(encryptedStore());
    const codec = await createCodec(receiveMessageOnPort(port2)?.message as CodecParameters);
    expect(toHex(codec.decode(blob, 1 * KiB))).toBe(plain);
    port1.close();
  });
});

test('a value of no bytes at all is an empty one where nothing encodes it', async () => {
  const codec = await createCodec(encryptedStore({ compression: undefined, encryption: undefined }));
  expect(codec.decode(new Uint8Array(0), 0)).toHaveLength(0);
  codec.decodeChecked(new Uint8Array(0), new Uint8Array(0), codec.mac(new Uint8Array(0)));
  for (const changes of [{}, { encryption: undefined }, { compression: undefined }]) {
    const encoding = await createCodec(encryptedStore(changes));
    expect(() => encoding.decode(new Uint8Array(0), 100)).toThrow(CorruptStoreError);
  }
});

test('results are the caller’s own: later calls leave them alone', async () => {
  for (const compression of ['LZ4', undefined] as const) {
    const codec = await createCodec(encryptedStore({ compression }));
    const values = [randomBytesOf(1, 5000), randomBytesOf(2, 5000)];
    const encode = (plain: Uint8Array) =>
      encryptValue(compression === undefined ? plain : writeLz4Frame(plain), {
        key: storeKey,
        subKeyAlgorithm: 'AES256-KW',
        segmentBytes: 65536,
      });
    const decoded = values.map((plain) => codec.decode(encode(plain), 5000));
    for (const [index, plain] of values.entries()) expect(Buffer.compare(decoded[index]!, plain)).toBe(0);
    for (const plain of decoded) expect(plain.buffer.byteLength).toBe(5000);
  }
});

test('segments of 1 byte, of 1 MiB, the largest value that is decoded in the kernels’ memory, and one too large for it', async () => {
  const cases = [
    { plain: randomBytesOf(3, 100), segmentBytes: 1 },
    { plain: randomBytesOf(4, 3 * MiB + 5), segmentBytes: 1 * MiB },
    { plain: randomBytesOf(5, 8 * MiB), segmentBytes: 65536 },
    { plain: randomBytesOf(6, 10 * MiB), segmentBytes: 65536 },
  ];
  for (const { plain, segmentBytes } of cases) {
    const codec = await createCodec(encryptedStore({ encryption: { ...encryptedStore().encryption!, segmentBytes } }));
    const stored = encryptValue(writeLz4Frame(plain), { key: storeKey, subKeyAlgorithm: 'AES256-KW', segmentBytes });
    expect(Buffer.compare(codec.decode(stored, plain.byteLength), plain)).toBe(0);
    const target = new Uint8Array(plain.byteLength);
    codec.decodeChecked(stored, target, codec.mac(plain));
    expect(Buffer.compare(target, plain)).toBe(0);
  }
});

test('the MAC finds what tags, which are skipped there, would have found', async () => {
  for (const kernels of ['typescript', 'webassembly'] as const) {
    const codec = await createCodec(encryptedStore({ compression: undefined }), { kernels });
    const plain = randomBytesOf(7, 100);
    const stored = encryptValue(plain, { key: storeKey, subKeyAlgorithm: 'AES256-KW', segmentBytes: 65536 });
    for (const changed of [45, 60, stored.byteLength - 1]) {
      const damaged = new Uint8Array(stored);
      damaged[changed]! ^= 1;
      const target = new Uint8Array(100);
      expect(() => codec.decodeChecked(damaged, target, codec.mac(plain))).toThrow('MAC');
      // Values without a MAC of their own are not decoded that way: there the tag is compared.
      expect(() => codec.decode(damaged, 100)).toThrow('tag');
    }
  }
});

test('who is strict finds the bits that change no byte: of a tag, and of a checksum in an LZ4 frame', async () => {
  const plain = Buffer.from('the same words, the same words, the same words again');
  const frame = writeLz4Frame(plain);
  const encrypted = encryptValue(plain, { key: storeKey, subKeyAlgorithm: 'AES256-KW', segmentBytes: 65536 });
  const cases = [
    { changes: { encryption: undefined }, stored: frame, says: 'content checksum' },
    { changes: { compression: undefined }, stored: encrypted, says: 'tag' },
  ];
  for (const { changes, stored, says } of cases) {
    const damaged = new Uint8Array(stored);
    damaged[damaged.byteLength - 1]! ^= 0x80;
    const target = new Uint8Array(plain.byteLength);
    const lenient = await createCodec(encryptedStore(changes));
    lenient.decodeChecked(damaged, target, lenient.mac(plain));
    expect(Buffer.compare(target, plain)).toBe(0);
    const strict = await createCodec(encryptedStore({ ...changes, isStrict: true }));
    expect(() => strict.decodeChecked(damaged, target, strict.mac(plain))).toThrow(says);
    strict.decodeChecked(stored, target, strict.mac(plain));
    expect(Buffer.compare(target, plain)).toBe(0);
  }
});

describe('what is not read', () => {
  const { encryption } = encryptedStore();
  test.each([
    ['another hash', { hashing: 'MD5' }],
    ['another compression', { compression: 'XZ' }],
    ['another cipher', { encryption: { ...encryption, dataAlgorithm: 'AES256-GCM' } }],
    ['another subkey cipher', { encryption: { ...encryption, subKeyAlgorithm: 'toString' } }],
    ['segments of no bytes', { encryption: { ...encryption, segmentBytes: 0 } }],
    ['segments of a negative length', { encryption: { ...encryption, segmentBytes: -1 } }],
  ])('%s', async (_, changes) => {
    await expect(createCodec(encryptedStore(changes as Partial<CodecParameters>))).rejects.toThrow(UnsupportedError);
  });
});
