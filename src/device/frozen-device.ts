import type { ReadableDevice } from '../core/device.ts';
import type { ByteRange } from '../core/units.ts';
import type { BlockMap } from './block-map.ts';
import type { FrozenBlocks } from './block-store.ts';
import { type OverlayRange, rangesOf } from './overlay-map.ts';

/** A device with its overlay as both were at one moment. While it is open the overlay gives no space back. */
export class FrozenDevice implements ReadableDevice {
  readonly sizeBytes: number;
  /** What of the log it is made of. */
  readonly blocks: Omit<FrozenBlocks, 'map' | 'release'>;
  readonly #frozen: FrozenBlocks;
  readonly #read: (map: BlockMap, offset: number, target: Uint8Array) => Promise<void>;

  /** `read` reads the device by a map of its blocks. */
  constructor(
    sizeBytes: number,
    frozen: FrozenBlocks,
    read: (map: BlockMap, offset: number, target: Uint8Array) => Promise<void>,
  ) {
    this.sizeBytes = sizeBytes;
    this.blocks = frozen;
    this.#frozen = frozen;
    this.#read = read;
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return this.#read(this.#frozen.map, offset, target);
  }

  changedRanges(range: ByteRange): Iterable<OverlayRange> {
    return rangesOf(this.#frozen.map, range);
  }

  /** Nothing may be read any more, and nothing is being read. */
  async close(): Promise<void> {
    this.#frozen.release();
  }
}
