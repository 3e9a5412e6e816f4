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
import type { SnapshotDevice } from '../exports/snapshot-device.ts';
import { SnapshotExports } from '../exports/snapshot-exports.ts';
import { FREE_PERCENT_DEFAULT, type FreeSpace, type LayoutRequest } from '../ext4/parameters.ts';
import { parseSelector, type Selector, selectSnapshot } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { PgDisk } from '../postgres/pg-session.ts';
import type { User } from '../postgres/postgres-server.ts';

/** Where the snapshot lies on the disk: not at its root, so that lost+found is not in the data directory. */
const PLACE = 'data';

/** The path of all that a snapshot has. */
const WHOLE = '/';

/**
 * Free space on a new disk, bytes. It costs nothing until it is written, and WAL alone grows to max_wal_size (1 GiB) and more; of
 * data that is four times as large the usual share is more.
 */
const FREE_BYTES_MIN = 16 * GiB;
const freeSpace = (contentBytes: number): FreeSpace | undefined =>
  (contentBytes / 100) * FREE_PERCENT_DEFAULT > FREE_BYTES_MIN ? undefined : { bytes: FREE_BYTES_MIN };

/** A disk, and what of it is open once it is served. */
export interface ServedDisk extends PgDisk {
  openDevices(): readonly SnapshotDevice[];
}

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
): Promise<ServedDisk> {
  const selector = parseSelector(text);
  const header = selectSnapshot(store.snapshots, selector);
  const writtenTo = {
    directory: await spillDirectory(undefined, log),
    memoryBytes: overlayBytesMax,
    advice: 'set TMPDIR to a directory with more of it',
  };
  let served: SnapshotExports | undefined;
  const openDevices = () => served?.openDevices ?? [];
  const open = (wanted: Selector) => async (owner: User, contentBytes: number) => {
    const overlays = new MemoryOverlays({
      memoryBytesMax: overlayBytesMax,
      tempDir: undefined,
      encryptSpill: store.repository.isEncrypted,
      space: { onFull: 'fail' },
      log,
    });
    closers.add(() => overlays.close());
    const layout = { owner, free: freeSpace(contentBytes) };
    const options = { store, selectors: [wanted], into: PLACE, layout, overlays, log };
    const exports = await SnapshotExports.create(options);
    closers.add(() => exports.close());
    served = exports;
    return exports;
  };
  const disk = {
    name: selector.text,
    clone: undefined,
    header,
    place: PLACE,
    owner: undefined,
    exportName: '',
    writtenTo,
  };
  const { path } = partOf(header, { selector, at: undefined }, undefined);
  const whole = { ...selector, path: undefined };
  const wider = { ...disk, path: WHOLE, within: path, wider: undefined, open: open(whole) };
  const asked = { ...disk, path, within: undefined, wider: path === WHOLE ? undefined : wider, open: open(selector) };
  return { ...asked, openDevices };
}

/**
 * The clone of that name; made of the snapshot if there is none yet. Rejects with UserError if another process has the
 * directory, or the clone is of several snapshots.
 */
export async function cloneDisk(
  name: string,
  options: DiskSurroundings & { readonly directory: string; readonly snapshot: string | undefined },
): Promise<ServedDisk> {
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
  const [part] = record === undefined ? [] : partsOf(record);
  const header = selectSnapshot(store.snapshots, parseSelector(part?.snapshot ?? snapshot ?? 'latest'));
  // A clone that is wider than what was asked for remembers what that was.
  const asked = pathOf(header, snapshot ?? record?.selector.replace(/=.*$/, ''));
  if (part !== undefined) requireSame(record!, part, { snapshot, asked, store });
  const on = (path: string, within: string | undefined): PgDisk => ({
    name,
    clone: name,
    header,
    path,
    place: part === undefined ? PLACE : (part.at ?? ''),
    within,
    wider: part !== undefined || path === WHOLE ? undefined : on(WHOLE, path),
    owner: record === undefined ? undefined : (record.layout.owner ?? 'recorded'),
    exportName: name,
    writtenTo:
      record === undefined
        ? { directory, memoryBytes: 0, advice: 'name a directory with more of it (--clones DIR)' }
        : undefined,
    async open(owner, contentBytes): Promise<ExportCatalog> {
      const layout = { owner, free: freeSpace(contentBytes) };
      const plan = newRecord(name, { selector: snapshot ?? 'latest', header, path, layout, store });
      if (record === undefined) await clones.registry.create(plan);
      return new CloneExports(clones, noExports);
    },
  });
  const disk =
    part === undefined ? on(asked ?? WHOLE, undefined) : on(part.path, asked === part.path ? undefined : asked);
  return { ...disk, openDevices: () => clones.devices.open };
}

/** The directory that a selector names; undefined if it names none. */
function pathOf(header: SnapshotHeader, text = ''): string | undefined {
  const selector = parseSelector(text);
  return selector.path === undefined ? undefined : partOf(header, { selector, at: undefined }, undefined).path;
}

/** Behind the clones there is nothing else. */
const noExports: ExportCatalog = { list: async () => [], acquire: async () => undefined };

function partsOf({ name, parts }: CloneRecord): CloneRecord['parts'] {
  if (parts.length === 1) return parts;
  throw new UserError(`The clone "${name}" is of several snapshots: name one of one, or attach it yourself.`);
}

/** Throws UserError unless the clone has what was asked for: that snapshot, and that directory of it. */
function requireSame(
  { name }: CloneRecord,
  part: CloneRecord['parts'][number],
  { snapshot, asked, store }: { snapshot: string | undefined; asked: string | undefined; store: OpenStore },
): void {
  if (snapshot === undefined) return;
  const wanted = selectSnapshot(store.snapshots, parseSelector(snapshot));
  const advice = 'leave SNAPSHOT out, or take another name';
  if (wanted.id !== part.snapshot) {
    const [is, not] = [part.snapshot, wanted.id].map((id) => id.slice(0, 8));
    throw new UserError(`The clone "${name}" is of snapshot ${is}, not ${not}: ${advice}.`);
  }
  if (asked !== undefined && asked !== part.path && part.path !== WHOLE) {
    throw new UserError(`The clone "${name}" is of ${part.path} in its snapshot, not ${asked}: ${advice}.`);
  }
}

function newRecord(
  name: string,
  {
    selector,
    header,
    path,
    layout,
    store,
  }: { selector: string; header: SnapshotHeader; path: string; layout: LayoutRequest; store: OpenStore },
): CloneRecord {
  const { repository } = store;
  return {
    formatVersion: CLONE_FORMAT_VERSION,
    name,
    overlayId: newOverlayId(),
    storeId: toHex(repository.config.repositoryId),
    isEncrypted: repository.isEncrypted,
    selector,
    parts: [{ snapshot: header.id, path, at: PLACE }],
    layout,
    createdMs: Date.now(),
    resetMs: null,
    expiresMs: null,
    isProtected: false,
  };
}
