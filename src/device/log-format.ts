/**
 * The durable overlay, byte by byte. All numbers are little-endian.
 *
 * An overlay directory (0700) holds one sub-directory an export (0700), named by `exportDirectoryName`. In it:
 *
 *   overlay.json           what the overlay belongs to, and how it is encrypted (overlay-metadata.ts)
 *   log-<16 hex digits>    segments of the log, numbered upward; never reused (0600)
 *   closed.json            only while the overlay is closed: how the log ended (overlay-metadata.ts)
 *
 * A segment is a chain of records. While it grows, zeroes may follow them that were written ahead (log-writer.ts): for a
 * reader, what a crash leaves of a write that was cut off. Each record begins at a multiple of 64 bytes with this header:
 *
 *   0  u32 magic            'KNBO'
 *   4  u32 headerChecksum   of bytes 8 to 64
 *   8  u32 tableBytes       length of the table behind the header, a multiple of 64, zero-padded
 *  12  u32 kind             recordKinds
 *  16  u64 overlayId        random, from overlay.json: records of another overlay are no records
 *  24  u64 segment          the segment's number, and
 *  32  u32 position         the record's place in it: a record found elsewhere is data that looks like one
 *  36  u32 detail           BATCH: blocks of data behind the table. INDEX: blocks of data it lists. END: position of the INDEX
 *  40  u64 sequence         counts the records of the whole log from 1 on; INDEX and END repeat that of the record before
 *  48  u64 synced           every record up to this one was durable when this one was written
 *  56  u32 tableChecksum    of the table with its padding
 *  60  u32 entryCount       entries of the table
 *
 * Kinds and their tables:
 *
 *   SEGMENT  First of every segment. Entries u64 segment, u32 endBytes, u32 0: the older segments that are part of the
 *            overlay, and where their records end. What a file holds behind that is not part of the log (but the INDEX).
 *   BATCH    Writes that landed as one. Entries u32 block, u32 count, u32 kind (entryKinds); then a u32 checksum for each
 *            block of data; behind the table the data, 4096 bytes a block, in the order of the entries. Later entries
 *            replace earlier ones. Much data is written before its record: a crash may leave it behind zeroes.
 *   MARK     No table. Says what has been synced, when no other record comes along to say it.
 *   DROP     Entries u64 segment: these are no longer needed; their files may be gone.
 *   INDEX    Behind the last record of a segment that is complete. Entries u32 block, u32 count, u32 kind, u32 position
 *            of the data: all entries of its BATCHes in order; then the checksums of all data blocks. A copy, so that
 *            opening an overlay need not hop through its data.
 *   END      Last 64 bytes of the file: where the INDEX is.
 *
 * Headers and tables are checked by CRC-32 (zlib's), each block of data by xxHash32 with its block number as the seed, so
 * that a block in the wrong place does not pass (core/block-checksums.ts: 8 GiB/s, where Node's CRC-32 has 3). In versions 1
 * and 2, which are read and written on as they are, a block's checksum is CRC-32, too, continued from its number.
 *
 * Encrypted overlays have versions of their own, 2 and 4. Their segments differ in three things:
 *
 *   - SEGMENT and END begin their tables with the segment's salt, 32 random bytes, in the clear: the segment's key is
 *     made of it (segment-cipher.ts), and it is at both ends because without it nothing can be read.
 *   - Each table (behind that salt) is sealed as a whole, with zeroes before its end so that the record keeps its
 *     alignment. tableChecksum is of what is stored. Authenticated with it: the header, its two checksums as zeroes.
 *   - Each block of data is sealed, 4120 bytes, the data of a BATCH zero-padded to a multiple of 64. Authenticated with
 *     it: u32 block, u32 position of the sealed block. Its checksum is still that of the plain block.
 *
 * Sealed means AES-256-GCM, followed by the u64 of the nonce and the 16 bytes of the tag (core/sealer.ts). What stays
 * readable is headers, names and overlay.json: how much was written, and when. Who can write to the directory can still
 * put a whole older overlay in its place.
 *
 * The state of the device is that of all records in order of their sequence. Data and index share the log, so one
 * fdatasync makes both durable, and what a crash leaves is a prefix (log-recovery.ts says how it is found). A segment is
 * removed once nothing in it is the latest for its block, and everything that replaced it is durable.
 */
import { crc32 } from 'node:zlib';
import { xxh32Blocks } from '../core/block-checksums.ts';
import { SEAL_BYTES } from '../core/sealer.ts';
import { struct, u32, u64, u64big } from '../core/struct.ts';
import { BLOCK_SIZE, MiB, roundUp } from '../core/units.ts';
import { SALT_BYTES, type SegmentCipher } from './segment-cipher.ts';

/** Version of everything above, in overlay.json. */
export const FORMAT_VERSION = 3;
/** The same of an overlay that is encrypted. */
export const ENCRYPTED_FORMAT_VERSION = 4;
/** Those before them: blocks are checked by CRC-32. */
export const CRC_FORMAT_VERSION = 1;
export const ENCRYPTED_CRC_FORMAT_VERSION = 2;
export const RECORD_ALIGNMENT = 64;
const MAGIC = 0x4f42_4e4b;

/** A segment is complete when it is this long: large enough to make its INDEX worth while, small enough to come free. */
export const SEGMENT_BYTES_TARGET = 32 * MiB;
/** Data blocks in a segment at most; 14 bits of a place, of which the last is never used: runs end with their segment. */
export const SEGMENT_BLOCKS_MAX = 2 ** 14 - 1;
/** Segments at a time: 17 bits of a place. With full segments, 8 TiB of changed blocks. */
export const SEGMENTS_MAX = 2 ** 17;

export const recordKinds = { SEGMENT: 1, BATCH: 2, MARK: 3, DROP: 4, INDEX: 5, END: 6 } as const;
export const entryKinds = { zero: 0, data: 1 } as const;

export const recordHeader = struct('overlay_record', 'le', 64, [
  ['magic', u32],
  ['headerChecksum', u32],
  ['tableBytes', u32],
  ['kind', u32],
  ['overlayId', u64big],
  ['segment', u64],
  ['position', u32],
  ['detail', u32],
  ['sequence', u64],
  ['synced', u64],
  ['tableChecksum', u32],
  ['entryCount', u32],
]);
const CHECKED_FROM = recordHeader.offsetOf('tableBytes');
const TABLE_CHECKSUM_AT = recordHeader.offsetOf('tableChecksum');
const HEADER_CHECKSUM_AT = recordHeader.offsetOf('headerChecksum');
const HEADER_BYTES = recordHeader.sizeBytes;

/** Sizes of one entry of each kind's table, and of a checksum. */
export const SEGMENT_ENTRY_BYTES = 16;
export const BATCH_ENTRY_BYTES = 12;
export const DROP_ENTRY_BYTES = 8;
export const INDEX_ENTRY_BYTES = 16;
export const CHECKSUM_BYTES = 4;

/** A table is never longer: an INDEX of single blocks, all overwritten by zeroes once. Guards the reader's memory. */
export const TABLE_BYTES_MAX = 8 * MiB;

export interface RecordHeader {
  readonly kind: number;
  readonly tableBytes: number;
  readonly overlayId: bigint;
  readonly segment: number;
  readonly position: number;
  readonly detail: number;
  readonly sequence: number;
  readonly synced: number;
  readonly tableChecksum: number;
  readonly entryCount: number;
}

export type RecordValues = Omit<RecordHeader, 'tableBytes' | 'tableChecksum'>;

/** Room for a record's header and a table of `tableBytes`; fill in the table from byte 64 on, then call `finishRecord`. */
export function newRecord(tableBytes: number): Buffer {
  return zeroed(HEADER_BYTES + roundUp(tableBytes, RECORD_ALIGNMENT));
}

/** Small ones are from Node's pool: making memory of their own, and collecting it, takes longer than filling them. */
function zeroed(bytes: number): Buffer {
  return Buffer.allocUnsafe(bytes).fill(0);
}

/**
 * The record as it is stored: with its header written before the table that is filled in, and where there is a `cipher`,
 * with a sealed table. May be `record` itself.
 */
export function finishRecord(record: Buffer, values: RecordValues, cipher: SegmentCipher | undefined): Buffer {
  const stored =
    cipher === undefined ? record : zeroed(storedRecordBytes(record.length, { kind: values.kind, cipher }));
  const table = stored.subarray(HEADER_BYTES);
  recordHeader.write(stored, values);
  recordHeader.write(stored, { magic: MAGIC, headerChecksum: 0, tableBytes: table.length, tableChecksum: 0 });
  if (cipher !== undefined) {
    const saltBytes = saltBytesOf(values.kind);
    if (saltBytes > 0) table.set(cipher.salt);
    const plain = zeroed(table.length - saltBytes - SEAL_BYTES);
    record.copy(plain, 0, HEADER_BYTES);
    cipher.sealTable(stored.subarray(0, HEADER_BYTES), plain, table.subarray(saltBytes));
  }
  stored.writeUInt32LE(crc32(table), TABLE_CHECKSUM_AT);
  stored.writeUInt32LE(crc32(stored.subarray(CHECKED_FROM, HEADER_BYTES)), HEADER_CHECKSUM_AT);
  return stored;
}

/** Bytes that `finishRecord` makes of a record of `bytes`. */
export function storedRecordBytes(
  bytes: number,
  { kind, cipher }: { readonly kind: number; readonly cipher: SegmentCipher | undefined },
): number {
  return cipher === undefined ? bytes : roundUp(bytes + saltBytesOf(kind) + SEAL_BYTES, RECORD_ALIGNMENT);
}

/** Bytes before the sealed table of an encrypted segment's record: its salt, at both ends of a segment. */
export function saltBytesOf(kind: number): number {
  return kind === recordKinds.SEGMENT || kind === recordKinds.END ? SALT_BYTES : 0;
}

/** What a sealed table is authenticated with: the header, without its checksums. */
export function headerContext(header: RecordHeader): Buffer {
  const context = Buffer.alloc(HEADER_BYTES);
  recordHeader.write(context, { ...header, magic: MAGIC, headerChecksum: 0, tableChecksum: 0 });
  return context;
}

/** The header at byte `at`, if it is one of this segment and this place; else undefined. */
export function readHeader(
  source: Buffer,
  at: number,
  wanted: { readonly overlayId: bigint; readonly segment: number; readonly position: number },
): RecordHeader | undefined {
  if (at + HEADER_BYTES > source.length || source.readUInt32LE(at) !== MAGIC) return undefined;
  const checksum = crc32(source.subarray(at + CHECKED_FROM, at + HEADER_BYTES));
  if (checksum !== source.readUInt32LE(at + HEADER_CHECKSUM_AT)) return undefined;
  const header = recordHeader.read(source, at);
  const here =
    header.overlayId === wanted.overlayId &&
    header.segment === wanted.segment &&
    header.position === wanted.position &&
    header.tableBytes <= TABLE_BYTES_MAX;
  return here ? header : undefined;
}

export function tableIsIntact(header: RecordHeader, table: Uint8Array): boolean {
  return table.length === header.tableBytes && crc32(table) === header.tableChecksum;
}

/** Bytes of a record with its data, where a block takes `blockBytes`. */
export function recordBytes({ kind, tableBytes, detail }: RecordHeader, blockBytes: number): number {
  return HEADER_BYTES + tableBytes + (kind === recordKinds.BATCH ? roundUp(detail * blockBytes, RECORD_ALIGNMENT) : 0);
}

/** Checksums of whole blocks of data, 4096 bytes each, of which the first belongs at block number `first`. */
export type BlockChecksums = (first: number, data: Uint8Array) => Uint32Array;

/** How a log keeps its blocks. */
export interface BlockForm {
  /** Bytes that one takes. */
  readonly blockBytes: number;
  readonly checksumsOf: BlockChecksums;
}

/** How a log of that version checks its blocks. */
export function blockChecksumsOf(formatVersion: number): BlockChecksums {
  return formatVersion === FORMAT_VERSION || formatVersion === ENCRYPTED_FORMAT_VERSION ? xxh32Blocks : crc32Blocks;
}

function crc32Blocks(first: number, data: Uint8Array): Uint32Array {
  const checksums = new Uint32Array(data.length / BLOCK_SIZE);
  for (let at = 0; at < checksums.length; at++) {
    checksums[at] = crc32(data.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE), first + at);
  }
  return checksums;
}

export function segmentFileName(segment: number): string {
  return `log-${segment.toString(16).padStart(16, '0')}`;
}

/** The number of the segment a file name stands for; undefined for other files. */
export function segmentOfFileName(name: string): number | undefined {
  const match = /^log-([0-9a-f]{16})$/.exec(name);
  return match === null ? undefined : Number.parseInt(match[1]!, 16);
}
