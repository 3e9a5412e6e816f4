import { UserError } from '../core/errors.ts';
import type { ExportCatalog, ExportLease, ExportSummary } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import type { StopOptions } from '../core/stop.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';
import { matchesSelector, parseSelector, type Selector } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { Part, PlacedSelector } from './composition.ts';
import {
  attachName,
  BASE_SUFFIX,
  describeExport,
  goneError,
  SHORT_ID_DIGITS,
  type SuffixedName,
  selectorName,
  shortName,
  splitSuffix,
} from './export-name.ts';
import { describeTarget, deviceIdOf, resolveTarget, type Target } from './export-target.ts';
import { OpenDevices } from './open-devices.ts';
import type { OpenStore } from './open-store.ts';
import type { Overlays } from './overlays.ts';
import { filesAt, prefetchFiles } from './prefetch-paths.ts';
import { SnapshotDevice } from './snapshot-device.ts';

/** A name of an export, understood. */
interface Asked extends Omit<SuffixedName, 'name'> {
  readonly target: Target;
}

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
    const isNamedByOperator = this.#named.length > 0;
    const own = this.#named.map((target) => ({
      name: target.name,
      description: this.#describe(target),
      pristine: describeTarget(target, false),
    }));
    const describe = (name: string, header: SnapshotHeader) => {
      const target = this.#resolved.get(name);
      const description = target === undefined ? describeExport(header, overlays.isVolatile) : this.#describe(target);
      return { name, description, pristine: describeExport(header, false) };
    };
    const all = store.snapshots.map((header) => describe(shortName(header, store.snapshots), header));
    const aliases = isNamedByOperator ? [] : this.#aliases().map(({ name, header }) => describe(name, header));
    const listed = isNamedByOperator ? own : all;
    return [
      ...[...listed, ...aliases].map(({ name, description }) => ({ name, description })),
      ...listed.map(({ name, pristine }) => ({ name: `${name}${BASE_SUFFIX}`, description: pristine })),
    ];
  }

  async acquire(name: string): Promise<ExportLease | undefined> {
    const asked = await this.#understand(name);
    if (asked === undefined) return undefined;
    const { target, isBase, token } = asked;
    const deviceId = deviceIdOf(target);
    const hold = this.#devices.hold(deviceId, () => this.#openDevice(deviceId, target));
    const device = await hold.device;
    if (token !== undefined && token !== device.token) {
      hold.release();
      throw goneError(name, target.name, this.#options.overlays);
    }
    const ownName = token === undefined ? target.name : attachName(target.name, token);
    return {
      name: isBase ? `${target.name}${BASE_SUFFIX}` : ownName,
      deviceId: isBase ? `${deviceId}${BASE_SUFFIX}` : deviceId,
      description: isBase ? describeTarget(target, false) : this.#describe(target),
      readOnly: isBase || device.isReadOnly,
      device: isBase ? device.pristine : device.writable,
      release: hold.release,
    };
  }

  /** Opens the default export, so that what is wrong with it shows at the start and not at the first client. */
  async openDefault(): Promise<void> {
    (await this.acquire(''))?.release();
  }

  /**
   * Begins to fetch files, and all below directories, of the default export; settles when they are found, and what it
   * resolves to when they are fetched. Rejects with UserError for a path that is not there.
   */
  async prefetch(paths: readonly string[], { signal }: StopOptions): Promise<{ readonly done: Promise<void> }> {
    const target = (await this.#find(''))!;
    const deviceId = deviceIdOf(target);
    const hold = this.#devices.hold(deviceId, () => this.#openDevice(deviceId, target));
    try {
      const { image } = await hold.device;
      const files = filesAt(image.layout.tree, paths);
      const { log, store } = this.#options;
      const { keptBytesMax } = store.prefetcher;
      return { done: prefetchFiles(image, files, { signal, log, keptBytesMax }).finally(() => hold.release()) };
    } catch (error) {
      hold.release();
      throw error;
    }
  }

  /** The directories of snapshots that a name stands for; undefined if there is no such export. */
  async partsOf(name: string): Promise<readonly Part[] | undefined> {
    return (await this.#understand(name))?.target.parts;
  }

  /** Every snapshot that a client has had, or may have by a name that the operator gave. */
  get served(): readonly SnapshotHeader[] {
    const targets = [...this.#named, ...this.#resolved.values()];
    return targets.flatMap(({ parts }) => parts.map(({ header }) => header));
  }

  /** The devices that are open now. */
  get openDevices(): readonly SnapshotDevice[] {
    return this.#devices.all;
  }

  /** Bytes of all open devices that differ from their snapshots. */
  get overlayBytes(): number {
    return this.#devices.dirtyBytes;
  }

  /** Flushes and closes every device. Rejects with the first flush that failed, after all are closed. */
  close(): Promise<void> {
    return this.#devices.close();
  }

  async #openDevice(deviceId: string, { parts, name, overlayKey: ownKey }: Target): Promise<SnapshotDevice> {
    const { store, layout, overlays, log } = this.#options;
    const overlayKey = this.#overlayKeys.get(deviceId) ?? ownKey;
    this.#overlayKeys.set(deviceId, overlayKey);
    const device = await SnapshotDevice.open({ store, name, parts, layout, overlays, overlayKey, log });
    const attachAs = attachName(name, device.token);
    log.info({ export: name, attachAs }, `Attach by the name ${attachAs}: it means this disk for ever, or none.`);
    return device;
  }

  /** For LIST and INFO: with the name to attach by, once that is known. */
  #describe(target: Target): string {
    const token = this.#devices.opened(deviceIdOf(target))?.token;
    const description = describeTarget(target, this.#options.overlays.isVolatile);
    return token === undefined ? description : `${description}, attach as ${attachName(target.name, token)}`;
  }

  /** What a name stands for: a disk, one `@base`, or one that must have a token. */
  async #understand(name: string): Promise<Asked | undefined> {
    const exact = await this.#find(name); // A tag or a path may end as a suffix does.
    if (exact !== undefined) return { target: exact, isBase: false, token: undefined };
    const { name: own, ...suffix } = splitSuffix(name);
    const target = own === name ? undefined : await this.#find(own);
    return target && { target, ...suffix };
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
