/** The disk that a PostgreSQL runs on: a throw-away one over a snapshot, or a clone that stays. */
import { mkdir } from 'node:fs/promises';
import { CloneExports } from '../clones/clone-exports.ts';
import { CLONE_FORMAT_VERSION, type CloneRecord, checkCloneName, newOverlayId } from '../clones/clone-record.ts';
import { LocalClones } from '../clones/local-clones.ts';
import type { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import type { ExportCatalog } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import { toHex } from '../core/mac.ts';
import { GiB } from '../core/units.ts';
import { spillDirectory } from '../device/spill-file.ts';
import { partOf } from '../exports/composition.ts';
import { MemoryOverlays } from '../exports/memory-overlays.ts';
import type { OpenStore } from '../exports/open-store.ts';
import { SnapshotExports } from '../exports/snapshot-exports.ts';
import { FREE_PERCENT_DEFAULT, type FreeSpace } from '../ext4/parameters.ts';
import { parseSelector, selectSnapshot } from '../kloset/selector.ts';
import type { PgDisk } from '../postgres/pg-session.ts';

/** Where the snapshot lies on the disk: not at its root, so that lost+found is not in the data directory. */
const PLACE = 'data';

/**
 * Free space on a new disk, bytes. It costs nothing until it is written, and WAL alone grows to max_wal_size (1 GiB) and more; of
 * data that is four times as large the usual share is more.
 */
const FREE_BYTES_MIN = 16 * GiB;
const freeSpace = (contentBytes: number): FreeSpace | undefined =>
  (contentBytes / 100) * FREE_PERCENT_DEFAULT > FREE_BYTES_MIN ? undefined : { bytes: FREE_BYTES_MIN };

interface DiskSurroundings {
  readonly store: OpenStore;
  readonly log: Log;
  readonly closers: Closers;
  /** What is written is kept in memory up to so much, bytes; then in a file. */
  readonly overlayBytesMax: number;
}

/** Rejects with UserError for a selector that means no snapshot. */
export async function throwAwayDisk(
  text: string,
  { store, log, closers, overlayBytesMax }: DiskSurroundings,
): Promise<PgDisk> {
  const selector = parseSelector(text);
  const header = selectSnapshot(store.snapshots, selector);
  return {
    name: selector.text,
    clone: undefined,
    header,
    path: partOf(header, { selector, at: undefined }, undefined).path,
    place: PLACE,
    owner: undefined,
    exportName: '',
    writtenTo: {
      directory: await spillDirectory(undefined, log),
      memoryBytes: overlayBytesMax,
      advice: 'set TMPDIR to a directory with more of it',
    },
    async open(owner, contentBytes): Promise<ExportCatalog> {
      const overlays = new MemoryOverlays({
        memoryBytesMax: overlayBytesMax,
        tempDir: undefined,
        encryptSpill: store.repository.isEncrypted,
        space: { onFull: 'fail' },
        log,
      });
      closers.add(() => overlays.close());
      const layout = { owner, free: freeSpace(contentBytes) };
      const exports = await SnapshotExports.create({
        store,
        selectors: [selector],
        into: PLACE,
        layout,
        overlays,
        log,
      });
      closers.add(() => exports.close());
      return exports;
    },
  };
}

/**
 * The clone of that name; made of the snapshot if there is none yet. Rejects with UserError if another process has the
 * directory, or the clone is of several snapshots.
 */
export async function cloneDisk(
  name: string,
  options: DiskSurroundings & { readonly directory: string; readonly snapshot: string | undefined },
): Promise<PgDisk> {
  checkCloneName(name);
  const { store, log, closers, directory, snapshot } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { repository } = store;
  const keys = repository.isEncrypted
    ? { keyFor: (salt: Uint8Array) => repository.fileKey('overlay', salt), encryptNew: true }
    : {};
  const settings = { onFull: 'pause' as const, ...keys };
  const clones = await LocalClones.open({ directory, settings, store: () => Promise.resolve(store), log });
  closers.add(() => clones.close());
  const record = await clones.registry.read(name);
  const plan = record === undefined ? planClone(name, snapshot ?? 'latest', store) : existing(record, snapshot, store);
  const [part] = plan.parts;
  return {
    name,
    clone: name,
    header: selectSnapshot(store.snapshots, parseSelector(part!.snapshot)),
    path: part!.path,
    place: part!.at ?? '',
    owner: record === undefined ? undefined : (record.layout.owner ?? 'recorded'),
    exportName: name,
    writtenTo:
      record === undefined
        ? { directory, memoryBytes: 0, advice: 'name a directory with more of it (--clones DIR)' }
        : undefined,
    async open(owner, contentBytes): Promise<ExportCatalog> {
      const layout = { owner, free: freeSpace(contentBytes) };
      if (record === undefined) await clones.registry.create({ ...plan, layout });
      return new CloneExports(clones, noExports);
    },
  };
}

/** Behind the clones there is nothing else. */
const noExports: ExportCatalog = { list: async () => [], acquire: async () => undefined };

function existing(record: CloneRecord, snapshot: string | undefined, store: OpenStore): CloneRecord {
  const [part, ...others] = record.parts;
  if (others.length > 0) {
    throw new UserError(`The clone "${record.name}" is of several snapshots: name one of one, or attach it yourself.`);
  }
  if (snapshot !== undefined) {
    const wanted = selectSnapshot(store.snapshots, parseSelector(snapshot));
    if (wanted.id !== part!.snapshot) {
      throw new UserError(
        `The clone "${record.name}" is of snapshot ${part!.snapshot.slice(0, 8)}, not ${wanted.id.slice(0, 8)}: leave SNAPSHOT out, or take another name.`,
      );
    }
  }
  return record;
}

function planClone(name: string, snapshot: string, store: OpenStore): CloneRecord {
  const selector = parseSelector(snapshot);
  const header = selectSnapshot(store.snapshots, selector);
  const part = partOf(header, { selector, at: undefined }, PLACE);
  return {
    formatVersion: CLONE_FORMAT_VERSION,
    name,
    overlayId: newOverlayId(),
    storeId: toHex(store.repository.config.repositoryId),
    isEncrypted: store.repository.isEncrypted,
    selector: snapshot,
    parts: [{ snapshot: header.id, path: part.path, at: PLACE }],
    layout: {},
    createdMs: Date.now(),
    resetMs: null,
    expiresMs: null,
    isProtected: false,
  };
}
