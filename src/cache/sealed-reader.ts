import fs from 'node:fs';
import { promisify } from 'node:util';
import { mapConcurrently } from '../core/concurrency.ts';
import { copyBytes } from '../core/copy-bytes.ts';
import { assert, CorruptStoreError } from '../core/errors.ts';
import { equalBytes } from '../core/mac.ts';
import { CacheDamagedError } from './errors.ts';
import { SEGMENT_BYTES_MAX, SEGMENTS_IN_FLIGHT_MAX } from './limits.ts';
import {
  SEAL_MAGIC,
  SEAL_VERSION,
  type Seal,
  SegmentCipher,
  sealHeader,
  sealPurpose,
  TAG_BYTES,
} from './sealed-format.ts';

type SealedFile = Pick<Seal, 'name' | 'keys'>;

/** An open file: a FileHandle, or a descriptor with what closes it. */
export interface OpenFile {
  readonly fd: number;
  close(): Promise<void>;
}

const [readAt, readvAt, statOf] = [promisify(fs.read), promisify(fs.readv), promisify(fs.fstat)];

/** Reads a sealed file in any order. Every method rejects with CacheDamagedError where the file is not what was written. */
export class SealedReader {
  /** Bytes that were written to it. */
  readonly plainBytes: number;
  readonly segmentBytes: number;
  readonly segmentCount: number;
  readonly #file: OpenFile;
  readonly #cipher: SegmentCipher;

  private constructor(
    file: OpenFile,
    cipher: SegmentCipher,
    { plainBytes, segmentBytes }: { plainBytes: number; segmentBytes: number },
  ) {
    this.#file = file;
    this.#cipher = cipher;
    this.plainBytes = plainBytes;
    this.segmentBytes = segmentBytes;
    this.segmentCount = Math.max(1, Math.ceil(plainBytes / segmentBytes));
  }

  /** Takes `file` over, also where it rejects. The last segment is checked now: a file that was cut off has none. */
  static async open(file: OpenFile, seal: SealedFile): Promise<SealedReader> {
    try {
      const { segmentBytes, cipher } = await readHeader(file, seal);
      const bodyBytes = (await statOf(file.fd)).size - sealHeader.sizeBytes;
      const segmentCount = Math.max(1, Math.ceil(bodyBytes / (segmentBytes + TAG_BYTES)));
      const plainBytes = bodyBytes - segmentCount * TAG_BYTES;
      if (plainBytes < (segmentCount - 1) * segmentBytes) throw new CacheDamagedError('it is cut short');
      const reader = new SealedReader(file, cipher, { plainBytes, segmentBytes });
      await reader.readSegment(segmentCount - 1);
      return reader;
    } catch (error) {
      await file.close();
      throw asDamage(error);
    }
  }

  /** As `open`, of a file of which all is known that its header says: nothing is read. Segments tell what is not as it was written. */
  static openKnown(file: OpenFile, seal: Required<Seal> & { readonly plainBytes: number }): SealedReader {
    return new SealedReader(file, cipherOf(seal), seal);
  }

  /** The data of one segment: a fresh buffer. */
  async readSegment(index: number): Promise<Uint8Array> {
    const target = new Uint8Array(this.#segmentLength(index));
    await this.#segmentInto(index, target);
    return target;
  }

  /** Fills `target` with the data of one segment in this turn: the thread waits for the disk. Throws CacheDamagedError. */
  readSegmentNow(index: number, target: Uint8Array): void {
    assert(target.byteLength === this.#segmentLength(index), 'the buffer is as long as the segment');
    const tag = new Uint8Array(TAG_BYTES);
    try {
      const bytesRead = fs.readvSync(this.#file.fd, [target, tag], this.#positionOf(index));
      if (bytesRead < target.byteLength + TAG_BYTES) throw new CacheDamagedError('it is cut short');
    } catch (error) {
      throw asDamage(error);
    }
    this.#openSegment(index, target, tag);
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

  #positionOf(index: number): number {
    return sealHeader.sizeBytes + index * (this.segmentBytes + TAG_BYTES);
  }

  async #readStored(index: number, [data, tag]: [data: Uint8Array, tag: Uint8Array]): Promise<void> {
    const position = this.#positionOf(index);
    const { bytesRead } = await readvAt(this.#file.fd, [data, tag], position);
    if (bytesRead === data.byteLength + TAG_BYTES) return;
    await readFully(this.#file, data, position);
    await readFully(this.#file, tag, position + data.byteLength);
  }

  async #segmentInto(index: number, target: Uint8Array): Promise<void> {
    const tag = new Uint8Array(TAG_BYTES);
    try {
      await this.#readStored(index, [target, tag]);
    } catch (error) {
      throw asDamage(error);
    }
    this.#openSegment(index, target, tag);
  }

  /** From what is stored to the data, in place. */
  #openSegment(index: number, target: Uint8Array, tag: Uint8Array): void {
    const data = this.#cipher.open(target, tag, index, index === this.segmentCount - 1);
    if (data !== target) copyBytes(data, target);
  }
}

/** The header, and what it makes of the file's name and keys. */
async function readHeader(
  file: OpenFile,
  { name, keys }: SealedFile,
): Promise<{ segmentBytes: number; cipher: SegmentCipher }> {
  const encoded = new Uint8Array(sealHeader.sizeBytes);
  await readFully(file, encoded, 0);
  const header = sealHeader.read(encoded);
  if (!equalBytes(header.magic, Buffer.from(SEAL_MAGIC)) || header.version !== SEAL_VERSION) {
    throw new CacheDamagedError('it is no sealed file of this version');
  }
  const { segmentBytes, protection, salt } = header;
  if (protection !== keys.protection || segmentBytes === 0 || segmentBytes > SEGMENT_BYTES_MAX) {
    throw new CacheDamagedError('its header is not what was written');
  }
  return { segmentBytes, cipher: cipherOf({ name, segmentBytes, keys, salt }) };
}

function cipherOf({ name, segmentBytes, keys, salt }: Required<Seal>): SegmentCipher {
  const { protection } = keys;
  return new SegmentCipher(keys.derive(sealPurpose(name, segmentBytes, protection), salt), protection);
}

export async function readFully(file: OpenFile, target: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await readAt(file.fd, target, done, target.byteLength - done, position + done);
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
