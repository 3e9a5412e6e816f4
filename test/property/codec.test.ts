/**
 * The codec as a whole: whatever was encoded decodes, in every combination; whatever was changed, cut or made up ends in
 * CorruptStoreError or in another MAC, never in a crash, a byte out of bounds or more memory than allowed.
 */
import { createSecretKey } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../src/core/errors.ts';
import { toHex } from '../../src/core/mac.ts';
import { MiB } from '../../src/core/units.ts';
import { type Codec, type CodecParameters, createCodec } from '../../src/kloset/codec/codec.ts';
import type { KernelChoice } from '../../src/kloset/codec/kernels.ts';
import { encryptValue, randomBytesOf, writeLz4Frame, writeZstdFrame } from '../unit/kloset/codec/store-writer.ts';

const key = randomBytesOf(42, 32);
const compressions = [undefined, 'LZ4', 'GZIP', 'ZSTD'] as const;
const encryptions = [
  undefined,
  { subKeyAlgorithm: 'AES256-KW', segmentBytes: 65536 },
  { subKeyAlgorithm: 'AES256-GCM', segmentBytes: 100 },
] as const;
type Encryption = (typeof encryptions)[number];

interface Combination {
  readonly compression: (typeof compressions)[number];
  readonly encryption: Encryption;
  readonly kernels: KernelChoice;
}
const combinations: Combination[] = compressions.flatMap((compression) =>
  encryptions.flatMap((encryption) =>
    (['typescript', 'webassembly'] as const).map((kernels) => ({ compression, encryption, kernels })),
  ),
);

function codecOf(
  { compression, encryption, kernels }: Combination,
  hashing: 'BLAKE3' | 'SHA256',
  isStrict = false,
): Promise<Codec> {
  const keyObject = createSecretKey(key);
  const parameters: CodecParameters = {
    hashing,
    macKey: keyObject,
    compression,
    isStrict,
    encryption: encryption && { ...encryption, dataAlgorithm: 'AES256-GCM-SIV', key: keyObject },
  };
  return createCodec(parameters, { kernels });
}

function encode(plain: Uint8Array, { compression, encryption }: Omit<Combination, 'kernels'>, seed = 1): Uint8Array {
  const compressed = {
    none: () => plain,
    LZ4: () => writeLz4Frame(plain),
    GZIP: () => gzipSync(plain),
    ZSTD: () => writeZstdFrame(plain, { contentSize: seed % 2 === 0, blockBytes: 1 + (seed % 3000) }),
  }[compression ?? 'none']();
  return encryption === undefined ? compressed : encryptValue(compressed, { ...encryption, key, seed });
}

/** What became of a value: its plain bytes, or CorruptStoreError. Anything else that is thrown fails the test. */
function outcome(decode: () => Uint8Array): Uint8Array | 'corrupt' {
  try {
    return decode();
  } catch (error) {
    if (error instanceof CorruptStoreError) return 'corrupt';
    throw error;
  }
}

/** Decodes what should become `expected` into the middle of a larger buffer, whose margins must stay as they were. */
function decodeBetweenMargins(
  codec: Codec,
  stored: Uint8Array,
  expected: Uint8Array,
  plainBytes = expected.byteLength,
): Uint8Array {
  const margin = 64;
  const around = new Uint8Array(new SharedArrayBuffer(plainBytes + 2 * margin)).fill(0xa5);
  const target = around.subarray(margin, margin + plainBytes);
  const mac = codec.mac(expected);
  const decoded = outcome(() => {
    codec.decodeChecked(stored, target, mac);
    return target;
  });
  const margins = [...around.subarray(0, margin), ...around.subarray(margin + plainBytes)];
  expect(margins.every((byte) => byte === 0xa5)).toBe(true);
  if (decoded === 'corrupt') throw new CorruptStoreError('as decodeChecked said');
  return decoded;
}

const plainBytes = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 20 }), fc.integer({ min: 1, max: 1000 })).map(([unit, times]) => {
    const bytes = new Uint8Array(unit.byteLength * times);
    for (let at = 0; at < bytes.byteLength; at += unit.byteLength) bytes.set(unit, at);
    return bytes;
  }),
);

describe.each(combinations)('$compression, $encryption.subKeyAlgorithm, $kernels', (combination) => {
  test('what was encoded decodes', async () => {
    const codec = await codecOf(combination, 'BLAKE3');
    fc.assert(
      fc.property(plainBytes, fc.nat(10_000), (plain, seed) => {
        const stored = encode(plain, combination, seed);
        expect(Buffer.compare(codec.decode(stored, plain.byteLength), plain)).toBe(0);
        expect(Buffer.compare(decodeBetweenMargins(codec, stored, plain), plain)).toBe(0);
        expect(outcome(() => decodeBetweenMargins(codec, stored, plain, plain.byteLength + 1))).toBe('corrupt');
        if (plain.byteLength > 0) {
          expect(outcome(() => codec.decode(stored, plain.byteLength - 1))).toBe('corrupt');
          expect(outcome(() => decodeBetweenMargins(codec, stored, plain, plain.byteLength - 1))).toBe('corrupt');
        }
      }),
      { numRuns: 30 },
    );
  });

  const sample = Buffer.concat([
    Buffer.from('the same words, the same words, the same words again. '),
    randomBytesOf(3, 90),
  ]);

  test('cut anywhere', async () => {
    const codec = await codecOf(combination, 'SHA256');
    const stored = encode(sample, combination);
    const mac = toHex(codec.mac(sample));
    for (let length = 0; length < stored.byteLength; length++) {
      const cut = stored.slice(0, length);
      expect(
        outcome(() => decodeBetweenMargins(codec, cut, sample)),
        `cut at ${length}`,
      ).toBe('corrupt');
      // Without a length only the MAC shows a cut between segments, or in a value that is stored as it is.
      const decoded = outcome(() => codec.decode(cut, 1 * MiB));
      if (decoded !== 'corrupt') expect(toHex(codec.mac(decoded)), `cut at ${length}`).not.toBe(mac);
    }
  });

  test('any byte changed', async () => {
    const codec = await codecOf(combination, 'BLAKE3');
    const strict = await codecOf(combination, 'BLAKE3', true);
    const stored = encode(sample, combination);
    for (let at = 0; at < stored.byteLength; at++) {
      for (const change of [0x01, 0x80, 0xff]) {
        const changed = new Uint8Array(stored); // A Buffer's `slice` would be the same bytes.
        changed[at]! ^= change;
        const name = `byte ${at} ^ ${change}`;
        // Bytes that carry nothing exist: gzip's time stamp, zstd's window size. They must then change nothing.
        const withMac = outcome(() => decodeBetweenMargins(codec, changed, sample));
        if (withMac !== 'corrupt') expect(Buffer.compare(withMac, sample), name).toBe(0);
        const decoded = outcome(() => codec.decode(changed, sample.byteLength));
        if (decoded !== 'corrupt') {
          const same = Buffer.compare(decoded, sample) === 0;
          expect(toHex(codec.mac(decoded)) === toHex(codec.mac(sample)), name).toBe(same);
        }
        const strictly = outcome(() => decodeBetweenMargins(strict, changed, sample));
        if (combination.encryption !== undefined) expect([decoded, strictly], name).toEqual(['corrupt', 'corrupt']);
      }
    }
  });

  test('made-up bytes', async () => {
    const codec = await codecOf(combination, 'BLAKE3');
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(300), (stored, length) => {
        const decoded = outcome(() => codec.decode(stored, length));
        if (decoded !== 'corrupt') expect(decoded.byteLength).toBeLessThanOrEqual(length);
        expect(outcome(() => decodeBetweenMargins(codec, stored, new Uint8Array(0), length || 1))).toBe('corrupt');
      }),
      { numRuns: 200 },
    );
  });
});

test.each(['LZ4', 'GZIP', 'ZSTD'] as const)(
  'a bomb of %s takes no more memory than was allowed',
  async (compression) => {
    const codec = await codecOf({ compression, encryption: undefined, kernels: 'fastest' }, 'BLAKE3');
    const zeroes = new Uint8Array(64 * MiB);
    const bomb =
      compression === 'ZSTD' ? writeZstdFrame(zeroes) : encode(zeroes, { compression, encryption: undefined });
    expect(bomb.byteLength).toBeLessThan(2 * MiB);
    const before = process.memoryUsage().arrayBuffers;
    expect(outcome(() => codec.decode(bomb, 1 * MiB))).toBe('corrupt');
    expect(outcome(() => decodeBetweenMargins(codec, bomb, zeroes, 1 * MiB))).toBe('corrupt');
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(24 * MiB);
  },
);
