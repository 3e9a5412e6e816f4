/**
 * Where PostgreSQL's catalogs have what names relations, by major version. All of it lies in front, in columns of fixed length
 * that are never null. Source: src/include/catalog/pg_class.h, pg_database.h, pg_namespace.h, pg_index.h and
 * pg_tablespace.h of each version.
 */

/** Catalogs' own oids: the same in all versions. */
export const catalogs = {
  pg_class: 1259,
  pg_database: 1262,
  pg_index: 2610,
  pg_namespace: 2615,
  pg_tablespace: 1213,
} as const;

/** Bytes of a column of the type `name`, zeroes behind a shorter one. */
export const NAME_BYTES = 64;

export interface CatalogLayout {
  /** From version 12 on the oid is a column, the first; before, it is hidden in front of the columns. */
  readonly hasOidColumn: boolean;
  /** Offset of the name in pg_class, pg_database, pg_namespace and pg_tablespace. */
  readonly name: number;
  /** Offsets in pg_class. */
  readonly relnamespace: number;
  readonly relfilenode: number;
  readonly reltoastrelid: number;
  readonly relkind: number;
}

/** Offsets in pg_index, of every version. */
export const pgIndex = { indexrelid: 0, indrelid: 4, bytes: 8 } as const;

const OLDEST = 9.0;

/** The layout of `9.6`, `15`; undefined for a version older than 9.0. A newer one is taken for the newest that is known. */
export function layoutOf(version: string): CatalogLayout | undefined {
  const major = Number(version);
  if (!(major >= OLDEST)) return undefined;
  const start = major >= 12 ? 4 : 0;
  // relallvisible came with 9.2 and relallfrozen with 18, in front of it; reltoastidxid went with 9.4, from behind it.
  const reltoastrelid = start + 100 + (major >= 9.2 ? 4 : 0) + (major >= 18 ? 4 : 0);
  // Behind it relhasindex, relisshared and relpersistence (before 9.1 relistemp), a byte each.
  const relkind = reltoastrelid + 4 + (major < 9.4 ? 4 : 0) + 3;
  return {
    hasOidColumn: major >= 12,
    name: start,
    relnamespace: start + 64,
    relfilenode: start + 84,
    reltoastrelid,
    relkind,
  };
}
