import type { BlockDevice, ReadableDevice } from '../core/device.ts';
import type { ByteRange } from '../core/units.ts';
import type { OverlayRange } from '../device/overlay-map.ts';
import type { LayoutParameters } from '../ext4/parameters.ts';

/** What an overlay belongs to; one made for something else is refused. */
export interface OverlayIdentity {
  readonly snapshotId: string;
  /** Where in the snapshot the device's root is: an absolute path. */
  readonly path: string;
  readonly layout: LayoutParameters;
}

/** What an existing overlay says before it is opened. */
export interface PinnedIdentity {
  readonly snapshotId: string;
  readonly path: string;
  /** Which version of the layout it was made over. */
  readonly layoutVersion: number;
}

/** Space that overlays take. */
export interface OverlayUsage {
  /** Bytes of the device that differ from the snapshot. */
  readonly dirtyBytes: number;
}

/** A device with its overlay as both were at one moment. Closed by whoever asked for it. */
export interface FrozenOverlay extends ReadableDevice {
  changedRanges(range: ByteRange): Iterable<OverlayRange>;
}

/** The overlay of one device. */
export interface Overlay extends BlockDevice {
  /** Why it takes no writes (it was found damaged); undefined for a sound one. */
  readonly readOnlyReason?: string | undefined;
  stats(): OverlayUsage;
  /** What was written since the snapshot, in order and without gaps. The range is made of whole blocks. */
  changedRanges(range: ByteRange): Iterable<OverlayRange>;
  /** Flushes, then holds what there is, while writes go on. Rejects with OverlayError or, for one in memory, UserError. */
  freeze?(): Promise<FrozenOverlay>;
}

/** Makes overlays: in memory, or in a directory where they survive. */
export interface Overlays {
  /** Volatile overlays die with the process. */
  readonly isVolatile: boolean;
  /** What the existing overlay `key` was made for, or undefined if there is none. */
  pinned(key: string): Promise<PinnedIdentity | undefined>;
  /** The key of an existing overlay of that snapshot and path, or undefined. */
  keyOf(snapshotId: string, path: string): Promise<string | undefined>;
  /**
   * What tells the device that `open` has just given from all others, 128 bits as hex: the same for as long as its bytes
   * are kept, another one when they are not.
   */
  tokenOf(key: string, identity: OverlayIdentity): Promise<string>;
  /** Opens or creates; rejects with UserError if the existing one was made with another identity. */
  open(key: string, base: ReadableDevice, identity: OverlayIdentity): Promise<Overlay>;
  close(): Promise<void>;
}
