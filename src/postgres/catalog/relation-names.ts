/**
 * The names of databases, tables and indexes behind the files of a data directory, read from the catalogs' own files in the
 * snapshot, without a server. What a row says counts by its hint bits: where a backup of a running server needs WAL to be
 * whole, the newest names may be missing, and numbers stand in their place.
 */
import { KlosetNbdError } from '../../core/errors.ts';
import type { SnapshotTree } from '../../core/snapshot-tree.ts';
import { MiB } from '../../core/units.ts';
import { entryAt, fileAt } from '../data-directories.ts';
import { FILENODE_MAP_BYTES_MAX, readFilenodeMap } from './filenode-map.ts';
import { type HeapRow, isNewer, pageBytesOf, type RowVersion, rowsOf } from './heap-page.ts';
import { type CatalogLayout, catalogs, layoutOf, NAME_BYTES, pgIndex } from './layout.ts';

/** A table, an index, or what else has a file. */
export interface Relation {
  readonly oid: number;
  readonly schema: string | undefined;
  readonly name: string;
  /** PostgreSQL's letter: r table, i index, t TOAST, S sequence, m materialized view. */
  readonly kind: string;
  /** The table that an index or a TOAST table belongs to, in the end; undefined for those that stand for themselves. */
  readonly owner: { readonly schema: string | undefined; readonly name: string } | undefined;
}

export interface CatalogSource {
  readonly tree: SnapshotTree;
  /** As ContentReader.read. */
  read(entry: number, offset: number, target: Uint8Array): Promise<void>;
}

/** Bytes of one catalog that are read: 250,000 relations in pg_class. */
const CATALOG_BYTES_MAX = 64 * MiB;
const PIECE_BYTES = 1 * MiB;
/** Relations of one database that are kept, some 300 bytes each. */
const RELATIONS_MAX = 250_000;

/** What a database's catalogs say. */
type Names = ReadonlyMap<number, Relation>;

export class RelationNames {
  readonly #source: CatalogSource;
  readonly #directory: number;
  readonly #layout: CatalogLayout;
  /** By oid. */
  readonly #databases: ReadonlyMap<number, string>;
  readonly #shared: ReadonlyMap<number, number>;
  /** By database; each is read once, when somebody first asks. */
  readonly #names = new Map<number, Promise<Names>>();
  readonly #known = new Map<number, Names>();

  private constructor(
    source: CatalogSource,
    directory: number,
    parts: { layout: CatalogLayout; shared: Map<number, number>; databases: Map<number, string> },
  ) {
    this.#source = source;
    this.#directory = directory;
    this.#layout = parts.layout;
    this.#shared = parts.shared;
    this.#databases = parts.databases;
  }

  /** Reads which databases there are. Undefined if the catalogs are of a form that is not known. Rejects as the source does. */
  static async open(source: CatalogSource, directory: number): Promise<RelationNames | undefined> {
    const { tree } = source;
    const version = await readStart(source, fileAt(tree, directory, ['PG_VERSION']), 16);
    const layout = layoutOf(Buffer.from(version).toString().trim());
    if (layout === undefined) return undefined;
    const map = await readStart(source, fileAt(tree, directory, ['global', 'pg_filenode.map']), FILENODE_MAP_BYTES_MAX);
    const shared = readFilenodeMap(map);
    const file = fileAt(tree, directory, ['global', String(shared.get(catalogs.pg_database))]);
    const databases = file === undefined ? new Map() : await readNames(source, file, layout);
    return new RelationNames(source, directory, { layout, shared, databases });
  }

  databaseName(oid: number): string | undefined {
    return this.#databases.get(oid);
  }

  /** The relation behind a file, if its database's names are there; 0 is the database of what all share. */
  relation(databaseOid: number, filenode: number): Relation | undefined {
    return this.#known.get(databaseOid)?.get(filenode);
  }

  /** Reads a database's names, unless that was done or is under way. Rejects if they cannot be had; they are not tried again. */
  async load(databaseOid: number): Promise<void> {
    let names = this.#names.get(databaseOid);
    if (names === undefined) {
      names = databaseOid === 0 ? this.#readShared() : this.#read(databaseOid);
      this.#names.set(databaseOid, names);
    }
    this.#known.set(databaseOid, await names);
  }

  /** Whether a database's names were asked for. */
  isAskedFor(databaseOid: number): boolean {
    return this.#names.has(databaseOid);
  }

  /** The catalogs that all share are named in every database; the first that can be read tells. */
  async #readShared(): Promise<Names> {
    for (const oid of this.#databases.keys()) {
      const names = await this.#read(oid, this.#shared).catch((error: unknown) => {
        if (error instanceof KlosetNbdError) return undefined;
        throw error;
      });
      if (names !== undefined && names.size > 0) return names;
    }
    return new Map();
  }

  /** The relations of one database by their files' numbers. `only`: those of this map alone, which are found by it. */
  async #read(databaseOid: number, only?: ReadonlyMap<number, number>): Promise<Names> {
    const { tree } = this.#source;
    const folder = catalogFolder(tree, this.#directory, databaseOid);
    if (folder === undefined) return new Map();
    const at = (name: string) => fileAt(tree, folder, [name]);
    const mapped = readFilenodeMap(await readStart(this.#source, at('pg_filenode.map'), FILENODE_MAP_BYTES_MAX));
    const classFile = at(String(mapped.get(catalogs.pg_class)));
    if (classFile === undefined) return new Map();
    const classes = await this.#readClasses(classFile);
    const fileOf = (oid: number) => at(String(mapped.get(oid) ?? newestOf(classes, oid)?.filenode));
    const namespaceFile = fileOf(catalogs.pg_namespace);
    const indexFile = fileOf(catalogs.pg_index);
    return nameRelations({
      classes,
      schemas: namespaceFile === undefined ? new Map() : await readNames(this.#source, namespaceFile, this.#layout),
      tables: indexFile === undefined ? new Map() : await readIndexes(this.#source, indexFile),
      filesOf: ({ oid, filenode }) => (only === undefined ? (mapped.get(oid) ?? filenode) : only.get(oid)),
    });
  }

  async #readClasses(file: number): Promise<ClassRow[]> {
    const { name, relnamespace, relfilenode, reltoastrelid, relkind } = this.#layout;
    const found: ClassRow[] = [];
    for await (const row of readRows(this.#source, file, relkind + 1)) {
      if (found.length >= RELATIONS_MAX) break;
      const { columns } = row;
      found.push({
        version: { liveness: row.liveness, xmin: row.xmin }, // Not the row, which is a view of its page.
        oid: oidOf(row, this.#layout),
        name: nameAt(columns, name),
        namespace: columns.getUint32(relnamespace, true),
        filenode: columns.getUint32(relfilenode, true),
        toast: columns.getUint32(reltoastrelid, true),
        kind: String.fromCharCode(columns.getUint8(relkind)),
      });
    }
    return found;
  }
}

/** A version of a row of pg_class. */
interface ClassRow {
  readonly version: RowVersion;
  readonly oid: number;
  readonly name: string;
  readonly namespace: number;
  /** 0: mapped, or without a file. */
  readonly filenode: number;
  readonly toast: number;
  readonly kind: string;
}

/** Relations by their files; of several versions of a row that name one file the likeliest counts. */
function nameRelations(parts: {
  readonly classes: readonly ClassRow[];
  /** By oid. */
  readonly schemas: ReadonlyMap<number, string>;
  /** An index's table. */
  readonly tables: ReadonlyMap<number, number>;
  filesOf(row: ClassRow): number | undefined;
}): Names {
  const byOid = new Map<number, ClassRow>();
  const byFile = new Map<number, ClassRow>();
  const toastOwners = new Map<number, number>();
  for (const row of parts.classes) {
    keepNewer(byOid, row.oid, row);
    const file = parts.filesOf(row);
    if (file !== undefined && file !== 0) keepNewer(byFile, file, row);
    if (row.toast !== 0) toastOwners.set(row.toast, row.oid);
  }
  const ownerOf = (oid: number): ClassRow | undefined => {
    // An index of a TOAST table belongs to that, and that to its table.
    const table = parts.tables.get(oid) ?? oid;
    const owner = toastOwners.get(table) ?? table;
    return owner === oid ? undefined : byOid.get(owner);
  };
  const told = ({ name, namespace }: ClassRow) => ({ schema: parts.schemas.get(namespace), name });
  const named = new Map<number, Relation>();
  for (const [file, row] of byFile) {
    const owner = ownerOf(row.oid);
    named.set(file, { oid: row.oid, ...told(row), kind: row.kind, owner: owner && told(owner) });
  }
  return named;
}

function keepNewer(rows: Map<number, ClassRow>, key: number, row: ClassRow): void {
  const known = rows.get(key);
  if (known === undefined || isNewer(row.version, known.version)) rows.set(key, row);
}

function newestOf(rows: readonly ClassRow[], oid: number): ClassRow | undefined {
  const newest = new Map<number, ClassRow>();
  for (const row of rows) if (row.oid === oid) keepNewer(newest, oid, row);
  return newest.get(oid);
}

/** Where a database has its catalogs: below `base`, or in the tablespace that it was made in. */
function catalogFolder(tree: SnapshotTree, directory: number, databaseOid: number): number | undefined {
  const inBase = entryAt(tree, directory, ['base', String(databaseOid)]);
  const tablespaces = entryAt(tree, directory, ['pg_tblspc']);
  if (inBase !== undefined || tablespaces === undefined) return inBase;
  const childrenOf = (entry: number) =>
    Array.from({ length: tree.childCount[entry]! }, (_, index) => tree.firstChild[entry]! + index);
  for (const version of childrenOf(tablespaces).flatMap(childrenOf)) {
    const found = entryAt(tree, version, [String(databaseOid)]);
    if (found !== undefined && fileAt(tree, found, ['pg_filenode.map']) !== undefined) return found;
  }
  return undefined;
}

/** The names in a catalog that has little but names in front, by oid. */
async function readNames(source: CatalogSource, file: number, layout: CatalogLayout): Promise<Map<number, string>> {
  const newest = new Map<number, HeapRow>();
  for await (const row of readRows(source, file, layout.name + NAME_BYTES)) {
    const oid = oidOf(row, layout);
    const known = newest.get(oid);
    if (known === undefined || isNewer(row, known)) newest.set(oid, row);
  }
  return new Map(Array.from(newest, ([oid, row]) => [oid, nameAt(row.columns, layout.name)]));
}

/** The table of each index, by their oids. */
async function readIndexes(source: CatalogSource, file: number): Promise<Map<number, number>> {
  const tables = new Map<number, number>();
  for await (const { columns } of readRows(source, file, pgIndex.bytes)) {
    tables.set(columns.getUint32(pgIndex.indexrelid, true), columns.getUint32(pgIndex.indrelid, true));
  }
  return tables;
}

/** The rows of a catalog that have so many bytes of columns at least, up to a bound. */
async function* readRows(source: CatalogSource, file: number, bytesMin: number): AsyncGenerator<HeapRow> {
  const end = Math.min(source.tree.sizeBytes[file]!, CATALOG_BYTES_MAX);
  let pageBytes: number | undefined;
  for (let offset = 0; offset < end; offset += PIECE_BYTES) {
    // A buffer of its own for each piece: rows are views of it.
    const piece = new Uint8Array(Math.min(PIECE_BYTES, end - offset));
    await source.read(file, offset, piece);
    pageBytes ??= pageBytesOf(piece);
    if (pageBytes === undefined) return;
    for (let at = 0; at + pageBytes <= piece.byteLength; at += pageBytes) {
      for (const row of rowsOf(piece.subarray(at, at + pageBytes))) if (row.columns.byteLength >= bytesMin) yield row;
    }
  }
}

/** A file's first bytes; none of one that is not there. */
async function readStart(source: CatalogSource, file: number | undefined, bytesMax: number): Promise<Uint8Array> {
  const start = new Uint8Array(file === undefined ? 0 : Math.min(source.tree.sizeBytes[file]!, bytesMax));
  if (file !== undefined) await source.read(file, 0, start);
  return start;
}

function oidOf({ hiddenOid, columns }: HeapRow, { hasOidColumn }: CatalogLayout): number {
  return hasOidColumn ? columns.getUint32(0, true) : (hiddenOid ?? 0);
}

function nameAt(columns: DataView, offset: number): string {
  const name = Buffer.from(columns.buffer, columns.byteOffset + offset, NAME_BYTES);
  const end = name.indexOf(0);
  return name.toString('utf8', 0, end === -1 ? NAME_BYTES : end);
}
