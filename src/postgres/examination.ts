/** What a data directory in a snapshot is, and whether a server can start on it: read from the snapshot, before anything runs. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';
import { type ContentReader, entryName, entryPath, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { formatBytes, KiB, MiB } from '../core/units.ts';
import { type MappedTablespace, parseTablespaceMap, startSegment } from './backup-label.ts';
import { effectiveSettings, includeNames, parseConfiguration, type Setting } from './configuration.ts';
import { type ControlData, parseControlData } from './control-data.ts';
import { entryAt, fileAt, findDataDirectories, isBelow } from './data-directories.ts';
import { findLogicalDump } from './logical-dump.ts';
import type { PostgresServer } from './postgres-server.ts';
import { missingLibraries, requireSameBuild } from './server-build.ts';
import { requireWal } from './wal-segments.ts';

/** A snapshot's entries and their contents. */
export interface Snapshot {
  readonly tree: SnapshotTree;
  readonly content: ContentReader;
  /** Where the tree's root was on the source machine, an absolute path. */
  readonly root: string;
}

export interface Examination {
  /** Entry of the data directory, and its path below the tree's root. */
  readonly dataDirectory: number;
  readonly path: string;
  readonly server: PostgresServer;
  readonly control: ControlData;
  /** Settings of the backup's own files, those of ALTER SYSTEM included. */
  readonly backupSettings: ReadonlyMap<string, string>;
  readonly mapped: readonly MappedTablespace[];
  /** Bytes of WAL that recovery may replay. */
  readonly walBytes: number;
  /** What an operator should know, one line each. */
  readonly warnings: readonly string[];
}

/** Sizes that a text file of a data directory has at most; a longer one is not what its name says, bytes. */
const TEXT_BYTES_MAX = 4 * MiB;
/** How many files a configuration may include, as a circle of includes has no end. */
const INCLUDES_MAX = 100;
const damaged = { exitCode: exitCodes.damagedData };

/** Size of pg_control. Source: PG_CONTROL_FILE_SIZE. */
const CONTROL_BYTES = 8 * KiB;

/**
 * Finds the one data directory and looks at it. `workDirectory` is for a copy of pg_control. Rejects with UserError: no
 * data directory or several, no fitting server, WAL that is missing, a copy of a running server unless `force`.
 */
export async function examine(
  snapshot: Snapshot,
  options: {
    readonly chooseServer: (major: number) => Promise<PostgresServer>;
    readonly force: boolean;
    readonly workDirectory: string;
    /** Only there, and below; undefined: anywhere. */
    readonly within: string | undefined;
  },
): Promise<Examination> {
  const { tree } = snapshot;
  const { force } = options;
  const dataDirectory = await theDataDirectory(snapshot, options.within);
  const path = entryPath(tree, dataDirectory);
  const text = (names: readonly string[]) => readText(snapshot, dataDirectory, names);
  const major = majorVersion((await text(['PG_VERSION'])) ?? '');
  const server = await options.chooseServer(major);
  const control = await readControl(snapshot, dataDirectory, server, options.workDirectory);
  const label = await text(['backup_label']);
  const warnings: string[] = [];
  if (label === undefined && control.state !== 'shut down' && control.state !== 'shut down in recovery') {
    const message = `It has no backup_label and the server was running (${control.state}): a copy made file by file is not consistent`;
    if (!force) {
      throw new UserError(
        `${message}. If it is an atomic snapshot (LVM, ZFS, a stopped disk) say --force; else use pg_basebackup for the next one.`,
      );
    }
    warnings.push(`${message}; going on because of --force.`);
  }
  const wal = requireWal(tree, dataDirectory, {
    first: label === undefined ? control.redoSegment : (startSegment(label) ?? control.redoSegment),
    segmentBytes: control.walSegmentBytes,
    root: snapshot.root,
  });
  if (wal.gap !== undefined) {
    if (!force) throw new UserError(`${wal.gap}. Bring it from the archive, or lose that with --force.`, damaged);
    warnings.push(`${wal.gap}; going on because of --force.`);
  }
  const settings = effectiveSettings([
    ...(await readSettings(snapshot, dataDirectory)),
    ...parseConfiguration((await text(['postgresql.auto.conf'])) ?? ''),
  ]);
  warnings.push(...(await missingLibraries(settings, server)));
  return {
    dataDirectory,
    path,
    server,
    control,
    backupSettings: settings,
    walBytes: wal.bytes,
    mapped: parseTablespaceMap((await text(['tablespace_map'])) ?? ''),
    warnings,
  };
}

async function theDataDirectory(snapshot: Snapshot, within = '/'): Promise<number> {
  const { tree } = snapshot;
  const top = entryAt(
    tree,
    0,
    within.split('/').filter((name) => name !== ''),
  );
  const found = findDataDirectories(tree).filter((entry) => top !== undefined && isBelow(tree, entry, top));
  if (found.length === 1) return found[0]!;
  if (found.length > 1) {
    const paths = found.map((entry) => entryPath(tree, entry)).join(', ');
    throw new UserError(`The snapshot has ${found.length} data directories: ${paths}. Name one as SNAPSHOT:PATH.`);
  }
  const dump = await findLogicalDump(snapshot);
  if (dump !== undefined) {
    throw new UserError(
      `The snapshot has no data directory but a logical dump (${entryPath(tree, dump)}): restore that with pg_restore, or with psql if it is SQL, into a running server.`,
    );
  }
  throw new UserError(
    'The snapshot has no PostgreSQL data directory (one with PG_VERSION and global/pg_control): is it the right snapshot?',
  );
}

function majorVersion(text: string): number {
  const version = /^(\d+)(\.\d+)?\s*$/.exec(text);
  if (version === null) throw new UserError('PG_VERSION does not hold a version: the data directory is damaged.');
  const major = Number(version[1]);
  if (major >= 12) return major;
  throw new UserError(`The backup is of PostgreSQL ${text.trim()}; 12 is the oldest that kloset-nbd starts.`, {
    exitCode: exitCodes.version,
  });
}

/** pg_control is a C struct of its version and machine: the server's own tool reads it. */
async function readControl(
  snapshot: Snapshot,
  dataDirectory: number,
  server: PostgresServer,
  workDirectory: string,
): Promise<ControlData> {
  const entry = fileAt(snapshot.tree, dataDirectory, ['global', 'pg_control'])!;
  const bytes = new Uint8Array(Math.min(CONTROL_BYTES, snapshot.tree.sizeBytes[entry]!));
  await snapshot.content.read(entry, 0, bytes);
  const copy = join(workDirectory, 'examined');
  await mkdir(join(copy, 'global'), { recursive: true });
  await writeFile(join(copy, 'global', 'pg_control'), bytes);
  await writeFile(join(copy, 'postgresql.conf'), '');
  const { status, stdout, stderr } = await server.controlData(copy);
  // It only warns of what it cannot make out: another byte order, another version.
  if (status !== 0 || /WARNING/.test(stdout + stderr)) {
    throw new UserError(
      `${server.version} cannot read the backup's pg_control: it is of another architecture or damaged. Start it where it was made, or on the same kind of machine.`,
      { exitCode: exitCodes.version },
    );
  }
  const control = parseControlData(stdout);
  await requireSameBuild(control, server, copy);
  return control;
}

/** postgresql.conf and what it includes, as far as that lies in the data directory. */
async function readSettings(snapshot: Snapshot, dataDirectory: number): Promise<Setting[]> {
  const settings: Setting[] = [];
  let filesLeft = INCLUDES_MAX;
  let charactersLeft = TEXT_BYTES_MAX;
  const read = async (names: readonly string[]): Promise<void> => {
    if (filesLeft-- <= 0) return;
    const text = (await readText(snapshot, dataDirectory, names)) ?? '';
    charactersLeft -= text.length;
    if (charactersLeft < 0) throw tooLong('postgresql.conf with all that it includes');
    for (const setting of parseConfiguration(text)) {
      if (!includeNames.includes(setting.name)) settings.push(setting);
      else for (const file of included(snapshot.tree, dataDirectory, names, setting)) await read(file);
    }
  };
  await read(['postgresql.conf']);
  return settings;
}

/** The files an include line means, relative to the data directory. */
function included(
  tree: SnapshotTree,
  dataDirectory: number,
  from: readonly string[],
  { name, value }: Setting,
): string[][] {
  if (value.startsWith('/')) return [];
  const names = [...from.slice(0, -1), ...value.split('/').filter((part) => part !== '' && part !== '.')];
  if (names.includes('..')) return [];
  if (name !== 'include_dir') return [names];
  const directory = entryAt(tree, dataDirectory, names);
  if (directory === undefined || tree.type[directory] !== entryTypes.directory) return [];
  const first = tree.firstChild[directory]!;
  return Array.from({ length: tree.childCount[directory]! }, (_, i) =>
    Buffer.from(entryName(tree, first + i)).toString(),
  )
    .filter((file) => file.endsWith('.conf') && !file.startsWith('.'))
    .map((file) => [...names, file]);
}

async function readText(
  { tree, content }: Snapshot,
  directory: number,
  names: readonly string[],
): Promise<string | undefined> {
  const entry = fileAt(tree, directory, names);
  if (entry === undefined) return undefined;
  const size = tree.sizeBytes[entry]!;
  if (size > TEXT_BYTES_MAX) throw tooLong(names.join('/'));
  const bytes = new Uint8Array(size);
  await content.read(entry, 0, bytes);
  return Buffer.from(bytes).toString();
}

function tooLong(what: string): UserError {
  return new UserError(
    `${what} has more than ${formatBytes(TEXT_BYTES_MAX)}: that is no text file of PostgreSQL's. Look at it with "kloset-nbd attach --read-only"; ` +
      'if the rest is sound, make a clone without it and start "pg --clone" on that.',
    damaged,
  );
}
