/** Devices that come and go beneath their clients: opened when first asked for, shared, kept warm for a while, closed. */
import type { Log } from '../core/log.ts';
import type { SnapshotDevice } from './snapshot-device.ts';

/** Devices kept open that nobody is attached to: a client that comes back finds its caches warm. */
const IDLE_DEVICES_MAX = 8;

/** A device that is open or being opened, and how many hold it. */
interface Entry {
  readonly device: Promise<SnapshotDevice>;
  /** The same once it is open. */
  opened: SnapshotDevice | undefined;
  holders: number;
}

/** A device in somebody's hands. */
export interface DeviceHold {
  /** Rejects as the opening does. */
  readonly device: Promise<SnapshotDevice>;
  /** Idempotent. */
  release(): void;
}

export interface OpenDevicesOptions {
  /** Whether a device that nobody holds may be closed to make room. */
  readonly mayClose: (device: SnapshotDevice) => boolean;
  readonly log: Log;
}

export class OpenDevices {
  readonly #options: OpenDevicesOptions;
  /** In the order of use: what was taken or given back last comes last. */
  readonly #open = new Map<string, Entry>();
  /** Devices being closed: the same one opens again only when that is done, since two must never have one overlay. */
  readonly #closing = new Map<string, Promise<void>>();
  /** Called when a device has no holder left. */
  readonly #whenIdle = new Map<string, (() => void)[]>();

  constructor(options: OpenDevicesOptions) {
    this.#options = options;
  }

  /** Shares the device if it is open, else calls `open`. */
  hold(deviceId: string, open: () => Promise<SnapshotDevice>): DeviceHold {
    let entry = this.#open.get(deviceId);
    if (entry === undefined) {
      entry = this.#openDevice(deviceId, open);
    } else {
      this.#open.delete(deviceId); // Set again below: the map's order is that of use.
    }
    this.#open.set(deviceId, entry);
    entry.holders++;
    const held = entry;
    let isHeld = true;
    return {
      device: entry.device,
      release: () => {
        if (isHeld) this.#release(deviceId, held);
        isHeld = false;
      },
    };
  }

  /** The device if it is open. */
  opened(deviceId: string): SnapshotDevice | undefined {
    return this.#open.get(deviceId)?.opened;
  }

  /** Those that hold the device now. */
  holders(deviceId: string): number {
    return this.#open.get(deviceId)?.holders ?? 0;
  }

  /** Those that are open now. */
  get all(): readonly SnapshotDevice[] {
    return [...this.#open.values()].flatMap(({ opened }) => opened ?? []);
  }

  /** Bytes of all open devices that differ from their snapshots. */
  get dirtyBytes(): number {
    let bytes = 0;
    for (const { opened } of this.#open.values()) bytes += opened?.dirtyBytes ?? 0;
    return bytes;
  }

  /** Resolves once nobody holds the device. */
  async untilIdle(deviceId: string): Promise<void> {
    while (this.holders(deviceId) > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle.set(deviceId, [...(this.#whenIdle.get(deviceId) ?? []), resolve]);
      });
    }
  }

  /** Flushes and closes a device that nobody holds, if it is open. Rejects if what was written could not be made durable. */
  async closeIdle(deviceId: string): Promise<void> {
    const { opened } = this.#open.get(deviceId) ?? {};
    if (opened !== undefined) await this.#close(deviceId, opened);
    else await this.#closing.get(deviceId);
  }

  /** Flushes and closes every device. Rejects with the first flush that failed, after all are closed. */
  async close(): Promise<void> {
    // What could not be opened needs no closing, and whoever asked for it was told.
    await Promise.allSettled([...this.#open.values()].map(({ device }) => device));
    for (const [deviceId, { opened }] of [...this.#open]) {
      if (opened !== undefined) this.#close(deviceId, opened);
    }
    const results = await Promise.allSettled(this.#closing.values());
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  #openDevice(deviceId: string, openNow: () => Promise<SnapshotDevice>): Entry {
    const closed = this.#closing.get(deviceId) ?? Promise.resolve();
    // How the closing ended was logged there; the overlay itself knows what it lost, if anything.
    const entry: Entry = { device: closed.then(openNow, openNow), opened: undefined, holders: 0 };
    entry.device.then(
      (device) => {
        entry.opened = device;
      },
      // The next one who asks tries again. By identity: the entry may be another's by now.
      () => {
        if (this.#open.get(deviceId) === entry) this.#open.delete(deviceId);
        this.#tellIdle(deviceId);
      },
    );
    return entry;
  }

  #release(deviceId: string, entry: Entry): void {
    entry.holders--;
    if (this.#open.get(deviceId) !== entry) return; // Everything was closed meanwhile.
    this.#open.delete(deviceId);
    this.#open.set(deviceId, entry);
    if (entry.holders === 0) this.#tellIdle(deviceId);
    this.#closeSurplus();
  }

  #tellIdle(deviceId: string): void {
    const waiting = this.#whenIdle.get(deviceId) ?? [];
    this.#whenIdle.delete(deviceId);
    for (const resolve of waiting) resolve();
  }

  /** Closes the devices that were idle longest. */
  #closeSurplus(): void {
    const { mayClose, log } = this.#options;
    const idle: [deviceId: string, device: SnapshotDevice][] = [];
    for (const [deviceId, { holders, opened }] of this.#open) {
      if (holders === 0 && opened !== undefined && mayClose(opened)) idle.push([deviceId, opened]);
    }
    for (const [deviceId, device] of idle.slice(0, Math.max(0, idle.length - IDLE_DEVICES_MAX))) {
      this.#close(deviceId, device).catch((error) =>
        log.error({ err: error }, `An idle device could not be closed: ${(error as Error).message}`),
      );
    }
  }

  /** Takes a device out of the open ones, flushes and closes it. */
  #close(deviceId: string, device: SnapshotDevice): Promise<void> {
    this.#open.delete(deviceId);
    this.#tellIdle(deviceId);
    const closing = (async () => {
      try {
        await device.writable.flush();
      } finally {
        await device.close();
      }
    })();
    this.#closing.set(deviceId, closing);
    const forget = () => void this.#closing.delete(deviceId);
    closing.then(forget, forget);
    return closing;
  }
}
