/** What `top` shows, as the server tells it: what each file, and each relation of PostgreSQL, has cost. Plain JSON. */
import { setTimeout as delay } from 'node:timers/promises';
import { addCost, type FileCost, newFileCost } from '../core/file-costs.ts';
import type { Log } from '../core/log.ts';
import { estimateRestore, type RestoreEstimate } from '../core/restore-estimate.ts';
import { contentBytesOf, entryPathBytes } from '../core/snapshot-tree.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { SnapshotDevice } from '../exports/snapshot-device.ts';
import { type RelationCost, SnapshotRelations } from '../postgres/catalog/relation-costs.ts';
import type { KlosetSource } from '../source/kloset-source.ts';
import { named } from './printable.ts';

/** Costs as they are told: times in seconds. */
export interface ToldCost {
  readonly requests: number;
  /** Asked for by clients. */
  readonly bytes: number;
  readonly waitSeconds: number;
  readonly chunks: number;
  /** Fetched from the store, and what that gave. */
  readonly storeBytes: number;
  readonly decodedBytes: number;
  readonly fetchSeconds: number;
}

export interface ToldFile extends ToldCost {
  /** Path on the disk, in UTF-8; null if it is none, and then `pathHex` has its bytes. */
  readonly path: string | null;
  readonly pathHex?: string;
}

export type ToldRelation = Omit<RelationCost, 'cost'> & ToldCost;

export interface ToldDatabase extends ToldCost {
  /** Null: what is shared by all, and files that belong to none. */
  readonly database: string | null;
}

/** One snapshot on one or several disks. */
export interface ToldSnapshot {
  readonly snapshot: string;
  /** The directory of it that is shown. */
  readonly root: string;
  /** Exports that show it: what it cost is the sum of all. */
  readonly exports: readonly string[];
  readonly total: ToldCost;
  /** Sorted, the most expensive first; of files, those up to `filesMax` of them. */
  readonly files: readonly ToldFile[];
  readonly filesTouched: number;
  /** Undefined for a snapshot without a PostgreSQL data directory. */
  readonly databases?: readonly ToldDatabase[];
  readonly relations?: readonly ToldRelation[];
  /** Why there are numbers in place of names: they are being read, or could not be. */
  readonly namesMissing?: string;
  readonly estimate: RestoreEstimate;
}

export interface TopReport {
  readonly pid: number;
  readonly uptimeSeconds: number;
  readonly snapshots: readonly ToldSnapshot[];
}

export const topOrders = ['requests', 'bytes', 'time'] as const;
export type TopOrder = (typeof topOrders)[number];

/** How long an answer waits for names that are being read, milliseconds; the next one may have them. */
const NAMES_WAIT_MS = 3_000;

export interface TopOptions {
  readonly by: TopOrder;
  /** Rows of each table. */
  readonly rowsMax: number;
  /** Only disks of this name; undefined: all. */
  readonly exportName: string | undefined;
}

/** Makes reports; keeps the names that were read for one for the next ones. */
export class TopReports {
  readonly #store: OpenStore;
  readonly #devices: () => readonly SnapshotDevice[];
  readonly #log: Log;
  readonly #relations = new WeakMap<KlosetSource, SnapshotRelations>();

  constructor(parts: { store: OpenStore; devices: () => readonly SnapshotDevice[]; log: Log }) {
    this.#store = parts.store;
    this.#devices = parts.devices;
    this.#log = parts.log;
  }

  async report(options: TopOptions): Promise<TopReport> {
    const shown = this.#sources(options.exportName);
    await this.#loadNames([...shown.keys()]);
    return {
      pid: process.pid,
      uptimeSeconds: Number(process.uptime().toFixed(1)),
      snapshots: Array.from(shown, ([source, exports]) => this.#describe(source, exports, options)),
    };
  }

  /** The estimate of every snapshot that is open, by its export's name. */
  estimates(): { readonly name: string; readonly source: KlosetSource; readonly estimate: RestoreEstimate }[] {
    return Array.from(this.#sources(undefined), ([source, [name]]) => ({
      name: name!,
      source,
      estimate: this.#estimate(source),
    }));
  }

  /** Disks share a snapshot: each once, with the names of those that show it. */
  #sources(exportName: string | undefined): Map<KlosetSource, string[]> {
    const shown = new Map<KlosetSource, string[]>();
    for (const { name, placed } of this.#devices()) {
      if (exportName !== undefined && name !== exportName) continue;
      for (const { source } of placed) shown.set(source, [...(shown.get(source) ?? []), name]);
    }
    return shown;
  }

  async #loadNames(sources: readonly KlosetSource[]): Promise<void> {
    const loaded = Promise.all(
      sources.map(async (source) => {
        const relations = this.#relationsOf(source);
        const failedBefore = relations.failure !== undefined;
        await relations.load();
        if (failedBefore || relations.failure === undefined) return;
        const { message } = relations.failure as Error;
        this.#log.warn(
          { snapshot: source.snapshotId },
          `Names of tables cannot be read, numbers are shown: ${message}`,
        );
      }),
    );
    const timer = new AbortController();
    await Promise.race([loaded, delay(NAMES_WAIT_MS, undefined, { signal: timer.signal }).catch(() => undefined)]);
    timer.abort();
  }

  #relationsOf(source: KlosetSource): SnapshotRelations {
    const known = this.#relations.get(source) ?? new SnapshotRelations(source);
    this.#relations.set(source, known);
    return known;
  }

  #describe(source: KlosetSource, exports: readonly string[], { by, rowsMax }: TopOptions): ToldSnapshot {
    const relations = this.#relationsOf(source);
    const touched = [...source.costs.entries()].filter(([, cost]) => cost.requests > 0 || cost.chunks > 0);
    const files = touched.sort(([, a], [, b]) => compareCosts(a, b, by)).slice(0, rowsMax);
    const costs = relations.hasClusters
      ? relations.costs().sort((a, b) => compareCosts(a.cost, b.cost, by))
      : undefined;
    return {
      snapshot: source.snapshotId,
      root: source.root,
      exports,
      total: tell(source.costs.total()),
      files: files.map(([entry, cost]) => ({ ...toldPath(entryPathBytes(source.tree, entry)), ...tell(cost) })),
      filesTouched: touched.length,
      ...(costs && {
        databases: byDatabase(costs, by),
        relations: costs.slice(0, rowsMax).map(({ cost, ...relation }) => ({ ...relation, ...tell(cost) })),
        ...whyMissing(relations, costs),
      }),
      estimate: this.#estimate(source),
    };
  }

  #estimate({ costs, tree }: KlosetSource): RestoreEstimate {
    const { decodedBytes, newBytes } = costs.total();
    const { contentDecodedBytes, contentBusyMs } = this.#store.counters;
    return estimateRestore({
      contentBytes: contentBytesOf(tree),
      fetchedBytes: decodedBytes,
      distinctFetchedBytes: newBytes,
      bytesPerSecond: contentBusyMs === 0 ? 0 : contentDecodedBytes / (contentBusyMs / 1000),
    });
  }
}

function byDatabase(costs: readonly RelationCost[], by: TopOrder): ToldDatabase[] {
  const sums = new Map<string | null, FileCost>();
  for (const { database = null, cost } of costs) {
    const sum = sums.get(database) ?? newFileCost();
    sums.set(database, sum);
    addCost(sum, cost);
  }
  return [...sums]
    .sort(([, a], [, b]) => compareCosts(a, b, by))
    .map(([database, sum]) => ({ database, ...tell(sum) }));
}

function whyMissing(relations: SnapshotRelations, costs: readonly RelationCost[]): { namesMissing?: string } {
  if (!costs.some(({ kind }) => kind === 'unknown')) return {};
  const { failure } = relations;
  if (failure !== undefined) return { namesMissing: (failure as Error).message };
  return { namesMissing: 'they are being read, or the catalogs in the backup do not have them yet' };
}

function compareCosts(a: FileCost, b: FileCost, by: TopOrder): number {
  if (by === 'requests') return b.requests - a.requests || b.storeBytes - a.storeBytes;
  if (by === 'bytes') return b.storeBytes - a.storeBytes || b.bytes - a.bytes;
  return b.waitMs - a.waitMs || b.storeBytes - a.storeBytes;
}

function tell(cost: FileCost): ToldCost {
  const { requests, bytes, chunks, storeBytes, decodedBytes } = cost;
  return {
    requests,
    bytes,
    waitSeconds: seconds(cost.waitMs),
    chunks,
    storeBytes,
    decodedBytes,
    fetchSeconds: seconds(cost.fetchMs),
  };
}

function toldPath(path: Uint8Array): Pick<ToldFile, 'path' | 'pathHex'> {
  return named('path', path) as Pick<ToldFile, 'path' | 'pathHex'>;
}

function seconds(ms: number): number {
  return Number((ms / 1000).toFixed(6));
}
