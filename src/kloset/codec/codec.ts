/**
 * From stored bytes to plain ones and back to their MAC (kloset-format.md 4 and 5): decrypt, then decompress. Pure: no
 * files, no clock, nothing kept between calls but keys, WebAssembly instances and their scratch memory.
 */
import type { KeyObject } from 'node:crypto';
import { assert, CorruptStoreError, UnsupportedError } from '../../core/errors.ts';
import { createMac, type HashAlgorithm } from './hash.ts';
import { typescriptKernels } from './kernels.ts';
import { decodeLz4Frame, decodeLz4FrameInto } from './lz4-frame.ts';

export { blake3, plainHash } from './hash.ts';

/** How a store encodes its values. Plain data and KeyObjects: crosses threads by structured clone. */
export interface CodecParameters {
  readonly hashing: HashAlgorithm;
  /** 32 bytes: the derived key of an encrypted store, H(RepositoryID) in a plaintext one. */
  readonly macKey: KeyObject;
  readonly compression: 'LZ4' | 'GZIP' | 'ZSTD' | undefined;
  readonly encryption:
    | {
        readonly subKeyAlgorithm: 'AES256-KW' | 'AES256-GCM';
        readonly dataAlgorithm: 'AES256-GCM-SIV';
        /** Plain bytes of every segment but the last: `ChunkSize` of CONFIG's Encryption. */
        readonly segmentBytes: number;
        /** 32 bytes: the derived key. */
        readonly key: KeyObject;
      }
    | undefined;
}

/** One store's codec, for one thread. */
export interface Codec {
  /**
   * Decrypts and decompresses into exactly all of `target`, which may be backed by a SharedArrayBuffer. Throws
   * CorruptStoreError if the plain length differs or anything is malformed; `target` then holds nothing of meaning.
   * The checksums inside LZ4 frames are left unchecked: the caller compares mac(target), which covers the same bytes.
   */
  decodeInto(stored: Uint8Array, target: Uint8Array): void;
  /**
   * Decrypts and decompresses a value whose plain length is not recorded, checksums inside the compressed stream
   * included: some values (snapshot headers) have no MAC of their own. The result is a fresh buffer of at most
   * `plainBytesMax` bytes, and no more than that is ever allocated for it. Throws CorruptStoreError.
   */
  decode(stored: Uint8Array, plainBytesMax: number): Uint8Array;
  /** The store's 32-byte MAC over plain bytes, a fresh buffer. */
  mac(plain: Uint8Array): Uint8Array;
}

/** A codec of its own for each caller: two never share scratch memory. Rejects with UnsupportedError. */
export async function createCodec(parameters: CodecParameters): Promise<Codec> {
  const { compression, encryption } = parameters;
  const mac = await createMac(parameters.hashing, parameters.macKey);
  if (encryption !== undefined) throw new UnsupportedError('encrypted stores are not read yet');
  if (compression !== undefined && compression !== 'LZ4') {
    throw new UnsupportedError(`stores compressed with ${compression} are not read yet`);
  }
  return {
    decodeInto(stored, target) {
      if (compression === 'LZ4') {
        decodeLz4FrameInto(stored, target, { kernels: typescriptKernels, checksums: 'skip' });
      } else {
        if (stored.byteLength !== target.byteLength) throw wrongLength();
        target.set(stored);
      }
    },
    decode(stored, plainBytesMax) {
      assert(Number.isSafeInteger(plainBytesMax) && plainBytesMax >= 0, 'plainBytesMax counts bytes');
      if (compression === 'LZ4') {
        return decodeLz4Frame(stored, plainBytesMax, { kernels: typescriptKernels, checksums: 'verify' });
      }
      if (stored.byteLength > plainBytesMax) throw wrongLength();
      return stored.slice();
    },
    mac,
  };
}

function wrongLength(): CorruptStoreError {
  return new CorruptStoreError('a value holds another number of bytes than it should');
}
