/**
 * The qcow2 image format, version 3, as far as this program writes it; numbers are big-endian (QEMU's docs/interop/qcow2.txt).
 * Files of ours are dense: every cluster is used once, in this order, and has the reference count 1:
 *
 *   header, with the backing file's name | data, and behind each 512 MiB of the disk the L2 table that leads to it |
 *   L1 table | refcount table | refcount blocks
 */
import { struct, u32, u64, u64big } from '../core/struct.ts';
import { KiB } from '../core/units.ts';

export const CLUSTER_BITS = 16;
export const CLUSTER_BYTES = 64 * KiB;
/** Entries of an L2 table, which fills a cluster. */
export const L2_ENTRIES = CLUSTER_BYTES / 8;
/** Entries of a refcount block: 16 bits each. */
const REFCOUNTS = CLUSTER_BYTES / 2;
/** Longest name of a backing file, bytes. */
export const BACKING_BYTES_MAX = 1023;

const MAGIC = 0x514649fb;
const VERSION = 3;
/** 2 ** 4 bits a reference count. */
const REFCOUNT_ORDER = 4;
const BACKING_FORMAT = 0xe2792aca;
/** Of an entry in an L1 or L2 table: what it leads to has the reference count 1. */
const COPIED = 1n << 63n;
/** L2 entry of a cluster that reads as zeroes, whatever the backing file has there. */
export const ZERO_ENTRY = 1n;

const header = struct('qcow2_header', 'be', 104, [
  ['magic', u32],
  ['version', u32],
  ['backing_file_offset', u64],
  ['backing_file_size', u32],
  ['cluster_bits', u32],
  ['size', u64],
  ['crypt_method', u32],
  ['l1_size', u32],
  ['l1_table_offset', u64],
  ['refcount_table_offset', u64],
  ['refcount_table_clusters', u32],
  ['nb_snapshots', u32],
  ['snapshots_offset', u64],
  ['incompatible_features', u64big],
  ['compatible_features', u64big],
  ['autoclear_features', u64big],
  ['refcount_order', u32],
  ['header_length', u32],
]);

/** Where everything is that comes behind the data. Counts are of clusters. */
export interface Qcow2Layout {
  /** Header, data and L2 tables. */
  readonly front: number;
  readonly l1Entries: number;
  readonly l1: number;
  readonly refcountTable: number;
  readonly refcountBlocks: number;
}

/** L1 entries of a disk. */
export function l1EntriesOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / (L2_ENTRIES * CLUSTER_BYTES));
}

/** The layout of a file whose header, data and L2 tables are `front` clusters. */
export function layoutOf(sizeBytes: number, front: number): Qcow2Layout {
  const l1Entries = l1EntriesOf(sizeBytes);
  const l1 = Math.max(1, Math.ceil((l1Entries * 8) / CLUSTER_BYTES));
  let refcountBlocks = 1;
  let refcountTable = 1;
  // The counts count themselves: a few steps until they no longer grow.
  for (let total = 0; total !== front + l1 + refcountTable + refcountBlocks; ) {
    total = front + l1 + refcountTable + refcountBlocks;
    refcountBlocks = Math.ceil(total / REFCOUNTS);
    refcountTable = Math.ceil((refcountBlocks * 8) / CLUSTER_BYTES);
  }
  return { front, l1Entries, l1, refcountTable, refcountBlocks };
}

/** The first cluster. */
export function headerCluster(
  sizeBytes: number,
  { front, l1Entries, l1, refcountTable }: Qcow2Layout,
  backing: string | undefined,
): Buffer {
  const cluster = Buffer.alloc(CLUSTER_BYTES);
  const name = Buffer.from(backing ?? '');
  // Type and length of each extension, its data padded to 8 bytes; zeroes end the list.
  const extensions = name.length === 0 ? Buffer.alloc(8) : Buffer.alloc(24);
  if (name.length > 0) {
    extensions.writeUInt32BE(BACKING_FORMAT, 0);
    extensions.writeUInt32BE('raw'.length, 4);
    extensions.write('raw', 8);
  }
  header.write(cluster, {
    magic: MAGIC,
    version: VERSION,
    backing_file_offset: name.length === 0 ? 0 : header.sizeBytes + extensions.length,
    backing_file_size: name.length,
    cluster_bits: CLUSTER_BITS,
    size: sizeBytes,
    crypt_method: 0,
    l1_size: l1Entries,
    l1_table_offset: front * CLUSTER_BYTES,
    refcount_table_offset: (front + l1) * CLUSTER_BYTES,
    refcount_table_clusters: refcountTable,
    nb_snapshots: 0,
    snapshots_offset: 0,
    incompatible_features: 0n,
    compatible_features: 0n,
    autoclear_features: 0n,
    refcount_order: REFCOUNT_ORDER,
    header_length: header.sizeBytes,
  });
  cluster.set(extensions, header.sizeBytes);
  cluster.set(name, header.sizeBytes + extensions.length);
  return cluster;
}

/** The entry, in an L1 or L2 table, of what begins at that cluster of the file. */
export function entryFor(cluster: number): bigint {
  return COPIED | BigInt(cluster * CLUSTER_BYTES);
}

/** A table of 64-bit entries, filled up to whole clusters. */
export function tableClusters(entries: readonly bigint[], clusters: number): Buffer {
  const table = Buffer.alloc(clusters * CLUSTER_BYTES);
  for (const [i, entry] of entries.entries()) table.writeBigUInt64BE(entry, i * 8);
  return table;
}

/** The refcount table; behind it come the blocks of `refcountBlocks`. */
export function refcountTableOf({ front, l1, refcountTable, refcountBlocks }: Qcow2Layout): Buffer {
  const first = front + l1 + refcountTable;
  const offsets = Array.from({ length: refcountBlocks }, (_, i) => BigInt((first + i) * CLUSTER_BYTES));
  return tableClusters(offsets, refcountTable);
}

/** The refcount blocks one after the other: every cluster of the file is used once. */
export function* refcountBlocksOf({ front, l1, refcountTable, refcountBlocks }: Qcow2Layout): Generator<Buffer> {
  const total = front + l1 + refcountTable + refcountBlocks;
  for (let block = 0; block < refcountBlocks; block++) {
    const used = Math.min(REFCOUNTS, total - block * REFCOUNTS);
    const counts = Buffer.alloc(CLUSTER_BYTES);
    for (let i = 0; i < used; i++) counts[i * 2 + 1] = 1;
    yield counts;
  }
}
