import { assert, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { toHex } from '../core/mac.ts';
import type { Part } from '../exports/composition.ts';
import { type DeviceHold, OpenDevices } from '../exports/open-devices.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { Overlays } from '../exports/overlays.ts';
import { SharedImages } from '../exports/shared-images.ts';
import { SnapshotDevice } from '../exports/snapshot-device.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { type CloneRecord, overlayKeyOf } from './clone-record.ts';

export interface CloneDevicesOptions {
  /** Called when a device is opened. */
  readonly store: () => Promise<OpenStore>;
  readonly overlays: Overlays;
  readonly log: Log;
}

/** By what a clone's device is known: another one after a reset. */
export function deviceIdOf(record: CloneRecord): string {
  return `clone:${overlayKeyOf(record)}`;
}

/** The devices of clones, and who has them. */
export class CloneDevices {
  readonly #options: CloneDevicesOptions;
  readonly #devices: OpenDevices;
  /** Fifty clones of one snapshot have its tree in memory once. */
  readonly #images = new SharedImages();
  /** The snapshots of all clones that have been opened, by id. */
  readonly #served = new Map<string, SnapshotHeader>();
  /** Clients by device. */
  readonly #clients = new Map<string, number>();

  constructor(options: CloneDevicesOptions) {
    this.#options = options;
    this.#devices = new OpenDevices({ mayClose: () => true, log: options.log });
  }

  /** For this process's own use: the clone does not count as connected. */
  hold(record: CloneRecord): DeviceHold {
    return this.#devices.hold(deviceIdOf(record), () => this.#open(record));
  }

  /** For a client. */
  attach(record: CloneRecord): DeviceHold {
    const id = deviceIdOf(record);
    const hold = this.hold(record);
    this.#clients.set(id, this.clients(record) + 1);
    let isAttached = true;
    const release = () => {
      if (!isAttached) return;
      isAttached = false;
      const left = this.clients(record) - 1;
      if (left === 0) this.#clients.delete(id);
      else this.#clients.set(id, left);
      hold.release();
    };
    // Whoever waits for the device is told; the client was never there.
    hold.device.catch(release);
    return { device: hold.device, release };
  }

  clients(record: CloneRecord): number {
    return this.#clients.get(deviceIdOf(record)) ?? 0;
  }

  /** Clients, views and copies that have the device. */
  holders(record: CloneRecord): number {
    return this.#devices.holders(deviceIdOf(record));
  }

  untilIdle(record: CloneRecord): Promise<void> {
    return this.#devices.untilIdle(deviceIdOf(record));
  }

  /** Closes the device, which nobody holds. */
  async closeIdle(record: CloneRecord): Promise<void> {
    assert(this.holders(record) === 0, 'a device in use is not closed');
    await this.#devices.closeIdle(deviceIdOf(record));
  }

  /** The snapshots of all clones that have been opened. */
  get served(): readonly SnapshotHeader[] {
    return [...this.#served.values()];
  }

  /** Those that are open now. */
  get open(): readonly SnapshotDevice[] {
    return this.#devices.all;
  }

  /** Bytes of all open clones that differ from their snapshots. */
  get dirtyBytes(): number {
    return this.#devices.dirtyBytes;
  }

  close(): Promise<void> {
    return this.#devices.close();
  }

  async #open(record: CloneRecord): Promise<SnapshotDevice> {
    const { overlays, log } = this.#options;
    const store = await this.#options.store();
    // It may be younger than the list of the store's snapshots.
    if (!hasSnapshots(record, store)) await store.refresh();
    const parts = partsOf(record, store);
    for (const { header } of parts) this.#served.set(header.id, header);
    return SnapshotDevice.open({
      store,
      name: record.name,
      parts,
      layout: record.layout,
      overlays,
      overlayKey: overlayKeyOf(record),
      openImage: (options) => this.#images.open(options),
      log,
    });
  }
}

function hasSnapshots({ parts }: CloneRecord, { snapshots }: OpenStore): boolean {
  return parts.every(({ snapshot }) => snapshots.some(({ id }) => id === snapshot));
}

/** Throws UserError if the store is another one, or does not have the snapshot. */
function partsOf({ name, parts, storeId }: CloneRecord, store: OpenStore): Part[] {
  if (toHex(store.repository.config.repositoryId) !== storeId) {
    throw new UserError(`The clone "${name}" is of a snapshot of another store: open that one with --store.`);
  }
  return parts.map(({ snapshot, path, at }) => {
    const header = store.snapshots.find(({ id }) => id === snapshot);
    if (header !== undefined) return { header, path, at: at ?? undefined };
    throw new UserError(
      `The clone "${name}" is of snapshot ${snapshot.slice(0, 8)}, which the store no longer holds. ` +
        'Bring the snapshot back, or remove the clone.',
    );
  });
}
