import { createHash } from 'node:crypto';
import type { ReadableDevice } from '../core/device.ts';
import type { ByteRange } from '../core/units.ts';
import type { OverlayRange } from '../device/overlay-map.ts';
import { TOKEN_BYTES } from '../device/overlay-metadata.ts';
import { ReadOnlyDevice } from '../device/read-only-device.ts';
import type { Overlay, OverlayIdentity, Overlays, OverlayUsage } from './overlays.ts';

/** The overlay of a device that takes no writes: there is none. */
class NoOverlay extends ReadOnlyDevice implements Overlay {
  readonly readOnlyReason: string;

  constructor(base: ReadableDevice, reason: string) {
    super(base);
    this.readOnlyReason = reason;
  }

  stats(): OverlayUsage {
    return { dirtyBytes: 0 };
  }

  *changedRanges(range: ByteRange): Generator<OverlayRange> {
    yield { ...range, state: 'clean' };
  }
}

/** For a server that only shows snapshots, or a device that is too large to be written: nothing is kept, and nothing can be lost. */
export class ReadOnlyOverlays implements Overlays {
  readonly isVolatile = false;
  readonly #reason: string;

  /** `reason`: why there are no writes, for clients. */
  constructor(reason = 'the server is read-only') {
    this.#reason = reason;
  }

  async pinned(): Promise<undefined> {}

  async keyOf(): Promise<undefined> {}

  /** By all that decides the bytes: the same snapshot and layout have the same token in every process. */
  async tokenOf(_key: string, identity: OverlayIdentity): Promise<string> {
    const digest = createHash('sha256').update(JSON.stringify(identity)).digest();
    return digest.toString('hex', 0, TOKEN_BYTES);
  }

  async open(_key: string, base: ReadableDevice): Promise<Overlay> {
    return new NoOverlay(base, this.#reason);
  }

  async close(): Promise<void> {}
}
