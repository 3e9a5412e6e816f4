import { assert } from '../../src/core/errors.ts';
import type { DeviceExtent, ExportDevice } from '../../src/core/export-device.ts';
import { BLOCK_SIZE, type ByteRange } from '../../src/core/units.ts';
import { MemoryDevice } from './memory-device.ts';

/** A memory device with all that the NBD server knows to offer: block status by looking, fast zeroes, prefetch. */
export class StatusDevice extends MemoryDevice implements ExportDevice {
  override readonly supports = { fua: true, trim: true, multiConn: true, fastZero: true };
  /** Ranges asked for with `cache`. */
  readonly cached: ByteRange[] = [];
  readonly #original: Uint8Array;

  constructor(content: Uint8Array | number) {
    super(content);
    this.#original = this.content.slice();
  }

  async status({ offset, length }: ByteRange, { extentsMax }: { extentsMax: number }): Promise<DeviceExtent[]> {
    assert(length > 0 && offset + length <= this.sizeBytes, 'the range lies inside the device');
    const extents: { length: number; hole: boolean; zero: boolean; dirty: boolean }[] = [];
    for (let at = offset; at < offset + length; ) {
      const start = at - (at % BLOCK_SIZE);
      const end = start + BLOCK_SIZE;
      const block = this.content.subarray(start, end);
      const zero = block.every((byte) => byte === 0);
      const dirty = Buffer.compare(block, this.#original.subarray(start, end)) !== 0;
      const last = extents.at(-1);
      if (last?.zero === zero && last.dirty === dirty) last.length += end - at;
      else if (extents.length === extentsMax) break;
      else extents.push({ length: end - at, hole: zero, zero, dirty });
      at = end;
    }
    return extents;
  }

  async cache(range: ByteRange): Promise<void> {
    this.cached.push(range);
  }
}
