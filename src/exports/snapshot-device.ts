import type { BlockDevice, ReadableDevice } from '../core/device.ts';
import { DistinctBlocks } from '../core/distinct-blocks.ts';
import { UnsupportedError, UserError } from '../core/errors.ts';
import { WRITABLE_DEVICE_BYTES_MAX } from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import { contentBytesOf, entryPath, type SnapshotTree } from '../core/snapshot-tree.ts';
import { formatBytes } from '../core/units.ts';
import { ReadOnlyDevice } from '../device/read-only-device.ts';
import type { Ext4Image } from '../ext4/image.ts';
import { isLayoutVersion, LAYOUT_VERSION, type LayoutRequest } from '../ext4/parameters.ts';
import { findLeavingLinks } from '../source/tree-links.ts';
import type { Part } from './composition.ts';
import type { OpenStore } from './open-store.ts';
import type { FrozenOverlay, Overlay, OverlayIdentity, Overlays } from './overlays.ts';
import { ReadOnlyOverlays } from './read-only-overlays.ts';
import {
  openSnapshotImage,
  type PlacedSource,
  type SnapshotImage,
  type SnapshotImageOptions,
} from './snapshot-image.ts';
import { StatusDevice } from './status-device.ts';

/** What to open, and how to lay it out. */
export interface SnapshotDeviceOptions {
  readonly store: OpenStore;
  /** The export's name, for people. */
  readonly name: string;
  /** What the disk is made of. */
  readonly parts: readonly Part[];
  readonly layout: LayoutRequest;
  readonly overlays: Overlays;
  readonly overlayKey: string;
  /** Opens the image, in the place of openSnapshotImage: where many devices have one image. */
  readonly openImage?: (options: SnapshotImageOptions) => Promise<SnapshotImage>;
  readonly log: Log;
}

/** A snapshot laid out as ext4 with its overlay: what all clients of an export share. */
export class SnapshotDevice {
  /** Takes writes. */
  readonly writable: BlockDevice;
  /** The snapshot as it is, whatever was written to the other. */
  readonly pristine: BlockDevice;
  /** The snapshot's disk, which knows what each block is. */
  readonly image: Ext4Image;
  /** See Overlays.tokenOf. */
  readonly token: string;
  /** As it was given. */
  readonly name: string;
  /** The snapshots that it shows, which know what reading their files has cost. */
  readonly placed: readonly PlacedSource[];
  readonly #overlay: Overlay;
  readonly #close: () => Promise<void>;

  private constructor(
    devices: { image: Ext4Image; overlay: Overlay; writable: BlockDevice; pristine: BlockDevice; token: string },
    { name, placed }: { name: string; placed: readonly PlacedSource[] },
    close: () => Promise<void>,
  ) {
    this.writable = devices.writable;
    this.pristine = devices.pristine;
    this.image = devices.image;
    this.token = devices.token;
    this.name = name;
    this.placed = placed;
    this.#overlay = devices.overlay;
    this.#close = close;
  }

  static async open(options: SnapshotDeviceOptions): Promise<SnapshotDevice> {
    const { store, parts, log, openImage = openSnapshotImage } = options;
    const startedMs = performance.now();
    const label = parts.map(labelOf).join(', ');
    const layoutVersion = await versionOf(options, label);
    const opened = await openImage({ store, parts, layout: options.layout, layoutVersion });
    const { image, identity, oddities } = opened;
    for (const { message, count, example } of oddities) {
      log.warn(
        { snapshot: identity.snapshotId, count, example },
        `Snapshot ${label}: ${message} (${count}, first: ${example})`,
      );
    }
    warnOfLeavingLinks(image.layout.tree, label, log);
    const overlayIdentity = { ...identity, layout: image.layout.parameters };
    const { overlay, token } = await openOverlay(options, image, overlayIdentity, label).catch(async (error) => {
      await opened.close();
      throw error;
    });
    const entries = image.layout.tree.length;
    const contentBytes = contentBytesOf(image.layout.tree);
    log.info(
      {
        snapshot: identity.snapshotId,
        path: identity.path,
        entries,
        deviceBytes: image.sizeBytes,
        contentBytes,
        dirtyBytes: overlay.stats().dirtyBytes,
        milliseconds: Math.round(performance.now() - startedMs),
      },
      `Snapshot ${label} is open: ${entries} entries on a disk of ${formatBytes(image.sizeBytes)}. Its files have ${formatBytes(contentBytes)}; where more than about a third of them is read, a restore is faster.`,
    );
    const asked = new DistinctBlocks(store.counters);
    const devices = {
      image,
      overlay,
      token,
      writable: new StatusDevice(overlay, image, overlay, asked),
      pristine: new StatusDevice(new ReadOnlyDevice(image), image, undefined, asked),
    };
    return new SnapshotDevice(devices, { name: options.name, placed: opened.placed }, async () => {
      try {
        await overlay.close();
      } finally {
        await opened.close();
      }
    });
  }

  /** Its overlay was found damaged and takes no writes. */
  get isReadOnly(): boolean {
    return this.readOnlyReason !== undefined;
  }

  /** What was found; undefined for one that takes writes. */
  get readOnlyReason(): string | undefined {
    return this.#overlay.readOnlyReason;
  }

  /** Bytes that differ from the snapshot. */
  get dirtyBytes(): number {
    return this.#overlay.stats().dirtyBytes;
  }

  /** The writable device as it is after a flush; close it before the device. Rejects with OverlayError, or UserError for one in memory. */
  async freeze(): Promise<FrozenOverlay> {
    if (this.#overlay.freeze === undefined) throw new UserError('What is in memory only cannot be copied.');
    return this.#overlay.freeze();
  }

  close(): Promise<void> {
    return this.#close();
  }
}

async function openOverlay(
  { overlays: chosen, overlayKey, log }: SnapshotDeviceOptions,
  image: ReadableDevice,
  identity: OverlayIdentity,
  label: string,
): Promise<{ overlay: Overlay; token: string }> {
  const overlays = image.sizeBytes > WRITABLE_DEVICE_BYTES_MAX ? new ReadOnlyOverlays(TOO_LARGE) : chosen;
  if (overlays !== chosen) {
    log.warn(
      { snapshot: identity.snapshotId, deviceBytes: image.sizeBytes },
      `Snapshot ${label} is served read-only: its disk has ${formatBytes(image.sizeBytes)}, and ${TOO_LARGE}. ` +
        'A directory of it (:PATH), or a smaller --free, may take writes.',
    );
  }
  const overlay = await overlays.open(overlayKey, image, identity);
  try {
    return { overlay, token: await overlays.tokenOf(overlayKey, identity) };
  } catch (error) {
    await overlay.close();
    throw error;
  }
}

const TOO_LARGE = `disks that take writes have at most ${formatBytes(WRITABLE_DEVICE_BYTES_MAX)}`;

/** The layout version of the existing overlay; undefined for a new one, which gets the newest. */
async function versionOf(
  { overlays, overlayKey, log }: SnapshotDeviceOptions,
  label: string,
): Promise<number | undefined> {
  const pinned = await overlays.pinned(overlayKey);
  if (pinned === undefined || pinned.layoutVersion === LAYOUT_VERSION) return undefined;
  const { layoutVersion } = pinned;
  if (!isLayoutVersion(layoutVersion)) {
    throw new UnsupportedError(
      `The overlay "${overlayKey}" was made over layout version ${layoutVersion}, this kloset-nbd makes versions up to ` +
        `${LAYOUT_VERSION}: serve it with a newer one, or name another overlay directory.`,
    );
  }
  log.info(
    { overlay: overlayKey, layoutVersion },
    `Snapshot ${label} is laid out as version ${layoutVersion} does, which its overlay was made over`,
  );
  return layoutVersion;
}

/** A part as messages name it: `8e457cf5`, `8e457cf5:/base`, `8e457cf5:/base=monday`. */
function labelOf({ header, path, at }: Part): string {
  return `${header.id.slice(0, 8)}${path === '/' ? '' : `:${path}`}${at === undefined ? '' : `=${at}`}`;
}

/** Symlinks that lead out of the disk are no fault of a snapshot, but of interest where it is mounted on a live host. */
function warnOfLeavingLinks(tree: SnapshotTree, label: string, log: Log): void {
  let count = 0;
  let example = '';
  for (const { entry } of findLeavingLinks(tree, '/')) {
    if (count++ === 0) example = `${entryPath(tree, entry)} -> ${Buffer.from(tree.linkTarget.get(entry)!).toString()}`;
  }
  if (count === 0) return;
  log.warn(
    { snapshot: label, count, example },
    `Snapshot ${label}: ${count} of its symlinks leave it (first: ${example}); where it is mounted they reach that machine's own files. "kloset-nbd inspect" lists them.`,
  );
}
