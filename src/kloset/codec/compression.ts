/** Decompression of whole values (kloset-format.md 5.1): each is one complete, self-delimiting stream. */
import { constants as bufferConstants } from 'node:buffer';
import zlib from 'node:zlib';
import { copyBytes } from '../../core/copy-bytes.ts';
import { CorruptStoreError, UnsupportedError } from '../../core/errors.ts';
import { GiB, KiB, MiB } from '../../core/units.ts';
import type { Kernels } from './kernels.ts';
import { type Checksums, decodeLz4Frame, decodeLz4FrameInto } from './lz4-frame.ts';
import { readZstdFrame } from './zstd-frame.ts';

/** `Compression.Algorithm` of CONFIG; undefined: values are not compressed. */
export type Compression = 'LZ4' | 'GZIP' | 'ZSTD' | undefined;

/** Both throw CorruptStoreError for anything malformed. */
export interface Decompressor {
  /** Fills all of `target`, no more and no less. */
  decompressInto(compressed: Uint8Array, target: Uint8Array): void;
  /** A fresh buffer of at most `plainBytesMax` bytes, checksums verified. */
  decompress(compressed: Uint8Array, plainBytesMax: number): Uint8Array;
}

/** The part of node:zlib's options that its one-shot functions share. Missing in the types of Node 20: zstd. */
interface OneShotOptions {
  readonly chunkSize: number;
  readonly maxOutputLength: number;
}
type OneShot = (compressed: Uint8Array, options: OneShotOptions) => Uint8Array;

/** `checksums`: whether `decompressInto` verifies those that would cost extra time. */
export async function createDecompressor(
  compression: Compression,
  kernels: Kernels,
  { checksums }: { checksums: Checksums },
): Promise<Decompressor> {
  switch (compression) {
    case 'LZ4':
      return {
        decompressInto: (frame, target) => decodeLz4FrameInto(frame, target, { kernels, checksums }),
        decompress: (frame, bytesMax) => decodeLz4Frame(frame, bytesMax, { kernels, checksums: 'verify' }),
      };
    case 'GZIP':
      return gzip;
    case 'ZSTD':
      return createZstd();
    case undefined:
      return uncompressed;
    default:
      throw new UnsupportedError(`stores compressed with ${compression satisfies never} are not read`);
  }
}

const uncompressed: Decompressor = {
  decompressInto: copyExactly,
  decompress(stored, plainBytesMax) {
    if (stored.byteLength > plainBytesMax) throw wrongLength();
    return new Uint8Array(stored);
  },
};

const gzip: Decompressor = {
  decompressInto(stream, target) {
    copyExactly(runOneShot(zlib.gunzipSync, stream, { bytesExpected: target.byteLength }), target);
  },
  decompress(stream, plainBytesMax) {
    const bytesExpected = Math.min(gzipBytesHint(stream), plainBytesMax);
    return new Uint8Array(runOneShot(zlib.gunzipSync, stream, { bytesExpected, plainBytesMax }));
  },
};

/** The stream's last four bytes are its plain length modulo 2^32 (RFC 1952); deflate reaches 1032:1 at most. */
function gzipBytesHint(stream: Uint8Array): number {
  const at = stream.byteLength - 4;
  if (at < 0) return 0;
  const claimed = new DataView(stream.buffer, stream.byteOffset + at, 4).getUint32(0, true);
  return Math.min(claimed, 1032 * stream.byteLength);
}

/** Node's own Zstandard (22.15 and later), else zstddec. `chooseZstddec` makes tests independent of Node's version. */
export async function createZstd({ chooseZstddec = false } = {}): Promise<Decompressor> {
  const native = (zlib as { readonly zstdDecompressSync?: OneShot }).zstdDecompressSync;
  const run = native === undefined || chooseZstddec ? await createZstddec() : native;
  return {
    decompressInto(stream, target) {
      // The writer's empty value is a frame of 13 bytes, but none at all is taken too (5.1).
      if (stream.byteLength === 0) return copyExactly(stream, target);
      const { plainBytesMin, plainBytesMax } = readZstdFrame(stream);
      if (target.byteLength < plainBytesMin || target.byteLength > plainBytesMax) throw wrongLength();
      copyExactly(runOneShot(run, stream, { bytesExpected: target.byteLength }), target);
    },
    decompress(stream, plainBytesMax) {
      if (stream.byteLength === 0) return new Uint8Array(0);
      const frame = readZstdFrame(stream);
      if (frame.plainBytesMin > plainBytesMax) throw wrongLength();
      // A frame that does not tell its length announces whole blocks of 128 KiB, mostly for a few hundred bytes.
      const bytesExpected = Math.min(Math.max(frame.plainBytesMin, 8 * stream.byteLength), frame.plainBytesMax);
      const options = { bytesExpected, plainBytesMax: Math.min(frame.plainBytesMax, plainBytesMax) };
      return new Uint8Array(runOneShot(run, stream, options));
    },
  };
}

/** zstddec's memory is 32-bit: far from its end its allocations do not fail, which it would not notice. */
const ZSTDDEC_BYTES_MAX = 1 * GiB;

async function createZstddec(): Promise<OneShot> {
  const { ZSTDDecoder } = await import('zstddec');
  const decoder = new ZSTDDecoder();
  await decoder.init();
  return (stream, { maxOutputLength }) => {
    const { plainBytesMin, plainBytesMax } = readZstdFrame(stream);
    // It takes 0 for "unknown" and would then trust the frame.
    if (plainBytesMax === 0) return new Uint8Array(0);
    const capacity = Math.min(maxOutputLength, plainBytesMax);
    if (capacity > ZSTDDEC_BYTES_MAX) {
      throw new UnsupportedError('values above 1 GiB compressed with ZSTD are read on Node 22.15 and later only');
    }
    // Its errors show as an empty result only: a frame whose blocks hold something never is empty.
    const plain = decoder.decode(stream, capacity);
    if (plain.byteLength === 0 || plain.byteLength < plainBytesMin) {
      throw new CorruptStoreError('a Zstandard frame is malformed or holds more bytes than it should');
    }
    return plain;
  };
}

/** The first buffer at most, bytes: a stream may lie about its length. Anything longer is joined from several. */
const FIRST_BUFFER_BYTES_MAX = 64 * MiB;

/**
 * Runs a one-shot decompressor whose first buffer takes the expected bytes at once: growing buffers and joining them
 * costs a third more. One byte above the expected makes it notice the end without another round, and shows excess.
 */
function runOneShot(
  run: OneShot,
  stream: Uint8Array,
  { bytesExpected, plainBytesMax = bytesExpected }: { bytesExpected: number; plainBytesMax?: number },
): Uint8Array {
  let plain: Uint8Array;
  try {
    plain = run(stream, {
      chunkSize: Math.min(Math.max(bytesExpected + 1, 1 * KiB), FIRST_BUFFER_BYTES_MAX),
      maxOutputLength: Math.min(plainBytesMax + 1, bufferConstants.MAX_LENGTH),
    });
  } catch (error) {
    if (error instanceof CorruptStoreError || error instanceof UnsupportedError) throw error;
    throw new CorruptStoreError('a compressed value is malformed or holds more bytes than it should', { cause: error });
  }
  if (plain.byteLength > plainBytesMax) throw wrongLength();
  return plain;
}

function copyExactly(plain: Uint8Array, target: Uint8Array): void {
  if (plain.byteLength !== target.byteLength) throw wrongLength();
  copyBytes(plain, target);
}

function wrongLength(): CorruptStoreError {
  return new CorruptStoreError('a value holds another number of bytes than it should');
}
