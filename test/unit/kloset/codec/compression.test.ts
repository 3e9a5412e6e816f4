/** GZIP and ZSTD: streams of other programs, and what is refused before a decompressor sees it. */
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, test } from 'vitest';
import { CorruptStoreError, UnsupportedError } from '../../../../src/core/errors.ts';
import { MiB } from '../../../../src/core/units.ts';
import { createDecompressor, createZstd, type Decompressor } from '../../../../src/kloset/codec/compression.ts';
import { createTypescriptKernels } from '../../../../src/kloset/codec/kernels.ts';
import { readZstdFrame } from '../../../../src/kloset/codec/zstd-frame.ts';
import { randomBytesOf, writeZstdFrame } from './store-writer.ts';

/** What `zstd -c` of 1.5 made of `text` on its standard input: compressed blocks, checksum, no content size. */
const text = Buffer.from(
  `${'the same words, '.repeat(400)}${Array.from({ length: 40 }, (_, index) => index * index * 7919).join(' ')}`,
);
const compressedText = Buffer.from(
  'KLUv/QRY9QUAxpIqFaAnxQYAbH7HC/f/4nLl5sqt7PBf1SgAIgAiAEOlYvUqzE7cDenCJ7TdXlJYSVmTGsuqw/fGIKEQUEBwwGEA' +
    'oMBBwCARtvMJy+aysPedCKnEJIQ261lJUrHLdm6mrJmgln/PZ8QDjLjdXcU6XUixvpiZRDIe0zanE4mmZWLdX4l1k7nhTeQ0DL8R' +
    'hZQ14aGWbUsXJUlMSZQ2i7CTasg9exupYzkePd6NlgUEAErURiAHk4e9ard2nH6CARn0f2Q=',
  'base64',
);
/** The writer's empty value. */
const emptyFrame = Buffer.from('28b52ffd240001000099e9d851', 'hex');

// Node's own where it has one, and zstddec on every Node.
describe.each([{ chooseZstddec: false }, { chooseZstddec: true }])('ZSTD, %j', (options) => {
  let zstd: Decompressor;
  beforeAll(async () => {
    zstd = await createZstd(options);
  });

  test('a frame of another program', () => {
    expect(Buffer.compare(zstd.decompress(compressedText, text.byteLength), text)).toBe(0);
    const target = new Uint8Array(text.byteLength);
    zstd.decompressInto(compressedText, target);
    expect(Buffer.compare(target, text)).toBe(0);
  });

  test('lengths that are not the recorded one', () => {
    for (const wrong of [text.byteLength - 1, text.byteLength + 1, 0]) {
      expect(() => zstd.decompressInto(compressedText, new Uint8Array(wrong))).toThrow(CorruptStoreError);
    }
    expect(() => zstd.decompress(compressedText, text.byteLength - 1)).toThrow(CorruptStoreError);
  });

  test('an empty value, in both forms', () => {
    for (const stored of [emptyFrame, new Uint8Array(0)]) {
      expect(zstd.decompress(stored, 0)).toHaveLength(0);
      zstd.decompressInto(stored, new Uint8Array(0));
      expect(() => zstd.decompressInto(stored, new Uint8Array(1))).toThrow(CorruptStoreError);
    }
  });

  test('several MiB, with and without a content size', () => {
    const plain = randomBytesOf(1, 3 * MiB + 1);
    for (const contentSize of [false, true]) {
      const frame = writeZstdFrame(plain, { contentSize });
      expect(Buffer.compare(zstd.decompress(frame, 4 * MiB), plain)).toBe(0);
    }
  });

  test('cut anywhere, changed anywhere', () => {
    for (let at = 0; at < compressedText.byteLength; at++) {
      expect(() => zstd.decompress(compressedText.subarray(0, at || 1), 1 * MiB)).toThrow(CorruptStoreError);
      const changed = Buffer.from(compressedText);
      changed[at]! ^= 0x10;
      try {
        // A byte of the window size changes nothing; everything else is under the checksum.
        expect(Buffer.compare(zstd.decompress(changed, 1 * MiB), text)).toBe(0);
      } catch (error) {
        expect(error).toBeInstanceOf(CorruptStoreError);
      }
    }
    expect(Buffer.compare(zstd.decompress(compressedText, 1 * MiB), text), 'it still works after that').toBe(0);
  });
});

describe('the outline of a Zstandard frame', () => {
  const plain = randomBytesOf(2, 1000);
  const changedAt = (at: number, value: number) => {
    const frame = writeZstdFrame(plain);
    frame[at] = value;
    return frame;
  };

  test('lengths', () => {
    expect(readZstdFrame(writeZstdFrame(plain))).toEqual({ plainBytesMin: 1000, plainBytesMax: 1000 });
    expect(readZstdFrame(compressedText)).toEqual({ plainBytesMin: 0, plainBytesMax: 128 * 1024 });
    expect(readZstdFrame(emptyFrame)).toEqual({ plainBytesMin: 0, plainBytesMax: 0 });
  });

  test.each([
    ['another magic number', changedAt(0, 0x29)],
    ['a reserved bit', changedAt(4, 0x08)],
    ['a dictionary', changedAt(4, 0x01)],
    ['a window of 256 MiB', changedAt(5, 18 << 3)],
    ['a reserved block type', changedAt(6, (1000 << 3) | 7)],
    ['a block above the window of 1 KiB', writeZstdFrame(randomBytesOf(3, 2000)).fill(0, 5, 6)],
    ['something behind it', Buffer.concat([writeZstdFrame(plain), Buffer.alloc(1)])],
    ['two frames', Buffer.concat([writeZstdFrame(plain), writeZstdFrame(plain)])],
    ['a content size its blocks cannot hold', writeZstdFrame(plain, { contentSize: true }).fill(0xff, 6, 10)],
    ['nothing', new Uint8Array(0)],
  ])('%s is refused', (_, frame) => {
    expect(() => readZstdFrame(frame)).toThrow(CorruptStoreError);
  });
});

describe('GZIP', () => {
  test('the recorded length, the checksum and the end are checked', async () => {
    const gzip = await createDecompressor('GZIP', createTypescriptKernels(), { checksums: 'skip' });
    const stream = gzipSync(text);
    expect(Buffer.compare(gzip.decompress(stream, text.byteLength), text)).toBe(0);
    for (const wrong of [text.byteLength - 1, text.byteLength + 1, 0]) {
      expect(() => gzip.decompressInto(stream, new Uint8Array(wrong))).toThrow(CorruptStoreError);
    }
    expect(() => gzip.decompress(stream, text.byteLength - 1)).toThrow(CorruptStoreError);
    for (let at = 0; at < stream.byteLength; at++) {
      expect(() => gzip.decompress(stream.subarray(0, at), 1 * MiB)).toThrow(CorruptStoreError);
    }
    const changed = Buffer.from(stream);
    changed[changed.byteLength - 6]! ^= 1;
    expect(() => gzip.decompress(changed, 1 * MiB)).toThrow(CorruptStoreError);
    expect(gzip.decompress(gzipSync(new Uint8Array(0)), 0)).toHaveLength(0);
  });

  test('a length in the trailer that is a lie does not make a buffer of that size', async () => {
    const gzip = await createDecompressor('GZIP', createTypescriptKernels(), { checksums: 'skip' });
    const stream = gzipSync(Buffer.from('x'));
    stream.writeUInt32LE(0xffffffff, stream.byteLength - 4);
    const long = Buffer.concat([gzipSync(randomBytesOf(4, 1 * MiB)).subarray(0, -4), Buffer.alloc(4, 0xff)]);
    const before = process.memoryUsage().arrayBuffers;
    expect(() => gzip.decompress(long, 4096 * MiB)).toThrow(CorruptStoreError);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100 * MiB);
    expect(() => gzip.decompress(stream, 1024 * MiB)).toThrow(CorruptStoreError);
  });
});

test('an unknown compression', async () => {
  await expect(createDecompressor('XZ' as never, createTypescriptKernels(), { checksums: 'skip' })).rejects.toThrow(
    UnsupportedError,
  );
});
