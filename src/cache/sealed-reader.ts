import type { FileHandle } from 'node:fs/promises';
import { mapConcurrently } from '../core/concurrency.ts';
import { assert, CorruptStoreError } from '../core/errors.ts';
import { equalBytes } from '../core/mac.ts';
import { CacheDamagedError } from './errors.ts';
import { SEGMENT_BYTES_MAX, SEGMENTS_IN_FLIGHT_MAX } from './limits.ts';
import {
  SEAL_MAGIC,
  SEAL_VERSION,
  type SealKeys,
  SegmentCipher,
  sealHeader,
  sealPurpose,
  TAG_BYTES,
} from './sealed-format.ts';

/** Reads a sealed file in any order. Every method rejects with CacheDamagedError where the file is not what was written. */
export class SealedReader {
  /** Bytes that were written to it. */
  readonly plainBytes: number;
  readonly segmentBytes: number;
  readonly segmentCount: number;
  readonly #file: FileHandle;
  readonly #cipher: SegmentCipher;

  private constructor(
    file: FileHandle,
    cipher: SegmentCipher,
    sizes: { plainBytes: number; segmentBytes: number; segmentCount: number },
  ) {
    this.#file = file;
    this.#cipher = cipher;
    this.plainBytes = sizes.plainBytes;
    this.segmentBytes = sizes.segmentBytes;
    this.segmentCount = sizes.segmentCount;
  }

  /**
   * Takes `file` over, also where it rejects. The last segment is checked now: a file that was cut off has none. Whoever knows
   * how many bytes were written says so, and need not wait for that.
   */
  static async open(
    file: FileHandle,
    { name, keys, plainBytes: expectedBytes }: { name: string; keys: SealKeys; plainBytes?: number },
  ): Promise<SealedReader> {
    try {
      const header = await readHeader(file);
      const { segmentBytes, protection, salt } = header;
      if (protection !== keys.protection || segmentBytes === 0 || segmentBytes > SEGMENT_BYTES_MAX) {
        throw new CacheDamagedError('its header is not what was written');
      }
      const bodyBytes = (await file.stat()).size - sealHeader.sizeBytes;
      const segmentCount = Math.max(1, Math.ceil(bodyBytes / (segmentBytes + TAG_BYTES)));
      const plainBytes = bodyBytes - segmentCount * TAG_BYTES;
      if (plainBytes < (segmentCount - 1) * segmentBytes) throw new CacheDamagedError('it is cut short');
      const key = keys.derive(sealPurpose(name, segmentBytes, protection), salt);
      const cipher = new SegmentCipher(key, protection);
      const reader = new SealedReader(file, cipher, { plainBytes, segmentBytes, segmentCount });
      if (expectedBytes === undefined) await reader.readSegment(segmentCount - 1);
      else if (plainBytes !== expectedBytes) throw new CacheDamagedError('it has another length');
      return reader;
    } catch (error) {
      await file.close();
      throw asDamage(error);
    }
  }

  /** The data of one segment: a fresh buffer. */
  async readSegment(index: number): Promise<Uint8Array> {
    const target = new Uint8Array(this.#segmentLength(index));
    await this.#segmentInto(index, target);
    return target;
  }

  /** Fills all of `target` from byte `offset` of what was written. */
  async read(offset: number, target: Uint8Array): Promise<void> {
    assert(offset >= 0 && offset + target.byteLength <= this.plainBytes, 'a read lies inside the sealed file');
    if (target.byteLength === 0) return;
    const first = Math.floor(offset / this.segmentBytes);
    const end = Math.ceil((offset + target.byteLength) / this.segmentBytes);
    const indexes = Array.from({ length: end - first }, (_, i) => first + i);
    await mapConcurrently(indexes, SEGMENTS_IN_FLIGHT_MAX, async (index) => {
      const start = index * this.segmentBytes;
      const from = Math.max(offset, start);
      const to = Math.min(offset + target.byteLength, start + this.#segmentLength(index));
      const part = target.subarray(from - offset, to - offset);
      if (part.byteLength === this.#segmentLength(index)) await this.#segmentInto(index, part);
      else part.set((await this.readSegment(index)).subarray(from - start, to - start));
    });
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #segmentLength(index: number): number {
    assert(index >= 0 && index < this.segmentCount, 'the sealed file has that segment');
    return Math.min(this.segmentBytes, this.plainBytes - index * this.segmentBytes);
  }

  async #segmentInto(index: number, target: Uint8Array): Promise<void> {
    const tag = new Uint8Array(TAG_BYTES);
    const position = sealHeader.sizeBytes + index * (this.segmentBytes + TAG_BYTES);
    try {
      const { bytesRead } = await this.#file.readv([target, tag], position);
      if (bytesRead < target.byteLength + TAG_BYTES) {
        await readFully(this.#file, target, position);
        await readFully(this.#file, tag, position + target.byteLength);
      }
    } catch (error) {
      throw asDamage(error);
    }
    const data = this.#cipher.open(target, tag, index, index === this.segmentCount - 1);
    if (data !== target) target.set(data);
  }
}

async function readHeader(file: FileHandle) {
  const encoded = new Uint8Array(sealHeader.sizeBytes);
  await readFully(file, encoded, 0);
  const header = sealHeader.read(encoded);
  if (!equalBytes(header.magic, Buffer.from(SEAL_MAGIC)) || header.version !== SEAL_VERSION) {
    throw new CacheDamagedError('it is no sealed file of this version');
  }
  return header;
}

async function readFully(file: FileHandle, target: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await file.read(target, done, target.byteLength - done, position + done);
    if (bytesRead === 0) throw new CacheDamagedError('it is cut short');
    done += bytesRead;
  }
}

/** A disk that does not give a cached file back has lost it, whatever the reason. */
function asDamage(error: unknown): CacheDamagedError | unknown {
  const isSystemError = error instanceof Error && 'syscall' in error;
  if (!isSystemError && !(error instanceof CorruptStoreError)) return error;
  return new CacheDamagedError(`it cannot be read: ${error.message}`, { cause: error });
}
