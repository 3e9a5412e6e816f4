/**
 * Rows of PostgreSQL's own tables as they lie in a data file, without a server. Sources: src/include/storage/bufpage.h,
 * storage/itemid.h and access/htup_details.h of PostgreSQL; the layout has not changed since version 8.3.
 *
 *   page     header (24 bytes) · line pointers (4 bytes each, up to pd_lower) · free · rows, from the end · special
 *   row      header (23 bytes, nulls' bits, padding, before version 12 the oid) · columns, from t_hoff on
 *
 * Numbers are little-endian: on other machines the header's version is not where it should be, and nothing is read.
 */
import { bytes, struct, u8, u16, u32 } from '../../core/struct.ts';

const pageHeader = struct('page_header', 'le', 24, [
  ['pd_lsn', bytes(8)],
  ['pd_checksum', u16],
  ['pd_flags', u16],
  ['pd_lower', u16],
  ['pd_upper', u16],
  ['pd_special', u16],
  ['pd_pagesize_version', u16], // Size, a multiple of 256, and in the low byte the layout's version.
  ['pd_prune_xid', u32],
]);

const rowHeader = struct('heap_tuple_header', 'le', 23, [
  ['t_xmin', u32],
  ['t_xmax', u32],
  ['t_cid', u32],
  ['t_ctid', bytes(6)],
  ['t_infomask2', u16],
  ['t_infomask', u16],
  ['t_hoff', u8],
]);

const PAGE_LAYOUT_VERSION = 4;
const PAGE_BYTES_MIN = 1024;
const LINE_POINTER_BYTES = 4;
const OID_BYTES = 4;

/** Kind of a line pointer: the only one with a row behind it. */
const LP_NORMAL = 1;

const infomask = {
  HEAP_HASOID_OLD: 0x0008,
  HEAP_XMAX_LOCK_ONLY: 0x0080,
  HEAP_XMIN_COMMITTED: 0x0100,
  HEAP_XMIN_INVALID: 0x0200,
  HEAP_XMAX_COMMITTED: 0x0400,
  HEAP_XMAX_INVALID: 0x0800,
} as const;

/** How far a row can be believed, from its hint bits alone: dead, perhaps replaced or deleted, there. */
export type Liveness = 0 | 1 | 2;

/** Which of several versions of a row one is. */
export interface RowVersion {
  readonly liveness: Liveness;
  /** The transaction that made it; 0 for one that is frozen, which is older than all others. */
  readonly xmin: number;
}

export interface HeapRow extends RowVersion {
  /** The hidden oid of versions before 12. */
  readonly hiddenOid: number | undefined;
  /** Its columns' bytes: a view. Those in front, of fixed length and never null, are where their offsets say. */
  readonly columns: DataView;
}

/** Bytes of a page, as the first of a file says; undefined if that is no page. */
export function pageBytesOf(file: Uint8Array): number | undefined {
  if (file.byteLength < pageHeader.sizeBytes) return undefined;
  const { pd_pagesize_version: sized } = pageHeader.read(file, 0);
  const size = sized & 0xff00;
  const isPage = (sized & 0xff) === PAGE_LAYOUT_VERSION && size >= PAGE_BYTES_MIN && (size & (size - 1)) === 0;
  return isPage ? size : undefined;
}

/** The rows of a page, without those that never were. What does not fit inside the page is left out. */
export function* rowsOf(page: Uint8Array): Generator<HeapRow> {
  if (pageBytesOf(page) !== page.byteLength) return; // A page that was never written is all zeroes.
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const lower = Math.min(pageHeader.read(page, 0).pd_lower, page.byteLength);
  for (let at = pageHeader.sizeBytes; at + LINE_POINTER_BYTES <= lower; at += LINE_POINTER_BYTES) {
    const pointer = view.getUint32(at, true);
    const offset = pointer & 0x7fff;
    const length = pointer >>> 17;
    if (((pointer >>> 15) & 3) !== LP_NORMAL || offset + length > page.byteLength) continue;
    const row = readRow(page.subarray(offset, offset + length));
    if (row !== undefined) yield row;
  }
}

function readRow(row: Uint8Array): HeapRow | undefined {
  if (row.byteLength < rowHeader.sizeBytes) return undefined;
  const { t_xmin: xmin, t_xmax: xmax, t_infomask: mask, t_hoff: start } = rowHeader.read(row, 0);
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  if (start < rowHeader.sizeBytes || start > row.byteLength) return undefined;
  const isCommitted = (mask & infomask.HEAP_XMIN_COMMITTED) !== 0;
  const isInvalid = (mask & infomask.HEAP_XMIN_INVALID) !== 0;
  if (isInvalid && !isCommitted) return undefined; // Its transaction was rolled back; both bits together: frozen.
  const hasOid = (mask & infomask.HEAP_HASOID_OLD) !== 0 && start >= rowHeader.sizeBytes + OID_BYTES;
  return {
    liveness: livenessOf(mask, xmax),
    xmin: isInvalid ? 0 : xmin,
    hiddenOid: hasOid ? view.getUint32(start - OID_BYTES, true) : undefined,
    columns: new DataView(row.buffer, row.byteOffset + start, row.byteLength - start),
  };
}

function livenessOf(mask: number, xmax: number): Liveness {
  if (xmax === 0 || (mask & (infomask.HEAP_XMAX_INVALID | infomask.HEAP_XMAX_LOCK_ONLY)) !== 0) return 2;
  return (mask & infomask.HEAP_XMAX_COMMITTED) !== 0 ? 0 : 1;
}

/** Whether `row` is likelier to hold now than `other`, both being versions of one thing. */
export function isNewer(row: RowVersion, other: RowVersion): boolean {
  if (row.liveness !== other.liveness) return row.liveness > other.liveness;
  if (row.xmin === 0 || other.xmin === 0) return row.xmin !== 0;
  // Numbers of transactions go round in a circle (src/backend/access/transam/transam.c, TransactionIdPrecedes).
  return ((row.xmin - other.xmin) | 0) > 0;
}
