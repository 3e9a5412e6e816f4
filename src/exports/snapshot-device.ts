import type { BlockDevice } from '../core/device.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import { ReadOnlyDevice } from '../device/read-only-device.ts';
import { Ext4Image } from '../ext4/image.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';
import { planLayout } from '../ext4/plan.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { OpenStore } from './open-store.ts';
import type { Overlay, Overlays } from './overlays.ts';
import { StatusDevice } from './status-device.ts';

/** What to open, and how to lay it out. */
export interface SnapshotDeviceOptions {
  readonly store: OpenStore;
  readonly header: SnapshotHeader;
  /** The directory of the snapshot that becomes the root, absolute. */
  readonly path: string;
  readonly layout: LayoutRequest;
  readonly overlays: Overlays;
  readonly overlayKey: string;
  readonly log: Log;
}

/** A snapshot laid out as ext4 with its overlay: what all clients of an export share. */
export class SnapshotDevice {
  /** Takes writes. */
  readonly writable: BlockDevice;
  /** The snapshot as it is, whatever was written to the other. */
  readonly pristine: BlockDevice;
  readonly #overlay: Overlay;
  readonly #close: () => Promise<void>;

  private constructor(
    devices: { overlay: Overlay; writable: BlockDevice; pristine: BlockDevice },
    close: () => Promise<void>,
  ) {
    this.writable = devices.writable;
    this.pristine = devices.pristine;
    this.#overlay = devices.overlay;
    this.#close = close;
  }

  static async open(options: SnapshotDeviceOptions): Promise<SnapshotDevice> {
    const { store, header, path, log } = options;
    const startedMs = performance.now();
    const source = await store.openSource(header, path);
    const identity = { snapshotId: header.id, createdSeconds: source.createdSeconds, path };
    const layout = planLayout(source.tree, options.layout, identity);
    for (const { message, count, example } of [...source.oddities, ...layout.warnings]) {
      log.warn(
        { snapshot: header.id, count, example },
        `Snapshot ${header.id.slice(0, 8)}: ${message} (${count}, first: ${example})`,
      );
    }
    const image = new Ext4Image(layout, source);
    const overlayIdentity = { snapshotId: header.id, path, layout: layout.parameters };
    const overlay = await options.overlays.open(options.overlayKey, image, overlayIdentity).catch(async (error) => {
      await image.close();
      await source.close();
      throw error;
    });
    log.info(
      {
        snapshot: header.id,
        path,
        entries: source.tree.length,
        deviceBytes: image.sizeBytes,
        dirtyBytes: overlay.stats().dirtyBytes,
        milliseconds: Math.round(performance.now() - startedMs),
      },
      `Snapshot ${header.id.slice(0, 8)}${path === '/' ? '' : `:${path}`} is open: ${source.tree.length} entries on a disk of ${formatBytes(image.sizeBytes)}`,
    );
    const devices = {
      overlay,
      writable: new StatusDevice(overlay, image, overlay),
      pristine: new StatusDevice(new ReadOnlyDevice(image), image, undefined),
    };
    return new SnapshotDevice(devices, async () => {
      try {
        await overlay.close();
      } finally {
        await image.close();
        await source.close();
      }
    });
  }

  /** Bytes that differ from the snapshot. */
  get dirtyBytes(): number {
    return this.#overlay.stats().dirtyBytes;
  }

  close(): Promise<void> {
    return this.#close();
  }
}
