/**
 * What PostgreSQL will ask of a data directory until it answers a first query, in the order in which it asks: what says
 * how to start, the WAL that is replayed, what all databases share, each database's catalogs. Measured on a start by `pg`;
 * relations of users are left to reading itself, and to profiles.
 */
import { entryName, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import type { StopOptions } from '../core/stop.ts';
import { parseFilenodeMap } from '../postgres/catalog/filenode-map.ts';
import { entryAt, fileAt, findDataDirectories } from '../postgres/data-directories.ts';
import { toBytePath } from '../source/directory-lister.ts';
import { entryMeantBy } from '../source/tree-links.ts';
import { FORK_SUFFIXES, STARTUP_CATALOGS, TEMPLATE0_OID, TEMPLATE1_OID } from './catalogs.ts';
import {
  DATA_DIRECTORIES_MAX,
  FILE_BYTES_MAX,
  PARSED_FILE_BYTES_MAX,
  SMALL_FILE_BYTES_MAX,
  WAL_BYTES_MAX,
} from './limits.ts';
import { walStartOfControl, walStartOfLabel } from './wal-start.ts';

/** A snapshot as planning needs it. */
export interface PlannedSource {
  readonly tree: SnapshotTree;
  /** The absolute path of the tree's root in the snapshot. */
  readonly root: string;
  /** As ContentReader.read, not counted as a client's; for the few files that say what to read next. */
  readUncounted(entry: number, offset: number, target: Uint8Array, options?: StopOptions): Promise<void>;
}

/** Bytes `from` up to `to` of a file; not empty. */
export interface Stretch {
  readonly entry: number;
  readonly from: number;
  readonly to: number;
}

/** Files that are read before the WAL, by their names; `global/pg_control` first of all. */
const FIRST_FILES = [
  ['global', 'pg_control'],
  ['PG_VERSION'],
  ['backup_label'],
  ['tablespace_map'],
  ['postgresql.conf'],
  ['postgresql.auto.conf'],
] as const;

/** Directories of which a start reads the newest file: those before it are history. */
const NEWEST_OF = [['pg_xact'], ['pg_multixact', 'offsets'], ['pg_multixact', 'members'], ['pg_commit_ts']] as const;

export interface PlanOptions extends StopOptions {
  /** Whether the start works in template1 before any other database, as `pg` does. Otherwise nobody asks for it. */
  readonly needsTemplate1?: boolean;
}

/** No file occurs twice. Rejects as `read` does, or with the signal's reason. */
export async function* planWarmUp(source: PlannedSource, options: PlanOptions = {}): AsyncGenerator<Stretch> {
  for (const directory of findDataDirectories(source.tree).slice(0, DATA_DIRECTORIES_MAX)) {
    yield* new DataDirectoryPlan(source, directory, options).stretches();
  }
}

class DataDirectoryPlan {
  readonly #source: PlannedSource;
  readonly #tree: SnapshotTree;
  readonly #directory: number;
  readonly #options: PlanOptions;
  readonly #planned = new Set<number>();

  constructor(source: PlannedSource, directory: number, options: PlanOptions) {
    this.#source = source;
    this.#tree = source.tree;
    this.#directory = directory;
    this.#options = options;
  }

  async *stretches(): AsyncGenerator<Stretch> {
    for (const names of FIRST_FILES) yield* this.#whole(fileAt(this.#tree, this.#directory, names));
    yield* this.#wal();
    const global = entryAt(this.#tree, this.#directory, ['global']);
    yield* this.#whole(fileAt(this.#tree, this.#directory, ['global', 'pg_filenode.map']));
    for (const names of NEWEST_OF) yield* this.#whole(this.#newestOf(names));
    for (const file of this.#files(global)) yield* this.#whole(file);
    for (const file of this.#files(this.#directory)) yield* this.#small(file);
    for (const file of this.#files(entryAt(this.#tree, this.#directory, ['pg_logical']))) yield* this.#small(file);
    const databases = this.#databases();
    for (const database of databases) yield* this.#whole(fileAt(this.#tree, database, ['pg_filenode.map']));
    for (const database of databases) yield* this.#catalogs(database);
  }

  /** From where recovery starts to the end of that segment. */
  async *#wal(): AsyncGenerator<Stretch> {
    const wal = this.#directoryAt(entryAt(this.#tree, this.#directory, ['pg_wal']));
    const segments = this.#files(wal).filter((entry) => /^[0-9A-F]{24}$/.test(this.#name(entry)));
    if (segments.length === 0) return;
    const segmentBytes = this.#tree.sizeBytes[segments[0]!]!;
    const label = await this.#content(fileAt(this.#tree, this.#directory, ['backup_label']));
    const control = await this.#content(fileAt(this.#tree, this.#directory, ['global', 'pg_control']));
    const start =
      label === undefined
        ? walStartOfControl(control ?? new Uint8Array(0), segmentBytes)
        : walStartOfLabel(Buffer.from(label).toString(), segmentBytes);
    const segment = segments.find((entry) => this.#name(entry) === start?.segment);
    if (start === undefined || segment === undefined) return;
    // The first page of a segment says what WAL it is, and is looked at before the record.
    yield* this.#stretch(segment, start.offset < SMALL_FILE_BYTES_MAX ? 0 : start.offset, WAL_BYTES_MAX);
  }

  /** Directories of databases by number, which puts template1 first; then those in tablespaces. */
  #databases(): number[] {
    const isAskedFor = (oid: number) =>
      oid === TEMPLATE1_OID ? this.#options.needsTemplate1 === true : oid !== TEMPLATE0_OID;
    const oidOf = (entry: number) => Number(this.#name(entry));
    const inside = (directory: number | undefined) =>
      this.#children(directory)
        .filter((entry) => /^\d+$/.test(this.#name(entry)) && this.#tree.type[entry] === entryTypes.directory)
        .filter((entry) => isAskedFor(oidOf(entry)))
        .sort((a, b) => oidOf(a) - oidOf(b));
    const tablespaces = this.#children(entryAt(this.#tree, this.#directory, ['pg_tblspc'])).flatMap((link) =>
      this.#children(this.#directoryAt(link)).filter((entry) => this.#name(entry).startsWith('PG_')),
    );
    return [entryAt(this.#tree, this.#directory, ['base']), ...tablespaces].flatMap(inside);
  }

  /** Of a directory that holds a database's catalogs; others have no map. */
  async *#catalogs(database: number): AsyncGenerator<Stretch> {
    const mapFile = fileAt(this.#tree, database, ['pg_filenode.map']);
    if (mapFile === undefined) return;
    yield* this.#whole(fileAt(this.#tree, database, ['PG_VERSION']));
    const content = await this.#content(mapFile);
    const map = content && parseFilenodeMap(content);
    for (const oid of STARTUP_CATALOGS) {
      const number = map?.get(oid) ?? oid;
      for (const suffix of FORK_SUFFIXES) yield* this.#whole(fileAt(this.#tree, database, [`${number}${suffix}`]));
    }
  }

  *#whole(entry: number | undefined): Generator<Stretch> {
    if (entry !== undefined) yield* this.#stretch(entry, 0, FILE_BYTES_MAX);
  }

  *#small(entry: number): Generator<Stretch> {
    if (this.#tree.sizeBytes[entry]! <= SMALL_FILE_BYTES_MAX) yield* this.#whole(entry);
  }

  *#stretch(entry: number, from: number, bytesMax: number): Generator<Stretch> {
    const to = Math.min(this.#tree.sizeBytes[entry]!, from + bytesMax);
    if (to <= from || this.#planned.has(entry)) return;
    this.#planned.add(entry);
    yield { entry, from, to };
  }

  /** The file whose name is the last: those of status are numbered upwards. */
  #newestOf(names: readonly string[]): number | undefined {
    return this.#files(entryAt(this.#tree, this.#directory, names)).at(-1);
  }

  async #content(entry: number | undefined): Promise<Uint8Array | undefined> {
    if (entry === undefined || this.#tree.sizeBytes[entry]! > PARSED_FILE_BYTES_MAX) return undefined;
    const content = new Uint8Array(this.#tree.sizeBytes[entry]!);
    await this.#source.readUncounted(entry, 0, content, this.#options);
    return content;
  }

  /** A directory, or what a symlink to one leads to in the snapshot. */
  #directoryAt(entry: number | undefined): number | undefined {
    if (entry === undefined || this.#tree.type[entry] !== entryTypes.symlink) return entry;
    return entryMeantBy(this.#tree, entry, toBytePath(Buffer.from(this.#source.root)));
  }

  #files(directory: number | undefined): number[] {
    return this.#children(directory).filter((entry) => this.#tree.type[entry] === entryTypes.file);
  }

  #children(directory: number | undefined): number[] {
    if (directory === undefined) return [];
    const first = this.#tree.firstChild[directory]!;
    return Array.from({ length: this.#tree.childCount[directory]! }, (_, i) => first + i);
  }

  #name(entry: number): string {
    return Buffer.from(entryName(this.#tree, entry)).toString();
  }
}
