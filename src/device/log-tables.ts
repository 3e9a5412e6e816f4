/** The tables behind record headers (log-format.ts has the layout), to and from plain objects. */
import { endianness } from 'node:os';
import { assert, CorruptStoreError } from '../core/errors.ts';
import { roundUp } from '../core/units.ts';
import {
  BATCH_ENTRY_BYTES,
  type BlockChecksums,
  CHECKSUM_BYTES,
  DROP_ENTRY_BYTES,
  entryKinds,
  INDEX_ENTRY_BYTES,
  newRecord,
  RECORD_ALIGNMENT,
  recordHeader,
  SEGMENT_ENTRY_BYTES,
} from './log-format.ts';

const TABLE_AT = recordHeader.sizeBytes;

/** `count` blocks from `block` on. `position`: of the first one's data in the segment; undefined for zeroes. */
export interface LogEntry {
  readonly block: number;
  readonly count: number;
  readonly position: number | undefined;
}

/** What a BATCH table says: the entries in order, and the checksums of all data blocks in order. */
export interface LogEntries {
  readonly entries: readonly LogEntry[];
  readonly checksums: Uint32Array;
}

export interface SegmentEntry {
  readonly segment: number;
  /** Bytes of the segment's records. */
  readonly endBytes: number;
}

/** New content of one stretch, as a batch takes it. */
export interface BatchEntry {
  readonly block: number;
  readonly count: number;
  readonly data: Uint8Array | undefined;
  /** Of each block of data, where somebody has computed them already. */
  readonly checksums?: Uint32Array;
}

/** Bytes of a batch's record, before it is sealed. */
export function batchRecordBytes(batch: readonly BatchEntry[]): number {
  const counts = { entryCount: batch.length, dataBlocks: dataBlocksOf(batch) };
  return recordHeader.sizeBytes + roundUp(batchTableBytes(counts), RECORD_ALIGNMENT);
}

/** Bytes of a BATCH's table, before padding. */
function batchTableBytes(counts: { readonly entryCount: number; readonly dataBlocks: number }): number {
  return counts.entryCount * BATCH_ENTRY_BYTES + counts.dataBlocks * CHECKSUM_BYTES;
}

export function dataBlocksOf(batch: readonly BatchEntry[]): number {
  return batch.reduce((blocks, { data, count }) => blocks + (data === undefined ? 0 : count), 0);
}

/** A BATCH record without its header values, and the checksums in it. */
export function batchTable(
  batch: readonly BatchEntry[],
  checksumsOf: BlockChecksums,
): { record: Buffer; checksums: Uint32Array } {
  const record = newRecord(batchRecordBytes(batch) - TABLE_AT);
  const checksums = new Uint32Array(dataBlocksOf(batch));
  let at = TABLE_AT;
  let done = 0;
  for (const { block, count, data, checksums: known } of batch) {
    record.writeUInt32LE(block, at);
    record.writeUInt32LE(count, at + 4);
    record.writeUInt32LE(data === undefined ? entryKinds.zero : entryKinds.data, at + 8);
    at += BATCH_ENTRY_BYTES;
    if (data === undefined) continue;
    checksums.set(known ?? checksumsOf(block, data), done);
    done += count;
  }
  writeChecksums(record, at, checksums, checksums.length);
  return { record, checksums };
}

/** What a BATCH's header says of it, and where its data begins, `blockBytes` a block. */
export interface BatchPlace {
  readonly entryCount: number;
  readonly dataBlocks: number;
  readonly dataPosition: number;
  readonly blockBytes: number;
}

/** Reads a BATCH's table. Throws CorruptStoreError if it contradicts itself. */
export function readBatchTable(
  table: Buffer,
  { entryCount, dataBlocks, dataPosition, blockBytes }: BatchPlace,
): LogEntries {
  needBytes(table, batchTableBytes({ entryCount, dataBlocks }));
  const entries: LogEntry[] = [];
  let position = dataPosition;
  for (let at = 0; at < entryCount * BATCH_ENTRY_BYTES; at += BATCH_ENTRY_BYTES) {
    const block = table.readUInt32LE(at);
    const count = table.readUInt32LE(at + 4);
    const isData = table.readUInt32LE(at + 8) === entryKinds.data;
    entries.push({ block, count, position: isData ? position : undefined });
    if (isData) position += count * blockBytes;
  }
  if (position !== dataPosition + dataBlocks * blockBytes) throw new CorruptStoreError('a batch contradicts itself');
  return { entries, checksums: readWords(table, entryCount * BATCH_ENTRY_BYTES, dataBlocks) };
}

/** An INDEX record without its header values. `words`: block, count, kind, position of each entry. */
export function indexTable(words: Uint32Array, checksums: Uint32Array): Buffer {
  const record = newRecord(words.length * 4 + checksums.length * CHECKSUM_BYTES);
  writeChecksums(record, TABLE_AT, words, words.length);
  writeChecksums(record, TABLE_AT + words.length * 4, checksums, checksums.length);
  return record;
}

/** An INDEX as it is stored: four words an entry (block, count, kind, position). Millions of entries are read so. */
export interface IndexWords {
  readonly words: Uint32Array;
  readonly checksums: Uint32Array;
}

/** Throws CorruptStoreError if the table contradicts itself. */
export function readIndexWords(table: Buffer, entryCount: number, dataBlocks: number): IndexWords {
  needBytes(table, entryCount * INDEX_ENTRY_BYTES + dataBlocks * CHECKSUM_BYTES);
  const words = readWords(table, 0, (entryCount * INDEX_ENTRY_BYTES) / 4);
  let blocks = 0;
  for (let at = 0; at < words.length; at += 4) if (words[at + 2] === entryKinds.data) blocks += words[at + 1]!;
  if (blocks !== dataBlocks) throw new CorruptStoreError('an index contradicts itself');
  return { words, checksums: readWords(table, entryCount * INDEX_ENTRY_BYTES, dataBlocks) };
}

export function indexEntries({ words }: IndexWords): LogEntry[] {
  const entries: LogEntry[] = [];
  for (let at = 0; at < words.length; at += 4) {
    const position = words[at + 2] === entryKinds.data ? words[at + 3]! : undefined;
    entries.push({ block: words[at]!, count: words[at + 1]!, position });
  }
  return entries;
}

export function segmentTable(segments: readonly SegmentEntry[]): Buffer {
  const record = newRecord(segments.length * SEGMENT_ENTRY_BYTES);
  segments.forEach(({ segment, endBytes }, index) => {
    record.writeBigUInt64LE(BigInt(segment), TABLE_AT + index * SEGMENT_ENTRY_BYTES);
    record.writeUInt32LE(endBytes, TABLE_AT + index * SEGMENT_ENTRY_BYTES + 8);
  });
  return record;
}

export function readSegmentTable(table: Buffer, entryCount: number): SegmentEntry[] {
  needBytes(table, entryCount * SEGMENT_ENTRY_BYTES);
  return Array.from({ length: entryCount }, (_, index) => ({
    segment: Number(table.readBigUInt64LE(index * SEGMENT_ENTRY_BYTES)),
    endBytes: table.readUInt32LE(index * SEGMENT_ENTRY_BYTES + 8),
  }));
}

export function dropTable(segments: readonly number[]): Buffer {
  const record = newRecord(segments.length * DROP_ENTRY_BYTES);
  segments.forEach((segment, index) => {
    record.writeBigUInt64LE(BigInt(segment), TABLE_AT + index * DROP_ENTRY_BYTES);
  });
  return record;
}

export function readDropTable(table: Buffer, entryCount: number): number[] {
  needBytes(table, entryCount * DROP_ENTRY_BYTES);
  return Array.from({ length: entryCount }, (_, index) => Number(table.readBigUInt64LE(index * DROP_ENTRY_BYTES)));
}

function writeChecksums(record: Buffer, at: number, values: Uint32Array, count: number): void {
  assert(at + count * CHECKSUM_BYTES <= record.length, 'a table was made long enough');
  for (let index = 0; index < count; index++) record.writeUInt32LE(values[index]!, at + index * CHECKSUM_BYTES);
}

/** May be a view of the table. */
function readWords(table: Buffer, at: number, count: number): Uint32Array {
  const isAligned = (table.byteOffset + at) % Uint32Array.BYTES_PER_ELEMENT === 0;
  if (isAligned && endianness() === 'LE') return new Uint32Array(table.buffer, table.byteOffset + at, count);
  // Node's swap32 makes it right on the rare machine of the other byte order.
  const copy = Buffer.from(new ArrayBuffer(count * CHECKSUM_BYTES));
  table.copy(copy, 0, at, at + copy.length);
  if (endianness() === 'BE') copy.swap32();
  return new Uint32Array(copy.buffer);
}

function needBytes(table: Buffer, bytes: number): void {
  if (table.length < bytes) throw new CorruptStoreError(`a table of ${table.length} bytes should have ${bytes}`);
}
