/** Data files of PostgreSQL's catalogs, written for tests: pages of rows with the header that a version gives them. */
import { relationMap } from './postgres-tree.ts';

export interface WrittenRow {
  readonly columns: Uint8Array;
  readonly xmin?: number;
  readonly xmax?: number;
  /** t_infomask; default: both hint bits of a row that is frozen and not deleted. */
  readonly mask?: number;
  /** As versions before 12 have it, in front of the columns. */
  readonly hiddenOid?: number;
}

export const XMIN_COMMITTED = 0x0100;
export const XMIN_INVALID = 0x0200;
export const XMAX_COMMITTED = 0x0400;
export const XMAX_INVALID = 0x0800;
export const XMAX_LOCK_ONLY = 0x0080;
const HAS_OID = 0x0008;
const PAGE_HEADER_BYTES = 24;
const NAME_BYTES = 64;

/** One page with these rows, from its end on. */
export function heapPage(rows: readonly WrittenRow[], pageBytes = 8192): Buffer {
  const page = Buffer.alloc(pageBytes);
  let upper = pageBytes;
  rows.forEach(({ columns, xmin = 700, xmax = 0, mask = XMIN_COMMITTED | XMAX_INVALID, hiddenOid }, index) => {
    const start = hiddenOid === undefined ? 24 : 32;
    const length = start + columns.byteLength;
    upper = (upper - length) & ~7;
    page.writeUInt32LE(xmin, upper);
    page.writeUInt32LE(xmax, upper + 4);
    page.writeUInt16LE(mask | (hiddenOid === undefined ? 0 : HAS_OID), upper + 20);
    page.writeUInt8(start, upper + 22);
    if (hiddenOid !== undefined) page.writeUInt32LE(hiddenOid, upper + start - 4);
    page.set(columns, upper + start);
    page.writeUInt32LE(((length << 17) | (1 << 15) | upper) >>> 0, PAGE_HEADER_BYTES + 4 * index);
  });
  page.writeUInt16LE(PAGE_HEADER_BYTES + 4 * rows.length, 12);
  page.writeUInt16LE(upper, 14);
  page.writeUInt16LE(pageBytes, 16);
  page.writeUInt16LE(pageBytes | 4, 18);
  return page;
}

/** A column of the type name. */
export function nameColumn(text: string): Buffer {
  const column = Buffer.alloc(NAME_BYTES);
  column.write(text);
  return column;
}

export function u32Column(...values: readonly number[]): Buffer {
  const column = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) column.writeUInt32LE(value, 4 * index);
  return column;
}

/** pg_filenode.map. */
export function filenodeMap(mappings: Readonly<Record<number, number>>): Buffer {
  const pairs = Object.entries(mappings).map(([oid, file]) => [Number(oid), file] as const);
  return Buffer.from(relationMap(pairs).buffer);
}
