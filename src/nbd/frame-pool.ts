import { assert } from '../core/errors.ts';
import { KiB, MiB } from '../core/units.ts';

/** Room for the longest reply header: 32 bytes of an extended reply and the 8 of OFFSET_DATA; rounded up to keep data aligned. */
export const HEADROOM_BYTES = 64;

/** Data sizes that are kept, powers of two; a frame without data holds headers only. */
const SMALLEST_BYTES = 4 * KiB;
const LARGEST_BYTES = 1 * MiB;
const EXPONENT_OF_SMALLEST = 12;

/**
 * A reply being made: data, and in front of it room for the header, so that both leave as one slice. It is the pool's
 * again once the socket has said that the bytes are written, and not before: Node does not copy what it sends.
 */
export class Frame {
  /** Headroom and capacity. */
  readonly bytes: Buffer;
  /** Bytes of data it can hold. */
  readonly capacity: number;
  /** The last views that were cut: requests of one size come in rows, and views cost more than comparing. */
  #data: Buffer;
  #slice: Buffer;

  constructor(capacity: number) {
    // Slow: not from Node's pool, whose slabs a kept frame would hold on to.
    this.bytes = Buffer.allocUnsafeSlow(HEADROOM_BYTES + capacity);
    this.capacity = capacity;
    this.#data = this.bytes.subarray(HEADROOM_BYTES);
    this.#slice = this.bytes;
  }

  /** The first `length` bytes of data. */
  data(length: number): Buffer {
    if (this.#data.length !== length) this.#data = this.bytes.subarray(HEADROOM_BYTES, HEADROOM_BYTES + length);
    return this.#data;
  }

  /** What is sent: a header of `headerBytes`, written against the end of the headroom, and `length` bytes of data. */
  slice(headerBytes: number, length: number): Buffer {
    const start = HEADROOM_BYTES - headerBytes;
    if (this.#slice.byteOffset !== this.bytes.byteOffset + start || this.#slice.length !== headerBytes + length) {
      this.#slice = this.bytes.subarray(start, HEADROOM_BYTES + length);
    }
    return this.#slice;
  }
}

/** Frames kept for reuse, at most `bytesMax` bytes of them. One pool serves all connections. */
export class FramePool {
  readonly #bytesMax: number;
  /** By size class: 0 for headers only, then 4 KiB, 8 KiB, ... 1 MiB. */
  readonly #free: Frame[][] = [];
  #freeBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    for (let i = 0; i <= sizeClass(LARGEST_BYTES); i++) this.#free.push([]);
  }

  /** Bytes kept at the moment. */
  get keptBytes(): number {
    return this.#freeBytes;
  }

  /** A frame for `length` bytes of data. What is in it is of no meaning, and of another client: fill it whole. */
  take(length: number): Frame {
    if (length > LARGEST_BYTES) return new Frame(length);
    const index = sizeClass(length);
    const frame = this.#free[index]!.pop();
    if (frame === undefined) return new Frame(index === 0 ? 0 : SMALLEST_BYTES << (index - 1));
    this.#freeBytes -= frame.bytes.length;
    return frame;
  }

  /** Gives a frame back that nobody reads or writes any more. */
  give(frame: Frame): void {
    if (frame.capacity > LARGEST_BYTES || this.#freeBytes + frame.bytes.length > this.#bytesMax) return;
    const free = this.#free[sizeClass(frame.capacity)];
    assert(free, 'every capacity up to the largest has a class');
    free.push(frame);
    this.#freeBytes += frame.bytes.length;
  }
}

function sizeClass(length: number): number {
  if (length === 0) return 0;
  if (length <= SMALLEST_BYTES) return 1;
  return 33 - Math.clz32(length - 1) - EXPONENT_OF_SMALLEST;
}
