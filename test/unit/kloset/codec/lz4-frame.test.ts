/** LZ4 frames with every combination of flags, and what must be refused, with each set of kernels. */
import { beforeAll, describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../../../src/core/errors.ts';
import { KiB, MiB } from '../../../../src/core/units.ts';
import { xxh32 } from '../../../../src/core/xxh32.ts';
import { createKernels, type KernelChoice, type Kernels } from '../../../../src/kloset/codec/kernels.ts';
import { decodeLz4Frame, decodeLz4FrameInto } from '../../../../src/kloset/codec/lz4-frame.ts';
import { type Lz4FrameOptions, randomBytesOf, writeLz4Frame } from './store-writer.ts';

const kernelChoices: readonly KernelChoice[] = ['typescript', 'webassembly'];
const switches = [false, true];
const MAGIC_BYTES = 4;

/** Text that repeats near and far, random stretches, runs of every short period. */
function mixedBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const random = randomBytesOf(length, length);
  for (let at = 0; at < length; ) {
    const kind = random[at]! % 4;
    const run = Math.min(1 + random[(at + 1) % length]! * (kind + 1), length - at);
    const period = 1 + (random[(at + 2) % length]! % 40);
    for (let index = 0; index < run; index++, at++) {
      bytes[at] = kind === 0 || at < 40 ? random[at]! : bytes[at - (kind === 1 ? period : 40)]!;
    }
  }
  return bytes;
}

describe.each(kernelChoices)('with %s kernels', (choice) => {
  let kernels: Kernels;
  beforeAll(async () => {
    kernels = await createKernels(choice);
  });
  const decode = (frame: Uint8Array, plainBytesMax = 16 * MiB) =>
    decodeLz4Frame(frame, plainBytesMax, { kernels, checksums: 'verify' });
  const decodeInto = (frame: Uint8Array, plainBytes: number, checksums: 'verify' | 'skip' = 'verify') => {
    const target = new Uint8Array(plainBytes);
    decodeLz4FrameInto(frame, target, { kernels, checksums });
    return target;
  };

  const combinations: Lz4FrameOptions[] = switches.flatMap((dependentBlocks) =>
    switches.flatMap((blockChecksums) =>
      switches.flatMap((contentSize) =>
        switches.flatMap((contentChecksum) =>
          switches.flatMap((stored) =>
            [4, 5, 6, 7].map((blockCode) => ({
              dependentBlocks,
              blockChecksums,
              contentSize,
              contentChecksum,
              stored,
              blockCode,
              blockBytes: 64 * KiB,
            })),
          ),
        ),
      ),
    ),
  );
  const contents = [new Uint8Array(0), mixedBytes(1), mixedBytes(100), mixedBytes(64 * KiB), mixedBytes(150_000)];

  test.each(combinations)('%j', (options) => {
    for (const plain of contents) {
      const frame = writeLz4Frame(plain, options);
      expect(Buffer.compare(decode(frame, plain.byteLength), plain)).toBe(0);
      expect(Buffer.compare(decodeInto(frame, plain.byteLength), plain)).toBe(0);
      expect(Buffer.compare(decodeInto(frame, plain.byteLength, 'skip'), plain)).toBe(0);
      for (const wrong of [plain.byteLength - 1, plain.byteLength + 1].filter((length) => length >= 0)) {
        expect(() => decodeInto(frame, wrong)).toThrow(CorruptStoreError);
      }
      if (plain.byteLength > 0) expect(() => decode(frame, plain.byteLength - 1)).toThrow(CorruptStoreError);
    }
  });

  test('blocks of 4 MiB, and small ones that reach back over several before them', () => {
    const plain = mixedBytes(9 * MiB);
    expect(Buffer.compare(decodeInto(writeLz4Frame(plain), plain.byteLength), plain)).toBe(0);
    const dependent = writeLz4Frame(plain.subarray(0, 300_000), { dependentBlocks: true, blockBytes: 1000 });
    expect(Buffer.compare(decode(dependent), plain.subarray(0, 300_000))).toBe(0);
    expect(dependent.byteLength).toBeLessThan(
      writeLz4Frame(plain.subarray(0, 300_000), { blockBytes: 1000 }).byteLength,
    );
  });

  test('a match of an independent block may not reach into the block before', () => {
    const frame = writeLz4Frame(mixedBytes(3000), { dependentBlocks: true, blockBytes: 1000, contentChecksum: false });
    frame[MAGIC_BYTES]! |= 0x20;
    frame[MAGIC_BYTES + 2] = (xxh32(frame.subarray(MAGIC_BYTES, MAGIC_BYTES + 2)) >>> 8) & 0xff;
    expect(() => decode(frame)).toThrow(CorruptStoreError);
    expect(() => decodeInto(frame, 3000)).toThrow(CorruptStoreError);
  });

  test('the example of an empty value', () => {
    expect(decode(Buffer.from('04224d186470b900000000055dcc02', 'hex'), 0)).toHaveLength(0);
  });

  test('a dictionary, a reserved flag, another version, an unknown block size', () => {
    const plain = mixedBytes(100);
    expect(() => decode(writeLz4Frame(plain, { dictionaryId: 1 }))).toThrow(/dictionary/);
    for (const [at, value] of [
      [4, 0x66],
      [4, 0xa4],
      [4, 0x24],
      [5, 0x71],
      [5, 0xf0],
      [5, 0x30],
    ] as const) {
      const frame = writeLz4Frame(plain);
      frame[at] = value;
      frame[6] = (xxh32(frame.subarray(4, 6)) >>> 8) & 0xff;
      expect(() => decode(frame), `byte ${at} is ${value}`).toThrow(CorruptStoreError);
    }
  });

  test('checksums are verified where asked for, skipped where not', () => {
    const plain = mixedBytes(500);
    for (const options of [{ contentChecksum: true }, { contentChecksum: false, blockChecksums: true }]) {
      const frame = writeLz4Frame(plain, { ...options, stored: true });
      frame[20]! ^= 1;
      expect(() => decode(frame)).toThrow(CorruptStoreError);
      expect(() => decodeInto(frame, 500)).toThrow(CorruptStoreError);
      expect(decodeInto(frame, 500, 'skip')).toHaveLength(500);
    }
  });

  test('a frame followed by anything', () => {
    const frame = writeLz4Frame(mixedBytes(50));
    expect(() => decode(Buffer.concat([frame, Buffer.alloc(1)]))).toThrow(CorruptStoreError);
    expect(() => decode(Buffer.concat([frame, frame]))).toThrow(CorruptStoreError);
  });

  test('a block that is larger than its frame allows', () => {
    const options = { blockCode: 4, blockBytes: 65 * KiB } as const;
    for (const plain of [new Uint8Array(65 * KiB), randomBytesOf(1, 65 * KiB)]) {
      expect(() => decode(writeLz4Frame(plain, options))).toThrow(CorruptStoreError);
      expect(() => decodeInto(writeLz4Frame(plain, options), plain.byteLength)).toThrow(CorruptStoreError);
    }
  });

  test('a bomb is refused for its lengths, before a buffer is made', () => {
    const bomb = writeLz4Frame(new Uint8Array(64 * MiB));
    expect(bomb.byteLength).toBeLessThan(300_000);
    const before = process.memoryUsage().arrayBuffers;
    expect(() => decode(bomb, 1 * MiB)).toThrow(CorruptStoreError);
    expect(() => decodeInto(bomb, 1 * MiB)).toThrow(CorruptStoreError);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * MiB);
  });

  test('a length that never ends', () => {
    const block = new Uint8Array(4 * MiB).fill(0xff);
    const target = { bytes: new Uint8Array(100), start: 0, end: 100, history: 0 };
    expect(() => kernels.decodeLz4Block(block, target)).toThrow(CorruptStoreError);
    expect(() => kernels.measureLz4Block(block)).toThrow(CorruptStoreError);
  });
});
