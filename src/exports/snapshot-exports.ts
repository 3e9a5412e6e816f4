import { UserError } from '../core/errors.ts';
import type { ExportCatalog, ExportLease, ExportSummary } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';
import { parseSelector, type Selector, selectSnapshot } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { fromBytePath } from '../source/directory-lister.ts';
import { resolveRoot } from '../source/kloset-source.ts';
import { BASE_SUFFIX, describeExport, SHORT_ID_DIGITS, selectorName, shortName } from './export-name.ts';
import type { OpenStore } from './open-store.ts';
import type { Overlays } from './overlays.ts';
import { SnapshotDevice } from './snapshot-device.ts';

/** Devices kept open that nobody is attached to: a client that comes back finds its caches warm. */
const IDLE_DEVICES_MAX = 8;

/** What the name of an export stands for: a snapshot, or a directory of one. */
interface Target {
  readonly header: SnapshotHeader;
  /** Absolute; `/` for all of it. */
  readonly path: string;
  /** Where its overlay is kept. */
  readonly overlayKey: string;
  /** The name by which messages know it. */
  readonly name: string;
}

/** A device that is open or being opened, and how many hold it. */
interface OpenDevice {
  readonly device: Promise<SnapshotDevice>;
  holders: number;
}

export interface SnapshotExportsOptions {
  readonly store: OpenStore;
  /** Selectors named by the operator; none: every snapshot of the store. */
  readonly selectors: readonly Selector[];
  readonly layout: LayoutRequest;
  readonly overlays: Overlays;
  readonly log: Log;
}

/** The store's snapshots as exports. A device is opened when it is first asked for; all names of a snapshot share one. */
export class SnapshotExports implements ExportCatalog {
  readonly #options: SnapshotExportsOptions;
  /** Those that the operator named, in that order; empty if everything is exported. */
  readonly #named: readonly Target[];
  readonly #open = new Map<string, OpenDevice>();
  /** What `latest` and tags turned out to mean: resolved once. */
  readonly #resolved = new Map<string, Target>();

  private constructor(options: SnapshotExportsOptions, named: readonly Target[]) {
    this.#options = options;
    this.#named = named;
  }

  /** Resolves the selectors; rejects with UserError (exit 64) if one matches no snapshot, or several. */
  static async create(options: SnapshotExportsOptions): Promise<SnapshotExports> {
    const named: Target[] = [];
    for (const selector of options.selectors) named.push(await resolveTarget(options, selector));
    return new SnapshotExports(options, named);
  }

  async list(): Promise<readonly ExportSummary[]> {
    const { store, overlays } = this.#options;
    const targets =
      this.#named.length > 0
        ? this.#named
        : store.snapshots.map((header) => ({ name: shortName(header, store.snapshots), header }));
    const summary = (name: string, header: SnapshotHeader, isVolatile: boolean) => ({
      name,
      description: describeExport(header, isVolatile),
    });
    const aliases = this.#named.length > 0 ? [] : this.#aliases();
    return [
      ...[...targets, ...aliases].map(({ name, header }) => summary(name, header, overlays.isVolatile)),
      ...targets.map(({ name, header }) => summary(`${name}${BASE_SUFFIX}`, header, false)),
    ];
  }

  async acquire(name: string): Promise<ExportLease | undefined> {
    const isBase = name.endsWith(BASE_SUFFIX);
    const target = await this.#find(isBase ? name.slice(0, -BASE_SUFFIX.length) : name);
    if (target === undefined) return undefined;
    const deviceId = deviceIdOf(target);
    const open = this.#hold(deviceId, target);
    try {
      const device = await open.device;
      let held = true;
      return {
        name: isBase ? `${target.name}${BASE_SUFFIX}` : target.name,
        deviceId: isBase ? `${deviceId}${BASE_SUFFIX}` : deviceId,
        description: describeExport(target.header, this.#options.overlays.isVolatile && !isBase),
        readOnly: isBase,
        device: isBase ? device.pristine : device.writable,
        release: () => {
          if (held) this.#release(open);
          held = false;
        },
      };
    } catch (error) {
      this.#open.delete(deviceId); // The next one who asks tries again.
      throw error;
    }
  }

  /** Opens the default export, so that what is wrong with it shows at the start and not at the first client. */
  async openDefault(): Promise<void> {
    (await this.acquire(''))?.release();
  }

  /** Bytes of all open devices that differ from their snapshots. */
  async overlayBytes(): Promise<number> {
    let bytes = 0;
    for (const { device } of this.#open.values()) bytes += (await device).dirtyBytes;
    return bytes;
  }

  /** Flushes and closes every device. Rejects with the first flush that failed, after all are closed. */
  async close(): Promise<void> {
    const results = await Promise.allSettled(
      [...this.#open.values()].map(async (open) => {
        const device = await open.device;
        try {
          await device.writable.flush();
        } finally {
          await device.close();
        }
      }),
    );
    this.#open.clear();
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  #hold(deviceId: string, target: Target): OpenDevice {
    let open = this.#open.get(deviceId);
    if (open === undefined) {
      const { store, layout, overlays, log } = this.#options;
      const { header, path, overlayKey } = target;
      open = { device: SnapshotDevice.open({ store, header, path, layout, overlays, overlayKey, log }), holders: 0 };
    } else {
      this.#open.delete(deviceId); // Set again below: the map's order is that of use.
    }
    this.#open.set(deviceId, open);
    open.holders++;
    return open;
  }

  #release(open: OpenDevice): void {
    open.holders--;
    void this.#closeIdle().catch((error) =>
      this.#options.log.error({ err: error }, `An idle device could not be closed: ${(error as Error).message}`),
    );
  }

  /** Closes the devices that were idle longest. One whose writes live in memory only is kept: closing would lose them. */
  async #closeIdle(): Promise<void> {
    const idle = [...this.#open].filter(([, open]) => open.holders === 0);
    for (const [deviceId, open] of idle.slice(0, Math.max(0, idle.length - IDLE_DEVICES_MAX))) {
      const device = await open.device;
      const wouldLose = this.#options.overlays.isVolatile && device.dirtyBytes > 0;
      if (wouldLose || open.holders > 0 || this.#open.get(deviceId) !== open) continue;
      this.#open.delete(deviceId);
      await device.writable.flush();
      await device.close();
    }
  }

  /** `latest` and every tag, with what they mean while nothing has pinned them. */
  #aliases(): { name: string; header: SnapshotHeader }[] {
    const { snapshots } = this.#options.store;
    const names = ['latest', ...new Set(snapshots.flatMap(({ tags }) => tags.map((tag) => `tag:${tag}`)))];
    return names.flatMap((name) => {
      const header = this.#resolved.get(name)?.header ?? snapshots.find((candidate) => isNamed(candidate, name));
      return header === undefined ? [] : [{ name, header }];
    });
  }

  async #find(name: string): Promise<Target | undefined> {
    if (this.#named.length > 0) return this.#findNamed(name);
    const known = this.#resolved.get(name);
    if (known !== undefined) return known;
    const target = await this.#findAny(name);
    if (target !== undefined) this.#resolved.set(name, target);
    return target;
  }

  #findNamed(name: string): Target | undefined {
    if (name === '') return this.#named[0];
    const exact = this.#named.find((target) => target.name === name);
    if (exact !== undefined) return exact;
    const byId = this.#named.filter(({ header }) => isIdOf(header, name));
    // An id alone names a device only if one device of that snapshot is served.
    if (new Set(byId.map(deviceIdOf)).size === 1) return byId[0];
    const whole = byId.filter((target) => target.path === '/');
    return new Set(whole.map(deviceIdOf)).size === 1 ? whole[0] : undefined;
  }

  /** Among all snapshots: 8 digits, a full id, `latest` or `tag:NAME`. */
  async #findAny(name: string): Promise<Target | undefined> {
    let selector: Selector;
    try {
      selector = parseSelector(name === '' ? 'latest' : name);
    } catch (error) {
      if (error instanceof UserError) return undefined;
      throw error;
    }
    if (selector.path !== undefined) return undefined;
    const { snapshots } = this.#options.store;
    if (selector.kind === 'id' && !snapshots.some((header) => isIdOf(header, selector.value))) return undefined;
    try {
      return await resolveTarget(this.#options, selector);
    } catch (error) {
      if (error instanceof UserError) return undefined;
      throw error;
    }
  }
}

function isNamed({ tags }: SnapshotHeader, name: string): boolean {
  return name === 'latest' || tags.some((tag) => name === `tag:${tag}`);
}

function isIdOf(header: SnapshotHeader, name: string): boolean {
  return header.id === name || (name.length === SHORT_ID_DIGITS && header.id.startsWith(name));
}

function deviceIdOf({ header, path }: Pick<Target, 'header' | 'path'>): string {
  return `${header.id}:${path}`;
}

/**
 * An overlay pins its snapshot: `latest` goes on to mean the snapshot that an overlay was made for under that name, even
 * when the store has a newer one by now.
 */
async function resolveTarget(options: SnapshotExportsOptions, selector: Selector): Promise<Target> {
  const { store, overlays, log } = options;
  const name = selectorName(selector);
  const pinned = await overlays.pinned(name);
  if (pinned === undefined) {
    const header = selectSnapshot(store.snapshots, selector);
    const path = absolutePath(header, selector);
    return { header, path, name, overlayKey: (await overlays.keyOf(header.id, path)) ?? name };
  }
  const header = store.snapshots.find(({ id }) => id === pinned.snapshotId);
  if (header === undefined) {
    throw new UserError(
      `The overlay "${name}" belongs to snapshot ${pinned.snapshotId}, which the store no longer holds. ` +
        'Remove that sub-directory of the overlay to give up what was written, or bring the snapshot back.',
    );
  }
  const newest = selector.kind === 'id' ? header : selectSnapshot(store.snapshots, selector);
  if (newest !== header) {
    log.warn(
      { export: name, snapshot: header.id, newer: newest.id },
      `"${name}" stays snapshot ${header.id.slice(0, 8)}, which its overlay was made for; the store has ${newest.id.slice(0, 8)} by now`,
    );
  }
  return { header, path: absolutePath(header, selector), name, overlayKey: name };
}

/** Two ways to write a path name one device. */
function absolutePath(header: SnapshotHeader, { path }: Selector): string {
  return fromBytePath(resolveRoot(header, path)).toString();
}
