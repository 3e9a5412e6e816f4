/** Reads the records of one segment file: along the chain, and again after damage. */
import type { KeyObject } from 'node:crypto';
import { SEAL_BYTES } from '../core/sealer.ts';
import { BLOCK_SIZE, KiB, MiB, roundUp } from '../core/units.ts';
import type { OverlayFile } from './file-system.ts';
import {
  type BlockForm,
  headerContext,
  RECORD_ALIGNMENT,
  type RecordHeader,
  readHeader,
  recordBytes,
  recordHeader,
  recordKinds,
  saltBytesOf,
  tableIsIntact,
} from './log-format.ts';
import { type LogEntries, readBatchTable } from './log-tables.ts';
import { SegmentCipher } from './segment-cipher.ts';

/** Read at a time: many small records, or the header of a large one. */
const WINDOW_BYTES = 128 * KiB;
/** The same where data is checked, and how much of that at a time. */
const CHECK_WINDOW_BYTES = 1 * MiB;
const CHECKED_BLOCKS = 64;
/** Bytes of an END record, plain and sealed. */
const END_BYTES = recordHeader.sizeBytes;
const SEALED_END_BYTES = roundUp(END_BYTES + saltBytesOf(recordKinds.END) + SEAL_BYTES, RECORD_ALIGNMENT);
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
  /**
   * `torn`: what is there is what a crash leaves of a write that was on its way. `zeroes`: nothing but zeroes is in the
   * file from there on, as they are written ahead.
   */
  | { readonly kind: 'gap'; readonly position: number; readonly torn: boolean; readonly zeroes: boolean };

export interface SegmentReaderInput {
  readonly sizeBytes: number;
  readonly overlayId: bigint;
  readonly segment: number;
  /** Undefined for a log that is not encrypted. */
  readonly overlayKey: KeyObject | undefined;
  readonly form: BlockForm;
}

export class SegmentReader {
  readonly #file: OverlayFile;
  readonly #sizeBytes: number;
  readonly #overlayId: bigint;
  readonly #segment: number;
  readonly #overlayKey: KeyObject | undefined;
  readonly #form: BlockForm;
  /** Of an encrypted segment, once a record with its salt was read. */
  #cipher: SegmentCipher | undefined;
  #saltSought = false;
  #window = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: OverlayFile, from: SegmentReaderInput) {
    this.#file = file;
    this.#sizeBytes = from.sizeBytes;
    this.#overlayId = from.overlayId;
    this.#segment = from.segment;
    this.#overlayKey = from.overlayKey;
    this.#form = from.form;
  }

  /** Undefined for a log that is not encrypted, and for a segment whose salts cannot be read. */
  get cipher(): SegmentCipher | undefined {
    return this.#cipher;
  }

  /** The record at `position`, if an intact one is there. The data of a BATCH is not looked at. */
  async record(position: number): Promise<LogRecord | undefined> {
    const header = await this.#header(position);
    if (header === undefined) return undefined;
    const view = await this.#bytes(position + recordHeader.sizeBytes, header.tableBytes);
    // A small table must not keep a whole window in memory.
    const stored = view.length < WINDOW_BYTES ? Buffer.from(view) : view;
    if (!tableIsIntact(header, stored)) return undefined;
    const table = this.#overlayKey === undefined ? stored : await this.#open(this.#overlayKey, header, stored);
    return table && { header, position, table };
  }

  /** The table of a sealed record; undefined if it is not what was sealed. */
  async #open(overlayKey: KeyObject, header: RecordHeader, stored: Buffer): Promise<Buffer | undefined> {
    const saltBytes = saltBytesOf(header.kind);
    if (saltBytes === 0) {
      if (this.#cipher === undefined) await this.#seekSalt();
      return this.#cipher?.openTable(headerContext(header), stored);
    }
    const salt = stored.subarray(0, saltBytes);
    const known = this.#cipher !== undefined && salt.equals(this.#cipher.salt);
    const cipher = known ? this.#cipher : SegmentCipher.of(overlayKey, salt);
    const table = cipher?.openTable(headerContext(header), stored.subarray(saltBytes));
    if (table !== undefined) this.#cipher = cipher;
    return table;
  }

  /** The salt is at both ends of a segment. */
  async #seekSalt(): Promise<void> {
    if (this.#saltSought) return;
    this.#saltSought = true;
    if ((await this.record(0)) === undefined) await this.#end();
  }

  #end(): Promise<LogRecord | undefined> {
    return this.record(this.#sizeBytes - (this.#overlayKey === undefined ? END_BYTES : SEALED_END_BYTES));
  }

  /** The INDEX that END, at the end of the file, leads to. */
  async index(): Promise<LogRecord | undefined> {
    const end = await this.#end();
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
        const torn = await this.#looksTorn(position);
        record = await this.#search(position + RECORD_ALIGNMENT, limit);
        const zeroes = record === undefined && (await this.#endsInZeroes(position));
        steps.push({ kind: 'gap', position, torn, zeroes });
        if (record === undefined) break;
      }
      if (record.header.kind === recordKinds.INDEX || record.header.kind === recordKinds.END) break;
      steps.push({ kind: 'record', record });
      position = record.position + recordBytes(record.header, this.#form.blockBytes);
    }
    // The file is shorter than the records it is known to have had.
    if (endBytes !== Number.POSITIVE_INFINITY && position >= limit && position < endBytes) {
      steps.push({ kind: 'gap', position, torn: true, zeroes: false });
    }
    return steps;
  }

  /** Compares the data of a BATCH with its checksums. */
  async checkData(record: LogRecord): Promise<'intact' | 'torn' | 'damaged'> {
    const { blockBytes } = this.#form;
    const { entries, checksums } = batchEntries(record, blockBytes);
    if (this.#overlayKey !== undefined && this.#cipher === undefined) await this.#seekSalt();
    let verdict: 'intact' | 'damaged' = 'intact';
    let done = 0;
    for (const { block, count, position } of entries) {
      if (position === undefined) continue;
      for (let at = 0; at < count; at += CHECKED_BLOCKS) {
        const expected = checksums.subarray(done + at, done + Math.min(count, at + CHECKED_BLOCKS));
        const found = await this.#checkBlocks(block + at, position + at * blockBytes, expected);
        if (found === 'torn') return 'torn';
        if (found === 'damaged') verdict = 'damaged';
      }
      done += count;
    }
    return verdict;
  }

  async #checkBlocks(first: number, position: number, expected: Uint32Array): Promise<'intact' | 'torn' | 'damaged'> {
    const { blockBytes, checksumsOf } = this.#form;
    const stored = await this.#bytes(position, expected.length * blockBytes, CHECK_WINDOW_BYTES);
    const { data, opened } = this.#openBlocks(first, position, stored);
    const checksums = checksumsOf(first, data);
    let verdict: 'intact' | 'damaged' = 'intact';
    for (const [at, checksum] of expected.entries()) {
      // Undefined, which equals no checksum, for one behind the end of the file.
      if ((opened === undefined || opened[at] === true) && checksums[at] === checksum) continue;
      const start = at * blockBytes;
      if (hasLostSector(stored.subarray(start, start + blockBytes), position + start, blockBytes)) return 'torn';
      verdict = 'damaged';
    }
    return verdict;
  }

  /** The whole blocks in `stored`, and which of them could be opened; undefined where nothing is encrypted. */
  #openBlocks(first: number, position: number, stored: Buffer): { data: Buffer; opened: boolean[] | undefined } {
    const count = Math.floor(stored.length / this.#form.blockBytes);
    if (this.#overlayKey === undefined) return { data: stored.subarray(0, count * BLOCK_SIZE), opened: undefined };
    const data = Buffer.alloc(count * BLOCK_SIZE);
    // Without a cipher, since the segment's salts are lost, none.
    return { data, opened: this.#cipher?.openBlocks(first, position, stored, data) ?? [] };
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

  async #endsInZeroes(from: number): Promise<boolean> {
    for (let position = from; position < this.#sizeBytes; ) {
      const bytes = await this.#bytes(position, Math.min(WINDOW_BYTES, this.#sizeBytes - position));
      if (bytes.length === 0 || !isZero(bytes, 0, bytes.length)) return false;
      position += bytes.length;
    }
    return true;
  }

  async #looksTorn(position: number): Promise<boolean> {
    const size = recordHeader.sizeBytes;
    const header = await this.#header(position);
    if (header === undefined) return hasLostSector(await this.#bytes(position, size), position, size);
    const table = await this.#bytes(position + size, header.tableBytes);
    return hasLostSector(table, position + size, header.tableBytes);
  }

  /** Up to `length` bytes, fewer at the end of the file; a view, which keeps its window in memory. */
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

/** What a BATCH says, in a log where a block takes `blockBytes`. */
export function batchEntries({ header, position, table }: LogRecord, blockBytes: number): LogEntries {
  return readBatchTable(table, {
    blockBytes,
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
