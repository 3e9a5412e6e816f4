/**
 * From stored bytes to plain ones and back to their MAC (kloset-format.md 4 and 5): decrypt, then decompress. Pure: no
 * files, no clock, nothing kept between calls but keys, WebAssembly instances and their scratch memory.
 */
import type { KeyObject } from 'node:crypto';
import { copyBytes } from '../../core/copy-bytes.ts';
import { assert, CorruptStoreError } from '../../core/errors.ts';
import { equalBytes } from '../../core/mac.ts';
import { MiB } from '../../core/units.ts';
import { type Compression, createDecompressor } from './compression.ts';
import { createDecryptor, type EncryptionParameters } from './encryption.ts';
import { createMac, type HashAlgorithm } from './hash.ts';
import { createKernels, type KernelChoice } from './kernels.ts';

export { blake3, plainHash } from './hash.ts';

/** How a store encodes its values. Plain data and KeyObjects: crosses threads by structured clone. */
export interface CodecParameters {
  readonly hashing: HashAlgorithm;
  /** 32 bytes: the derived key of an encrypted store, H(RepositoryID) in a plaintext one. */
  readonly macKey: KeyObject;
  readonly compression: Compression;
  readonly encryption: EncryptionParameters | undefined;
  /**
   * Whether values that have a MAC need every tag and checksum inside them to be right, too, as plakar does when it reads them.
   * Default: no.
   */
  readonly isStrict?: boolean;
}

/** One store's codec, for one thread. */
export interface Codec {
  /**
   * Decrypts and decompresses into exactly all of `target`, which may be backed by a SharedArrayBuffer, and compares the
   * MAC of that with `mac`. Throws CorruptStoreError if it or the plain length differs or anything is malformed; `target`
   * then holds nothing of meaning. Unless it is to be strict, the tags of encrypted segments and the checksums inside LZ4
   * frames are left unchecked: the MAC, which nobody can make without the store's key, covers the same bytes.
   */
  decodeChecked(stored: Uint8Array, target: Uint8Array, mac: Uint8Array): void;
  /**
   * Decrypts and decompresses a value whose plain length is not recorded, tags and checksums inside the compressed stream
   * included: some values (snapshot headers) have no MAC of their own. The result is a fresh buffer of at most
   * `plainBytesMax` bytes; while it is made, at most that much again and scratch as long as `stored` are allocated,
   * whatever the stream claims. Throws CorruptStoreError.
   */
  decode(stored: Uint8Array, plainBytesMax: number): Uint8Array;
  /** The store's 32-byte MAC over plain bytes, a fresh buffer. */
  mac(plain: Uint8Array): Uint8Array;
}

/** Throws CorruptStoreError unless `plain` has that MAC. */
export function requireMac(codec: Pick<Codec, 'mac'>, plain: Uint8Array, mac: Uint8Array): void {
  if (!equalBytes(codec.mac(plain), mac)) throw new CorruptStoreError('its MAC does not match its content');
}

/**
 * A codec of its own for each caller: two never share scratch memory. Rejects with UnsupportedError. `kernels` is for
 * tests and benchmarks, which compare them.
 */
export async function createCodec(
  parameters: CodecParameters,
  { kernels: choice = 'fastest' }: { readonly kernels?: KernelChoice } = {},
): Promise<Codec> {
  const kernels = await createKernels(choice);
  const mac = await createMac(parameters.hashing, parameters.macKey, kernels);
  const { encryption, compression, isStrict = false } = parameters;
  const redundant = isStrict ? 'verify' : 'skip';
  const decompressor = await createDecompressor(compression, kernels, { checksums: redundant });
  const decryptor = encryption === undefined ? undefined : createDecryptor(encryption, kernels);
  const scratch = new Scratch();

  const decrypt = (encrypted: Uint8Array) => {
    if (decryptor === undefined) return encrypted;
    const compressed = scratch.take(decryptor.plainBytes(encrypted));
    decryptor.decryptInto(encrypted, compressed);
    return compressed;
  };
  /** Where what is decrypted goes, and where what is decompressed goes: the same where nothing is compressed. */
  const placesFor = (stored: Uint8Array, innerBytes: number, target: Uint8Array) => {
    const isCompressed = compression !== undefined;
    const own = kernels.workspace(isCompressed ? innerBytes : 0, target.byteLength);
    const plain = own?.plain ?? target;
    if (!isCompressed) return { inner: plain, plain };
    return { inner: own?.inner ?? (decryptor === undefined ? stored : scratch.take(innerBytes)), plain };
  };
  return {
    decodeChecked(stored, target, expectedMac) {
      const innerBytes = decryptor === undefined ? stored.byteLength : decryptor.plainBytes(stored);
      if (compression === undefined && innerBytes !== target.byteLength) {
        throw new CorruptStoreError('a value holds another number of bytes than it should');
      }
      const { inner, plain } = placesFor(stored, innerBytes, target);
      if (decryptor !== undefined) decryptor.decryptInto(stored, inner, { tags: redundant });
      else if (inner !== stored) copyBytes(stored, inner);
      if (inner !== plain) decompressor.decompressInto(inner, plain);
      requireMac({ mac }, plain, expectedMac);
      if (plain !== target) copyBytes(plain, target);
    },
    decode(stored, plainBytesMax) {
      assert(Number.isSafeInteger(plainBytesMax) && plainBytesMax >= 0, 'plainBytesMax counts bytes');
      return decompressor.decompress(decrypt(stored), plainBytesMax);
    },
    mac,
  };
}

/** What is kept between calls: as much as nearly every chunk needs (8 MiB, not compressible), in bytes. */
const SCRATCH_KEPT_BYTES_MAX = 9 * MiB;

/** One buffer for what is decrypted but still compressed: fresh ones cost a page fault every 4 KiB. */
class Scratch {
  #buffer = new Uint8Array(0);

  /** `bytes` bytes of any content, valid until the next call. */
  take(bytes: number): Uint8Array {
    if (bytes > SCRATCH_KEPT_BYTES_MAX) return new Uint8Array(bytes);
    if (bytes > this.#buffer.byteLength) {
      this.#buffer = new Uint8Array(Math.min(2 * bytes, SCRATCH_KEPT_BYTES_MAX));
    }
    return this.#buffer.subarray(0, bytes);
  }
}
