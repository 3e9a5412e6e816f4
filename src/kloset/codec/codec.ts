/**
 * From stored bytes to plain ones and back to their MAC (kloset-format.md 4 and 5): decrypt, then decompress. Pure: no
 * files, no clock, nothing kept between calls but keys, WebAssembly instances and their scratch memory.
 */
import type { KeyObject } from 'node:crypto';
import { assert, UnsupportedError } from '../../core/errors.ts';
import { type Compression, createDecompressor } from './compression.ts';
import { createMac, type HashAlgorithm } from './hash.ts';
import { typescriptKernels } from './kernels.ts';

export { blake3, plainHash } from './hash.ts';

/** How a store encodes its values. Plain data and KeyObjects: crosses threads by structured clone. */
export interface CodecParameters {
  readonly hashing: HashAlgorithm;
  /** 32 bytes: the derived key of an encrypted store, H(RepositoryID) in a plaintext one. */
  readonly macKey: KeyObject;
  readonly compression: Compression;
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
  if (parameters.encryption !== undefined) throw new UnsupportedError('encrypted stores are not read yet');
  const mac = await createMac(parameters.hashing, parameters.macKey);
  const { decompress, decompressInto } = await createDecompressor(parameters.compression, typescriptKernels);
  return {
    decodeInto: decompressInto,
    decode(stored, plainBytesMax) {
      assert(Number.isSafeInteger(plainBytesMax) && plainBytesMax >= 0, 'plainBytesMax counts bytes');
      return decompress(stored, plainBytesMax);
    },
    mac,
  };
}
