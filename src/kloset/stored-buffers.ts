import { KiB, MiB } from '../core/units.ts';

/** Smaller ones are not worth keeping. */
const KEPT_EACH_BYTES_MIN = 64 * KiB;
/** All that are kept: as many as are in flight at once when large directories are read. */
const KEPT_BYTES_MAX = 32 * MiB;

/**
 * Shared memory for stored bytes, used again: each buffer that a worker thread has seen lives until that thread, too,
 * has collected its garbage, which adds up to hundreds of MiB while a big snapshot is opened.
 */
export class StoredBuffers {
  /** By size, a power of two. */
  readonly #kept = new Map<number, SharedArrayBuffer[]>();
  #keptBytes = 0;

  /** `length` bytes of any content; the caller gives them back when nobody reads them any more. */
  take(length: number): Uint8Array<SharedArrayBuffer> {
    if (length < KEPT_EACH_BYTES_MIN) return new Uint8Array(new SharedArrayBuffer(length));
    const size = 2 ** Math.ceil(Math.log2(length));
    const kept = this.#kept.get(size)?.pop();
    if (kept !== undefined) this.#keptBytes -= size;
    return new Uint8Array(kept ?? new SharedArrayBuffer(size), 0, length);
  }

  give({ buffer }: Uint8Array<SharedArrayBuffer>): void {
    const size = buffer.byteLength;
    if (size < KEPT_EACH_BYTES_MIN || this.#keptBytes + size > KEPT_BYTES_MAX) return;
    const kept = this.#kept.get(size) ?? [];
    this.#kept.set(size, kept);
    kept.push(buffer);
    this.#keptBytes += size;
  }
}
