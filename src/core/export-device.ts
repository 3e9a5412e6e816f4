/** What a device may offer beyond device.ts; a server advertises what it finds. */
import type { BlockDevice } from './device.ts';
import type { StopOptions } from './stop.ts';
import type { ByteRange } from './units.ts';

/** A run of bytes in one state. */
export interface DeviceExtent {
  /** Bytes, at least 1. */
  readonly length: number;
  /** Nothing is allocated behind it: writing there may find the overlay full. */
  readonly hole: boolean;
  /** Reads as zeroes, for certain. */
  readonly zero: boolean;
  /** Written since the snapshot. */
  readonly dirty: boolean;
}

export interface ExportDevice extends BlockDevice {
  readonly supports: BlockDevice['supports'] & {
    /** writeZeroes costs clearly less than a write of as many bytes, however long the range. */
    readonly fastZero?: boolean;
  };
  /**
   * The state of the device from `range.offset` on, as extents without gaps, at least one and at most `extentsMax`.
   * They may end before the range does, and the last may reach beyond it. Reads no chunks: only what is known.
   */
  status?(range: ByteRange, options: { extentsMax: number }): Promise<readonly DeviceExtent[]>;
  /** Brings what is behind the range closer; may settle before it is there. Changes nothing a client can see but speed. */
  cache?(range: ByteRange, options?: StopOptions): Promise<void>;
}
