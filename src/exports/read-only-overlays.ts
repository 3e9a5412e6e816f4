import { createHash } from 'node:crypto';
import type { ReadableDevice } from '../core/device.ts';
import type { ByteRange } from '../core/units.ts';
import type { OverlayRange } from '../device/overlay-map.ts';
import { ReadOnlyDevice } from '../device/read-only-device.ts';
import { type Overlay, type OverlayIdentity, type Overlays, type OverlayUsage, TOKEN_BYTES } from './overlays.ts';

/** The overlay of a device that takes no writes: there is none. */
class NoOverlay extends ReadOnlyDevice implements Overlay {
  readonly readOnlyReason = 'the server is read-only';

  stats(): OverlayUsage {
    return { dirtyBytes: 0 };
  }

  *changedRanges(range: ByteRange): Generator<OverlayRange> {
    yield { ...range, state: 'clean' };
  }
}

/** For a server that only shows snapshots: nothing is kept, and nothing can be lost. */
export class ReadOnlyOverlays implements Overlays {
  readonly isVolatile = false;

  async pinned(): Promise<undefined> {}

  async keyOf(): Promise<undefined> {}

  /** By all that decides the bytes: the same snapshot and layout have the same token in every process. */
  async tokenOf(_key: string, identity: OverlayIdentity): Promise<string> {
    const digest = createHash('sha256').update(JSON.stringify(identity)).digest();
    return digest.toString('hex', 0, TOKEN_BYTES);
  }

  async open(_key: string, base: ReadableDevice): Promise<Overlay> {
    return new NoOverlay(base);
  }

  async close(): Promise<void> {}
}
