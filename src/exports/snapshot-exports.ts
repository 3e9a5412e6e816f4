import { UserError } from '../core/errors.ts';
import type { ExportCatalog, ExportLease, ExportSummary } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';
import { matchesSelector, parseSelector, type Selector } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { PlacedSelector } from './composition.ts';
import { BASE_SUFFIX, describeExport, SHORT_ID_DIGITS, selectorName, shortName } from './export-name.ts';
import { describeTarget, deviceIdOf, resolveTarget, type Target } from './export-target.ts';
import { OpenDevices } from './open-devices.ts';
import type { OpenStore } from './open-store.ts';
import type { Overlays } from './overlays.ts';
import { SnapshotDevice } from './snapshot-device.ts';

export interface SnapshotExportsOptions {
  readonly store: OpenStore;
  /** Selectors named by the operator; none: every snapshot of the store. */
  readonly selectors: readonly Selector[];
  /** Selectors with names: one more export, behind the others, that has them side by side. */
  readonly composed?: readonly PlacedSelector[];
  /** The directory below which every snapshot is put on its disk. */
  readonly into?: string | undefined;
  readonly layout: LayoutRequest;
  readonly overlays: Overlays;
  readonly log: Log;
}

/** The store's snapshots as exports. A device is opened when it is first asked for; all names of a snapshot share one. */
export class SnapshotExports implements ExportCatalog {
  readonly #options: SnapshotExportsOptions;
  /** Those that the operator named, in that order; empty if everything is exported. */
  readonly #named: readonly Target[];
  readonly #devices: OpenDevices;
  /** Where each device's overlay is kept: the first name decides, whichever opens it the next time. */
  readonly #overlayKeys = new Map<string, string>();
  /** What `latest` and tags turned out to mean: resolved once. */
  readonly #resolved = new Map<string, Target>();

  private constructor(options: SnapshotExportsOptions, named: readonly Target[]) {
    const { overlays, log } = options;
    this.#options = options;
    this.#named = named;
    // What is in memory only would be lost by closing.
    this.#devices = new OpenDevices({ mayClose: ({ dirtyBytes }) => !overlays.isVolatile || dirtyBytes === 0, log });
  }

  /** Resolves the selectors; rejects with UserError (exit 64) if one matches no snapshot, or several. */
  static async create(options: SnapshotExportsOptions): Promise<SnapshotExports> {
    const named: Target[] = [];
    for (const selector of options.selectors) named.push(await resolveTarget(options, [{ selector, at: undefined }]));
    if (options.composed?.length) named.push(await resolveTarget(options, options.composed));
    return new SnapshotExports(options, named);
  }

  async list(): Promise<readonly ExportSummary[]> {
    const { store, overlays } = this.#options;
    const describe = (header: SnapshotHeader) => (isVolatile: boolean) => describeExport(header, isVolatile);
    const own = this.#named.map((target) => ({
      name: target.name,
      description: (isVolatile: boolean) => describeTarget(target, isVolatile),
    }));
    const all = store.snapshots.map((header) => ({
      name: shortName(header, store.snapshots),
      description: describe(header),
    }));
    const listed = this.#named.length > 0 ? own : all;
    const aliases = this.#named.length > 0 ? [] : this.#aliases();
    return [
      ...listed.map(({ name, description }) => ({ name, description: description(overlays.isVolatile) })),
      ...aliases.map(({ name, header }) => ({ name, description: describe(header)(overlays.isVolatile) })),
      ...listed.map(({ name, description }) => ({ name: `${name}${BASE_SUFFIX}`, description: description(false) })),
    ];
  }

  async acquire(name: string): Promise<ExportLease | undefined> {
    const exact = await this.#find(name); // A tag or a path may end as the suffix does.
    const isBase = exact === undefined && name.endsWith(BASE_SUFFIX);
    const target = isBase ? await this.#find(name.slice(0, -BASE_SUFFIX.length)) : exact;
    if (target === undefined) return undefined;
    const deviceId = deviceIdOf(target);
    const hold = this.#devices.hold(deviceId, () => this.#openDevice(deviceId, target));
    const device = await hold.device;
    return {
      name: isBase ? `${target.name}${BASE_SUFFIX}` : target.name,
      deviceId: isBase ? `${deviceId}${BASE_SUFFIX}` : deviceId,
      description: describeTarget(target, this.#options.overlays.isVolatile && !isBase),
      readOnly: isBase || device.isReadOnly,
      device: isBase ? device.pristine : device.writable,
      release: hold.release,
    };
  }

  /** Opens the default export, so that what is wrong with it shows at the start and not at the first client. */
  async openDefault(): Promise<void> {
    (await this.acquire(''))?.release();
  }

  /** Every snapshot that a client has had, or may have by a name that the operator gave. */
  get served(): readonly SnapshotHeader[] {
    const targets = [...this.#named, ...this.#resolved.values()];
    return targets.flatMap(({ parts }) => parts.map(({ header }) => header));
  }

  /** Bytes of all open devices that differ from their snapshots. */
  get overlayBytes(): number {
    return this.#devices.dirtyBytes;
  }

  /** Flushes and closes every device. Rejects with the first flush that failed, after all are closed. */
  close(): Promise<void> {
    return this.#devices.close();
  }

  #openDevice(deviceId: string, { parts, overlayKey: ownKey }: Target): Promise<SnapshotDevice> {
    const { store, layout, overlays, log } = this.#options;
    const overlayKey = this.#overlayKeys.get(deviceId) ?? ownKey;
    this.#overlayKeys.set(deviceId, overlayKey);
    return SnapshotDevice.open({ store, parts, layout, overlays, overlayKey, log });
  }

  /** `latest` and every tag, with what they mean while nothing has pinned them. */
  #aliases(): { name: string; header: SnapshotHeader }[] {
    const { snapshots } = this.#options.store;
    const names = ['latest', ...new Set(snapshots.flatMap(({ tags }) => tags.map((tag) => `tag:${tag}`)))];
    return names.flatMap((name) => {
      const header =
        this.#resolved.get(name)?.parts[0]?.header ?? snapshots.find((candidate) => isNamed(candidate, name));
      return header === undefined ? [] : [{ name, header }];
    });
  }

  async #find(name: string): Promise<Target | undefined> {
    if (this.#named.length > 0) return this.#findNamed(name);
    // Ids in lower case: clients shall not make a thousand names of one.
    const key = name.toLowerCase().startsWith('tag:') ? name : name.toLowerCase();
    const known = this.#resolved.get(key);
    if (known !== undefined) return known;
    const target = await this.#findAny(key);
    // Two clients may have asked at the same time: the first answer stays.
    if (target !== undefined && !this.#resolved.has(key)) this.#resolved.set(key, target);
    return this.#resolved.get(key);
  }

  #findNamed(name: string): Target | undefined {
    if (name === '') return this.#named[0];
    const exact = this.#named.find((target) => target.name === name);
    if (exact !== undefined) return exact;
    const byId = this.#named.filter(({ parts }) => parts.length === 1 && isIdOf(parts[0]!.header, name));
    // An id alone names a device only if one device of that snapshot is served.
    if (new Set(byId.map(deviceIdOf)).size === 1) return byId[0];
    const whole = byId.filter(({ parts }) => parts[0]!.path === '/');
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
    const isPinned = (await this.#options.overlays.pinned(selectorName(selector))) !== undefined;
    // No such export; that an overlay's snapshot is gone, on the other hand, is for the client to hear.
    if (!isPinned && !snapshots.some((header) => matchesSelector(header, selector))) return undefined;
    return resolveTarget(this.#options, [{ selector, at: undefined }]);
  }
}

function isNamed({ tags }: SnapshotHeader, name: string): boolean {
  return name === 'latest' || tags.some((tag) => name === `tag:${tag}`);
}

function isIdOf(header: SnapshotHeader, name: string): boolean {
  return header.id === name || (name.length === SHORT_ID_DIGITS && header.id.startsWith(name));
}
