import type { Reach } from '../core/device.ts';
import type { DistinctBlocks } from '../core/distinct-blocks.ts';
import type { DeviceExtent, ExportDevice } from '../core/export-device.ts';
import type { StopOptions } from '../core/stop.ts';
import type { ByteRange } from '../core/units.ts';
import { BLOCK_SIZE, roundUp } from '../core/units.ts';
import type { OverlayRange } from '../device/overlay-map.ts';
import type { Overlay } from './overlays.ts';

/** A base that knows without reading which of its ranges hold nothing but zeroes. */
export interface KnownZeroes {
  /** Brings a range of whole blocks closer. */
  cache(range: ByteRange, options?: StopOptions): Promise<void>;
  /** Extents of whole blocks that cover the range, which is made of whole blocks, without gaps. */
  extents(range: ByteRange): Iterable<ByteRange & { readonly zero: boolean }>;
}

/** A device with its block status: what is a hole, what is zero, and what was written since the snapshot. */
export class StatusDevice implements ExportDevice {
  readonly sizeBytes: number;
  readonly supports: ExportDevice['supports'];
  readonly #device: Omit<ExportDevice, 'status' | 'cache'>;
  readonly #base: KnownZeroes;
  readonly #changes: Pick<Overlay, 'changedRanges'> | undefined;
  readonly #asked: DistinctBlocks | undefined;

  /**
   * `changes`: what was written over `base`; undefined for a device that is the base itself. `asked` is told which blocks
   * are read. Borrows all.
   */
  constructor(
    device: Omit<ExportDevice, 'status' | 'cache'>,
    base: KnownZeroes,
    changes: Pick<Overlay, 'changedRanges'> | undefined,
    asked?: DistinctBlocks,
  ) {
    this.sizeBytes = device.sizeBytes;
    // Zeroes cost a record of a few bytes, however long the range.
    this.supports = { ...device.supports, fastZero: changes !== undefined };
    this.#device = device;
    this.#base = base;
    this.#changes = changes;
    this.#asked = asked;
  }

  read(offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    this.#asked?.add(offset, target.length);
    return this.#device.read(offset, target, options);
  }

  readNow(offset: number, target: Uint8Array, reach?: Reach): boolean {
    if (this.#device.readNow?.(offset, target, reach) !== true) return false;
    this.#asked?.add(offset, target.length);
    return true;
  }

  write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void> {
    return this.#device.write(offset, source, options);
  }

  writeNow(offset: number, source: Uint8Array): boolean {
    return this.#device.writeNow?.(offset, source) ?? false;
  }

  writeZeroes(range: ByteRange, options: { fua: boolean; mayTrim: boolean }): Promise<void> {
    return this.#device.writeZeroes(range, options);
  }

  trim(range: ByteRange, options: { fua: boolean }): Promise<void> {
    return this.#device.trim(range, options);
  }

  flush(): Promise<void> {
    return this.#device.flush();
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  async status(range: ByteRange, { extentsMax }: { extentsMax: number }): Promise<readonly DeviceExtent[]> {
    const start = range.offset - (range.offset % BLOCK_SIZE);
    const end = roundUp(range.offset + range.length, BLOCK_SIZE);
    const found: DeviceExtent[] = [];
    for (const extent of this.#extents({ offset: start, length: end - start })) {
      const last = found.at(-1);
      if (last !== undefined && sameState(last, extent)) {
        found[found.length - 1] = { ...last, length: last.length + extent.length };
      } else if (found.push(extent) > extentsMax) {
        found.pop();
        break;
      }
    }
    const [first, ...rest] = found;
    // The range may begin inside a block.
    return [{ ...first!, length: first!.length - (range.offset - start) }, ...rest];
  }

  async cache({ offset, length }: ByteRange, options?: StopOptions): Promise<void> {
    const start = offset - (offset % BLOCK_SIZE);
    const range = { offset: start, length: roundUp(offset + length, BLOCK_SIZE) - start };
    const runs: Iterable<OverlayRange> = this.#changes?.changedRanges(range) ?? [{ ...range, state: 'clean' }];
    // What was written is in memory, or in a file of this machine.
    for (const run of runs) if (run.state === 'clean') await this.#base.cache(run, options);
  }

  *#extents(range: ByteRange): Generator<DeviceExtent> {
    const runs: Iterable<OverlayRange> = this.#changes?.changedRanges(range) ?? [{ ...range, state: 'clean' }];
    for (const { offset, length, state } of runs) {
      if (state !== 'clean') {
        const zero = state === 'zero';
        yield { length, hole: zero, zero, dirty: true };
        continue;
      }
      for (const extent of this.#base.extents({ offset, length })) {
        yield { length: extent.length, hole: extent.zero, zero: extent.zero, dirty: false };
      }
    }
  }
}

function sameState(a: DeviceExtent, b: DeviceExtent): boolean {
  return a.hole === b.hole && a.zero === b.zero && a.dirty === b.dirty;
}
