import type { BlockDevice } from '../../src/core/device.ts';
import { assert } from '../../src/core/errors.ts';
import { BLOCK_SIZE, type ByteRange } from '../../src/core/units.ts';

/**
 * The model other devices are compared with: a flat array of bytes, every promise of the contract kept in the most
 * obvious way. Writes land before the call returns, so nothing is ever in flight for long.
 */
export class MemoryDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly supports: BlockDevice['supports'];
  /** The content itself: tests may look at it and change it. Fresh pages cost no memory until they are touched. */
  readonly content: Uint8Array;
  /** How often `flush` settled. */
  flushCount = 0;
  closed = false;

  /** `content` is kept, not copied; a number makes that many zero bytes. Its length is a multiple of BLOCK_SIZE. */
  constructor(content: Uint8Array | number, supports: Partial<BlockDevice['supports']> = {}) {
    this.content = typeof content === 'number' ? new Uint8Array(content) : content;
    this.sizeBytes = this.content.byteLength;
    assert(this.sizeBytes % BLOCK_SIZE === 0, 'a device is a whole number of blocks');
    this.supports = { fua: true, trim: true, multiConn: true, ...supports };
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#check({ offset, length: target.byteLength });
    target.set(this.content.subarray(offset, offset + target.byteLength));
  }

  async write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void> {
    this.#check({ offset, length: source.byteLength }, options);
    this.content.set(source, offset);
  }

  async writeZeroes(range: ByteRange, options: { fua: boolean; mayTrim: boolean }): Promise<void> {
    this.#check(range, options);
    this.content.fill(0, range.offset, range.offset + range.length);
  }

  async trim(range: ByteRange, options: { fua: boolean }): Promise<void> {
    assert(this.supports.trim, 'trim on a device that does not support it');
    this.#check(range, options);
    const start = Math.ceil(range.offset / BLOCK_SIZE) * BLOCK_SIZE;
    const end = Math.floor((range.offset + range.length) / BLOCK_SIZE) * BLOCK_SIZE;
    if (end > start) this.content.fill(0, start, end);
  }

  async flush(): Promise<void> {
    assert(!this.closed, 'the device is closed');
    this.flushCount++;
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  #check({ offset, length }: ByteRange, { fua } = { fua: false }): void {
    assert(!this.closed, 'the device is closed');
    assert(!fua || this.supports.fua, 'FUA on a device that does not support it');
    assert(Number.isSafeInteger(offset) && Number.isSafeInteger(length), 'offset and length are integers');
    assert(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes, 'the range lies inside the device');
  }
}
