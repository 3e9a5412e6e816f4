import { KiB, MiB } from './units.ts';

/** Smaller ones are not worth keeping. */
const KEPT_EACH_BYTES_MIN = 64 * KiB;
/** All that are kept: stored forms of what a scan has in flight. What is not kept is garbage, and grows until it is collected. */
const KEPT_BYTES_MAX = 32 * MiB;
/** Sizes are multiples of this, or of an eighth of the power of two above: one serves others of about its size. */
const STEP_BYTES = 64 * KiB;
/** A buffer that is so many times as large as asked for is left for a larger value. */
const EXCESS_MAX = 2;

/**
 * Shared memory, used again: each buffer that a worker thread has seen lives until that thread, too, has collected its
 * garbage, which shared memory does not make it do. That adds up to gigabytes while a disk is read.
 */
export class SharedBuffers {
  /** The one given back last at the end. */
  readonly #kept: SharedArrayBuffer[] = [];
  #keptBytes = 0;

  /** `length` bytes of any content; the caller gives them back when nobody reads them any more. */
  take(length: number): Uint8Array<SharedArrayBuffer> {
    if (length < KEPT_EACH_BYTES_MIN) return new Uint8Array(new SharedArrayBuffer(length));
    const kept = this.#takeKept(length);
    if (kept !== undefined) return new Uint8Array(kept, 0, length);
    const step = Math.max(STEP_BYTES, 2 ** Math.ceil(Math.log2(length)) / 8);
    return new Uint8Array(new SharedArrayBuffer(Math.ceil(length / step) * step), 0, length);
  }

  /** Anything but shared memory is left alone. */
  give({ buffer }: Uint8Array): void {
    if (!(buffer instanceof SharedArrayBuffer)) return;
    const size = buffer.byteLength;
    if (size < KEPT_EACH_BYTES_MIN || this.#keptBytes + size > KEPT_BYTES_MAX) return;
    this.#kept.push(buffer);
    this.#keptBytes += size;
  }

  /** The smallest that is large enough. */
  #takeKept(length: number): SharedArrayBuffer | undefined {
    let best = -1;
    for (let i = 0; i < this.#kept.length; i++) {
      const size = this.#kept[i]!.byteLength;
      if (size < length || size > length * EXCESS_MAX) continue;
      if (best === -1 || size < this.#kept[best]!.byteLength) best = i;
    }
    if (best === -1) return undefined;
    const [kept] = this.#kept.splice(best, 1);
    this.#keptBytes -= kept!.byteLength;
    return kept;
  }
}
