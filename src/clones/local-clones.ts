/**
 * The clones of a directory in the hands of the process that holds its lock.
 *
 * Everything that changes a clone, and every client that attaches to one, has its turn: a client never gets a device
 * that is about to be removed. Once attached, it is only in the way: reset, removal and expiry want the clone for
 * themselves; copies and views are taken while it goes on.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import { KeyedMutex } from '../core/keyed-mutex.ts';
import type { Log } from '../core/log.ts';
import { checkOverlay } from '../device/check-overlay.ts';
import { nodeFileSystem } from '../device/file-system.ts';
import { ReadOnlyDevice } from '../device/read-only-device.ts';
import { KeptOverlays, type OverlaySettings } from '../exports/directory-overlays.ts';
import type { DeviceHold } from '../exports/open-devices.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { FrozenOverlay } from '../exports/overlays.ts';
import type { SnapshotDevice } from '../exports/snapshot-device.ts';
import { StatusDevice } from '../exports/status-device.ts';
import { CloneDevices, deviceIdOf } from './clone-devices.ts';
import { type CloneDiff, diffClone } from './clone-diff.ts';
import { type CloneRecord, checkCloneName, newOverlayId, overlayKeyOf } from './clone-record.ts';
import { CloneRegistry } from './clone-registry.ts';
import type {
  CloneChange,
  CloneCheck,
  CloneInfo,
  CloneList,
  CloneService,
  CloneSummary,
  CloneView,
} from './clone-service.ts';

/** Milliseconds after which clients are disconnected again that were told to go. */
const DISCONNECT_AGAIN_MS = 50;

export interface LocalClonesOptions {
  readonly directory: string;
  /** Space, and keys of encrypted overlays: needed where a clone is opened or checked. */
  readonly settings: OverlaySettings;
  /** Called when a clone's device is opened. */
  readonly store: () => Promise<OpenStore>;
  /** Ends the connections of clients to a device. */
  readonly disconnect?: (deviceId: string) => void;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

export class LocalClones implements CloneService {
  readonly serverPid = undefined;
  readonly devices: CloneDevices;
  readonly registry: CloneRegistry;
  readonly #options: LocalClonesOptions;
  readonly #overlays: KeptOverlays;
  readonly #closers: Closers;
  readonly #turns = new KeyedMutex();
  readonly #now: () => number;

  private constructor(options: LocalClonesOptions, parts: { overlays: KeptOverlays; closers: Closers }) {
    const { directory, store, log } = options;
    this.#options = options;
    this.#overlays = parts.overlays;
    this.#closers = parts.closers;
    this.#now = options.now ?? Date.now;
    this.registry = new CloneRegistry(directory, nodeFileSystem);
    this.devices = new CloneDevices({ store, overlays: parts.overlays, log });
    this.#closers.add(() => this.devices.close());
  }

  /** Takes the directory, and makes it if need be. Rejects with UserError (exit 64) if another process has it. */
  static async open(options: LocalClonesOptions): Promise<LocalClones> {
    const closers = new Closers();
    try {
      const { directory, settings, log } = options;
      const overlays = await KeptOverlays.open(directory, settings, log, '--clones');
      closers.add(() => overlays.close());
      const clones = new LocalClones(options, { overlays, closers });
      await clones.registry.sweep(log);
      return clones;
    } catch (error) {
      return closers.closeBecause(error);
    }
  }

  /** The clone for a client; undefined if there is none. */
  async attach(name: string): Promise<{ record: CloneRecord; hold: DeviceHold } | undefined> {
    await this.#expireIfDue(name);
    return this.#turns.with(name, async () => {
      const record = await this.registry.read(name);
      return record && { record, hold: this.devices.attach(record) };
    });
  }

  async list(): Promise<CloneList> {
    await this.expire();
    const clones: CloneSummary[] = [];
    const unreadable: { name: string; reason: string }[] = [];
    for (const [name, record] of await this.registry.list()) {
      if (record instanceof Error) unreadable.push({ name, reason: record.message });
      else clones.push(await this.#summaryOf(record));
    }
    return { clones, unreadable };
  }

  info(name: string): Promise<CloneInfo> {
    return this.#frozen(name, async ({ record, device, frozen }) => {
      const diff = diffClone(device.image, frozen);
      const readOnlyReason = device.readOnlyReason ?? null;
      return { ...(await this.#summaryOf(record)), dirtyBytes: diff.dirtyBytes, diff, readOnlyReason };
    });
  }

  diff(name: string): Promise<{ readonly diff: CloneDiff; readonly connections: number }> {
    return this.#frozen(name, async ({ device, frozen, connections }) => ({
      diff: diffClone(device.image, frozen),
      connections,
    }));
  }

  check(name: string): Promise<CloneCheck> {
    return this.#alone(name, { what: 'checked' }, async (record) => {
      const never = { isSound: true, readOnlyReason: null, hasTornTail: false, checkedBlocks: 0 };
      if ((await this.#overlays.pinned(overlayKeyOf(record))) === undefined) {
        return { name, ...never, damagedBlockCount: 0, damagedBlocks: [], remarks: [] };
      }
      const {
        readOnlyReason,
        tornTail,
        metadata: _,
        ...found
      } = await checkOverlay(this.#overlays.directoryOf(overlayKeyOf(record)), {
        keyFor: this.#options.settings.keyFor,
        log: this.#options.log,
      });
      return { name, ...found, readOnlyReason: readOnlyReason ?? null, hasTornTail: tornTail };
    });
  }

  async copy(name: string, newName: string): Promise<{ readonly connections: number }> {
    checkCloneName(newName);
    if ((await this.registry.read(newName)) !== undefined) {
      throw new UserError(`There is a clone "${newName}" already: remove it, or choose another name.`);
    }
    const release = await this.#turns.lock(name);
    let hold: DeviceHold | undefined;
    try {
      const record = await this.registry.require(name);
      const connections = this.devices.clients(record);
      if (this.devices.holders(record) > 0) {
        hold = this.devices.hold(record);
        release(); // It stays open, so it can be copied while clients come and go.
        await hold.device;
      } else {
        await this.devices.closeIdle(record);
      }
      const copy = { ...record, name: newName, overlayId: newOverlayId(), createdMs: this.#now() };
      await this.#overlays.copy(overlayKeyOf(record), overlayKeyOf(copy));
      try {
        await this.registry.create({ ...copy, isProtected: false, expiresMs: null });
      } catch (error) {
        await this.#overlays.remove(overlayKeyOf(copy));
        throw error;
      }
      return { connections };
    } finally {
      hold?.release();
      release();
    }
  }

  change(name: string, { isProtected, expiresMs }: CloneChange): Promise<void> {
    return this.#turns.with(name, async () => {
      const record = await this.registry.require(name);
      await this.registry.write({
        ...record,
        isProtected: isProtected ?? record.isProtected,
        expiresMs: expiresMs === undefined ? record.expiresMs : expiresMs,
      });
    });
  }

  reset(name: string, { force }: { readonly force: boolean }): Promise<void> {
    return this.#alone(name, { what: 'reset', force, isChange: true }, async (record) => {
      await this.registry.write({ ...record, overlayId: newOverlayId(), resetMs: this.#now() });
      await this.#removeOverlay(record);
    });
  }

  remove(name: string, { force }: { readonly force: boolean }): Promise<void> {
    return this.#alone(name, { what: 'removed', force, isChange: true }, (record) => this.#remove(record));
  }

  /** Removes every clone whose time is over, unless it is connected or protected. */
  async expire(): Promise<void> {
    for (const [name, record] of await this.registry.list()) {
      if (!(record instanceof Error) && this.#isDue(record)) await this.#expireIfDue(name);
    }
  }

  async view(name: string): Promise<CloneView> {
    const held = await this.#freeze(name);
    const { record, device, frozen, connections } = held;
    const { sizeBytes } = frozen;
    const shown = new StatusDevice(new ReadOnlyDevice(frozen), device.image, frozen);
    return {
      record,
      connections,
      sizeBytes,
      read: (offset, target) => shown.read(offset, target),
      status: (range, options) => shown.status(range, options),
      close: held.close,
    };
  }

  close(): Promise<void> {
    return this.#closers.close();
  }

  async #summaryOf(record: CloneRecord): Promise<CloneSummary> {
    const storedBytes = await this.registry.storedBytes(record);
    return { record, storedBytes, connections: this.devices.clients(record) };
  }

  async #frozen<T>(name: string, action: (held: FrozenClone) => Promise<T>): Promise<T> {
    const held = await this.#freeze(name);
    try {
      return await action(held);
    } finally {
      await held.close();
    }
  }

  async #freeze(name: string): Promise<FrozenClone> {
    const held = await this.#turns.with(name, async () => {
      const record = await this.registry.require(name);
      return { record, connections: this.devices.clients(record), hold: this.devices.hold(record) };
    });
    const { record, connections, hold } = held;
    try {
      const device = await hold.device;
      const frozen = await device.freeze();
      let closed: Promise<void> | undefined;
      const close = () => {
        closed ??= frozen.close().finally(hold.release);
        return closed;
      };
      return { record, device, frozen, connections, close };
    } catch (error) {
      hold.release();
      throw error;
    }
  }

  /** Runs `action` while nobody has the clone. Rejects with UserError if somebody has, or the clone is protected against it. */
  #alone<T>(
    name: string,
    { what, force = false, isChange = false }: { what: string; force?: boolean; isChange?: boolean },
    action: (record: CloneRecord) => Promise<T>,
  ): Promise<T> {
    return this.#turns.with(name, async () => {
      const record = await this.registry.require(name);
      if (isChange && record.isProtected) {
        throw new UserError(
          `The clone "${name}" is protected and is not ${what}. Run "kloset-nbd clone unprotect ${name}" first.`,
        );
      }
      await this.#untilFree(record, { what, force });
      await this.devices.closeIdle(record).catch((error: unknown) => {
        if (!isChange) throw error;
        // What is to be thrown away need not be durable.
        this.#options.log.warn(
          { error, clone: name },
          `The clone "${name}" did not close cleanly before it was ${what}.`,
        );
      });
      return action(record);
    });
  }

  async #untilFree(record: CloneRecord, { what, force }: { what: string; force: boolean }): Promise<void> {
    const { name } = record;
    const clients = this.devices.clients(record);
    if (this.devices.holders(record) > clients) {
      throw new UserError(`The clone "${name}" is being read by another command: try again when that is done.`);
    }
    if (clients === 0) return;
    const { disconnect } = this.#options;
    if (!force || disconnect === undefined) {
      const advice = what === 'checked' ? 'disconnect them first' : 'disconnect them first, or use --force';
      throw new UserError(`The clone "${name}" has clients and is not ${what}: ${advice}.`);
    }
    const gone = this.devices.untilIdle(record);
    let isGone = false;
    while (!isGone) {
      // Again and again: one that was in the middle of its handshake has become a client meanwhile.
      disconnect(deviceIdOf(record));
      isGone = await Promise.race([gone.then(() => true), delay(DISCONNECT_AGAIN_MS, false)]);
    }
  }

  #isDue({ expiresMs, isProtected }: CloneRecord): boolean {
    return expiresMs !== null && expiresMs <= this.#now() && !isProtected;
  }

  #expireIfDue(name: string): Promise<void> {
    return this.#turns.with(name, async () => {
      const record = await this.registry.read(name);
      if (record === undefined || !this.#isDue(record) || this.devices.holders(record) > 0) return;
      await this.devices.closeIdle(record);
      await this.#remove(record);
      this.#options.log.info({ clone: name }, `The clone "${name}" has expired and is removed.`);
    });
  }

  async #remove(record: CloneRecord): Promise<void> {
    await this.registry.remove(record.name);
    await this.#removeOverlay(record);
  }

  /** The clone no longer has it: what cannot be removed now is swept away by whoever takes the directory next. */
  async #removeOverlay(record: CloneRecord): Promise<void> {
    await this.#overlays.remove(overlayKeyOf(record)).catch((error: unknown) => {
      this.#options.log.warn(
        { error, clone: record.name },
        `What the clone "${record.name}" had written could not be removed yet.`,
      );
    });
  }
}

interface FrozenClone {
  readonly record: CloneRecord;
  readonly device: SnapshotDevice;
  readonly frozen: FrozenOverlay;
  readonly connections: number;
  /** Idempotent. */
  close(): Promise<void>;
}
