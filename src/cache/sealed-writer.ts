import type { FileHandle } from 'node:fs/promises';
import { beginSeal, type SealKeys, type SegmentCipher, sealHeader } from './sealed-format.ts';

/** Writes a sealed file from beginning to end; the handle stays the caller's. Failures are Node's own errors. */
export class SealedWriter {
  readonly #file: FileHandle;
  readonly #cipher: SegmentCipher;
  readonly #segment: Uint8Array;
  #filled = 0;
  #index = 0;
  #position = sealHeader.sizeBytes;

  private constructor(file: FileHandle, cipher: SegmentCipher, segmentBytes: number) {
    this.#file = file;
    this.#cipher = cipher;
    this.#segment = new Uint8Array(segmentBytes);
  }

  /** Begins a file: `name` is what it is opened by, wherever it lies. */
  static async create(
    file: FileHandle,
    seal: { name: string; segmentBytes: number; keys: SealKeys },
  ): Promise<SealedWriter> {
    const { header, cipher } = beginSeal(seal);
    await writeFully(file, [header], 0);
    return new SealedWriter(file, cipher, seal.segmentBytes);
  }

  /** Appends bytes; the buffer is the caller's again once this settles. */
  async write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.byteLength; ) {
      // A full segment waits for more: only `finish` knows that it was the last.
      if (this.#filled === this.#segment.byteLength) await this.#flush(false);
      const length = Math.min(data.byteLength - at, this.#segment.byteLength - this.#filled);
      this.#segment.set(data.subarray(at, at + length), this.#filled);
      this.#filled += length;
      at += length;
    }
  }

  /** Writes what is left. Without it the file opens nothing. */
  async finish(): Promise<void> {
    await this.#flush(true);
  }

  async #flush(isLast: boolean): Promise<void> {
    const data = this.#segment.subarray(0, this.#filled);
    const { stored, tag } = this.#cipher.seal(data, this.#index++, isLast);
    await writeFully(this.#file, [stored, tag], this.#position);
    this.#position += stored.byteLength + tag.byteLength;
    this.#filled = 0;
  }
}

/** Writes all buffers one behind the other: a nearly full disk takes less than it is given before it says so. */
async function writeFully(file: FileHandle, buffers: readonly Uint8Array[], position: number): Promise<void> {
  const whole = buffers.length === 1 ? buffers[0]! : Buffer.concat(buffers);
  for (let done = 0; done < whole.byteLength; ) {
    done += (await file.write(whole, done, whole.byteLength - done, position + done)).bytesWritten;
  }
}
