/** Reads the records of one segment file: along the chain, and again after damage. */
import { BLOCK_SIZE, KiB, MiB } from '../core/units.ts';
import type { OverlayFile } from './file-system.ts';
import {
  blockChecksum,
  RECORD_ALIGNMENT,
  type RecordHeader,
  readHeader,
  recordBytes,
  recordHeader,
  recordKinds,
  tableIsIntact,
} from './log-format.ts';
import { type LogEntries, readBatchTable } from './log-tables.ts';

/** Read at a time: many small records, or the header of a large one. */
const WINDOW_BYTES = 128 * KiB;
/** The unit in which a crash leaves a file: sectors that were never written read as zeroes. */
const SECTOR_BYTES = 512;

export interface LogRecord {
  readonly header: RecordHeader;
  readonly position: number;
  readonly table: Buffer;
}

/** A record, or a stretch that is none. */
export type WalkStep =
  | { readonly kind: 'record'; readonly record: LogRecord }
  /** `torn`: what is there is what a crash leaves of a write that was on its way. */
  | { readonly kind: 'gap'; readonly position: number; readonly torn: boolean };

export class SegmentReader {
  readonly #file: OverlayFile;
  readonly #sizeBytes: number;
  readonly #overlayId: bigint;
  readonly #segment: number;
  #window = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: OverlayFile, from: { sizeBytes: number; overlayId: bigint; segment: number }) {
    this.#file = file;
    this.#sizeBytes = from.sizeBytes;
    this.#overlayId = from.overlayId;
    this.#segment = from.segment;
  }

  /** The record at `position`, if an intact one is there. The data of a BATCH is not looked at. */
  async record(position: number): Promise<LogRecord | undefined> {
    const header = await this.#header(position);
    if (header === undefined) return undefined;
    const table = Buffer.from(await this.#bytes(position + recordHeader.sizeBytes, header.tableBytes));
    return tableIsIntact(header, table) ? { header, position, table } : undefined;
  }

  /** The INDEX that END, at the end of the file, leads to. */
  async index(): Promise<LogRecord | undefined> {
    const end = await this.record(this.#sizeBytes - recordHeader.sizeBytes);
    if (end?.header.kind !== recordKinds.END) return undefined;
    const index = await this.record(end.header.detail);
    return index?.header.kind === recordKinds.INDEX ? index : undefined;
  }

  /** All records up to the INDEX or `endBytes`, with the gaps between them. */
  async walk(endBytes: number): Promise<WalkStep[]> {
    const steps: WalkStep[] = [];
    const limit = Math.min(endBytes, this.#sizeBytes);
    let position = 0;
    while (position < limit) {
      let record = await this.record(position);
      if (record === undefined) {
        steps.push({ kind: 'gap', position, torn: await this.#looksTorn(position) });
        record = await this.#search(position + RECORD_ALIGNMENT, limit);
        if (record === undefined) break;
      }
      if (record.header.kind === recordKinds.INDEX || record.header.kind === recordKinds.END) break;
      steps.push({ kind: 'record', record });
      position = record.position + recordBytes(record.header);
    }
    // The file is shorter than the records it is known to have had.
    if (endBytes !== Number.POSITIVE_INFINITY && position >= limit && position < endBytes) {
      steps.push({ kind: 'gap', position, torn: true });
    }
    return steps;
  }

  /** Compares the data of a BATCH with its checksums. */
  async checkData(record: LogRecord): Promise<'intact' | 'torn' | 'damaged'> {
    const { entries, checksums } = batchEntries(record);
    let verdict: 'intact' | 'damaged' = 'intact';
    let done = 0;
    for (const { block, count, position } of entries) {
      if (position === undefined) continue;
      for (let at = 0; at < count; at++) {
        const start = position + at * BLOCK_SIZE;
        const data = await this.#bytes(start, BLOCK_SIZE, 1 * MiB);
        if (data.length === BLOCK_SIZE && blockChecksum(block + at, data) === checksums[done++]) continue;
        if (hasLostSector(data, start, BLOCK_SIZE)) return 'torn';
        verdict = 'damaged';
      }
    }
    return verdict;
  }

  async #header(position: number): Promise<RecordHeader | undefined> {
    if (position < 0 || position % RECORD_ALIGNMENT !== 0) return undefined;
    const source = await this.#bytes(position, recordHeader.sizeBytes);
    return readHeader(source, 0, { overlayId: this.#overlayId, segment: this.#segment, position });
  }

  /** The next intact record from `from` on. */
  async #search(from: number, limit: number): Promise<LogRecord | undefined> {
    for (let position = from; position < limit; position += RECORD_ALIGNMENT) {
      if ((await this.#header(position)) === undefined) continue;
      const record = await this.record(position);
      if (record !== undefined) return record;
    }
    return undefined;
  }

  async #looksTorn(position: number): Promise<boolean> {
    const size = recordHeader.sizeBytes;
    const header = await this.#header(position);
    if (header === undefined) return hasLostSector(await this.#bytes(position, size), position, size);
    const table = await this.#bytes(position + size, header.tableBytes);
    return hasLostSector(table, position + size, header.tableBytes);
  }

  /** Up to `length` bytes, fewer at the end of the file; a view that the next call may replace. */
  async #bytes(position: number, length: number, ahead = WINDOW_BYTES): Promise<Buffer> {
    const end = Math.min(position + length, this.#sizeBytes);
    if (end <= position) return Buffer.alloc(0);
    if (position < this.#windowAt || end > this.#windowAt + this.#window.length) {
      const window = Buffer.allocUnsafe(Math.min(Math.max(length, ahead), this.#sizeBytes - position));
      const got = await this.#file.read(window, position);
      this.#window = window.subarray(0, got);
      this.#windowAt = position;
    }
    return this.#window.subarray(position - this.#windowAt, end - this.#windowAt);
  }
}

export function batchEntries({ header, position, table }: LogRecord): LogEntries {
  return readBatchTable(table, {
    entryCount: header.entryCount,
    dataBlocks: header.detail,
    dataPosition: position + recordHeader.sizeBytes + header.tableBytes,
  });
}

/**
 * Whether `bytes`, which should be `length` and begin at `position` of the file, lack a sector: the file ends early, or
 * the part that lies in one sector is all zero. Segments are only ever appended to, so this is what a write leaves that
 * did not reach the disk as a whole; a flipped byte looks otherwise.
 */
function hasLostSector(bytes: Buffer, position: number, length: number): boolean {
  if (bytes.length < length) return true;
  for (let at = 0; at < length; ) {
    const end = Math.min(length, at + SECTOR_BYTES - ((position + at) % SECTOR_BYTES));
    if (isZero(bytes, at, end)) return true;
    at = end;
  }
  return false;
}

function isZero(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (bytes[at] !== 0) return false;
  return true;
}
