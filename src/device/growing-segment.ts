/**
 * The segment that the log grows in: where its records are written, one behind the other, and its INDEX behind the last.
 *
 * Clients that FLUSH after each small write, as databases do at each commit, wait for the file system to note in its
 * journal where the file now ends, too. So zeroes are written ahead of their records: an fdatasync of what lands inside
 * them has data to write and nothing else. A file's tail of zeroes is what a crash leaves of a write that was cut off;
 * it goes when the segment is complete.
 */
import { assert, OverlayError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { KiB } from '../core/units.ts';
import { overlayFailure } from './file-errors.ts';
import type { OverlayFile } from './file-system.ts';
import {
  finishRecord,
  INDEX_ENTRY_BYTES,
  RECORD_ALIGNMENT,
  type RecordValues,
  recordKinds,
  SEGMENT_BLOCKS_MAX,
  storedRecordBytes,
  TABLE_BYTES_MAX,
} from './log-format.ts';
import type { LogIndex, Segment } from './log-index.ts';
import {
  type BatchEntry,
  batchRecordBytes,
  batchTable,
  dataBlocksOf,
  type LogEntries,
  type LogEntry,
} from './log-tables.ts';
import type { SegmentFiles } from './segment-files.ts';
import { indexRecords } from './segment-index.ts';

/** So much data of a record is written before it: below that a thread costs more than it takes over. */
export const DATA_FIRST_BYTES = 64 * KiB;
/** With so many times as much, 256 KiB, a record begins before its turn: smaller ones had better wait and become one. */
const AHEAD_DATA_FIRST = 4;
/** Zeroes written ahead at a time, as a part of a segment: 1 MiB, for some 240 records of one block. */
export const AHEAD_SEGMENTS = 1 / 32;
/** Entries of a segment at most, so that its INDEX keeps within TABLE_BYTES_MAX. */
const SEGMENT_ENTRIES_MAX = Math.floor(TABLE_BYTES_MAX / INDEX_ENTRY_BYTES / 2);

/** Written again and again: making a MiB of them anew takes as long as writing it. */
const zeroes = Buffer.alloc(64 * KiB);

export interface GrowingSegmentInput {
  readonly index: LogIndex;
  readonly files: SegmentFiles;
  readonly overlayId: bigint;
  /** A segment with at least so many bytes is complete. */
  readonly segmentBytes: number;
  readonly dataFirstBytes: number;
  readonly aheadBytes: number;
  readonly log: Log;
}

/** What the log says of itself in each record. */
export type RecordStamp = Pick<RecordValues, 'sequence' | 'synced'>;

/** A BATCH that has its place. */
export interface BegunBatch {
  readonly batch: readonly BatchEntry[];
  readonly record: Buffer;
  readonly entries: readonly LogEntry[];
  readonly checksums: Uint32Array;
  readonly data: readonly Uint8Array[];
  /** Settles when the data has been written, where it goes before its record. */
  readonly first: Promise<void> | undefined;
  readonly endBytes: number;
  /** Its place is lost: one before it could not be written. */
  isVoid: boolean;
}

export class GrowingSegment {
  readonly segment: Segment;
  readonly #input: GrowingSegmentInput;
  readonly #file: OverlayFile;
  /** Where the zeroes end that were written ahead; behind it nothing is in the file. */
  #aheadBytes = 0;
  /** In the order of their places; none of them has its record yet. */
  readonly #begun: BegunBatch[] = [];
  #abandoned = false;
  /** For what `writeNow` seals: nothing of it is needed when it returns. */
  #room: Buffer | undefined;

  constructor(input: GrowingSegmentInput, segment: Segment, file: OverlayFile) {
    this.#input = input;
    this.segment = segment;
    this.#file = file;
  }

  /** What a failed write left behind could not be taken away: no record may follow. */
  get abandoned(): boolean {
    return this.#abandoned;
  }

  hasRoomFor(dataBlocks: number): boolean {
    const { positions, entries } = this.segment;
    const begunBlocks = this.#begun.reduce((blocks, { checksums }) => blocks + checksums.length, 0);
    return (
      this.#nextBytes < this.#input.segmentBytes &&
      positions.length + begunBlocks + dataBlocks <= SEGMENT_BLOCKS_MAX &&
      entries!.length / (INDEX_ENTRY_BYTES / 4) < SEGMENT_ENTRIES_MAX
    );
  }

  /**
   * Begins a BATCH behind the last record. Much data goes first, at its place behind the record: a thread writes it while
   * this one computes its checksums. The record follows, by `finish`, when all of it has landed; without that, what is
   * there is a write that was cut off. Borrows the batch's data until `finish` has settled, and as long `room`, for what is sealed.
   */
  begin(batch: readonly BatchEntry[], room?: Buffer): BegunBatch {
    const position = this.#nextBytes;
    const recordBytes = batchRecordBytes(batch);
    const dataPosition =
      position + storedRecordBytes(recordBytes, { kind: recordKinds.BATCH, cipher: this.segment.cipher });
    const { entries, data, bytes } = this.#place(batch, dataPosition, room);
    const first = this.#isDataFirst(batch) ? this.#file.write(data, dataPosition) : undefined;
    first?.catch(() => undefined); // `finish` tells.
    const { record, checksums } = batchTable(batch, this.#input.index.checksumsOf);
    const begun = { batch, record, entries, checksums, data, first, endBytes: dataPosition + bytes, isVoid: false };
    this.#begun.push(begun);
    return begun;
  }

  /** Whether the data of one batch is on its way, and none behind it. */
  get takesAhead(): boolean {
    return this.#begun.length === 1 && this.#begun[0]!.first !== undefined;
  }

  /**
   * Begins the batch behind that one, so that the disk has work while that one's record is made and its client told.
   * Undefined if it has to wait.
   */
  beginAhead(batch: readonly BatchEntry[]): BegunBatch | undefined {
    const isPossible = this.#isDataFirst(batch, AHEAD_DATA_FIRST) && this.hasRoomFor(dataBlocksOf(batch));
    return isPossible ? this.begin(batch) : undefined;
  }

  /** Writes the record of the batch that began first. Rejects with OverlayError: then the log ends where it ended before. */
  async finish(begun: BegunBatch, values: RecordStamp): Promise<LogEntries> {
    const { segment } = this;
    const { entries, checksums, data, first } = begun;
    assert(begun === this.#begun[0], 'batches end in the order in which they began');
    const stored = this.#recordOf(begun, values);
    try {
      await first;
      await this.#file.write(first === undefined ? [stored, ...data] : [stored], segment.endBytes);
    } catch (error) {
      throw await this.#takeBack(error);
    }
    this.#begun.shift();
    segment.endBytes = begun.endBytes;
    return { entries, checksums };
  }

  /**
   * Writes a small BATCH at once, where zeroes have been written ahead of it. Undefined if it is to be begun, and then
   * nothing of it counts.
   */
  writeNow(batch: readonly BatchEntry[], values: RecordStamp): LogEntries | undefined {
    const { segment } = this;
    if (this.#file.writeNow === undefined || this.#begun.length > 0 || this.#isDataFirst(batch)) return undefined;
    if (segment.endBytes >= this.#aheadBytes || !this.hasRoomFor(dataBlocksOf(batch))) return undefined;
    if (segment.cipher !== undefined) this.#room ??= Buffer.allocUnsafeSlow(this.#input.dataFirstBytes);
    const begun = this.begin(batch, this.#room);
    this.#begun.pop();
    // The next zeroes are written by one who can wait for them.
    if (begun.endBytes > this.#aheadBytes) return undefined;
    if (!this.#file.writeNow([this.#recordOf(begun, values), ...begun.data], segment.endBytes)) return undefined;
    segment.endBytes = begun.endBytes;
    return begun;
  }

  /** Resolves when nothing is being written of batches that have begun: they are void, and may begin again elsewhere. */
  async giveUp(): Promise<void> {
    const begun = this.#begun.splice(0);
    for (const one of begun) one.isVoid = true;
    await Promise.allSettled(begun.map(({ first }) => first));
  }

  /** The record of a batch as it is stored. */
  #recordOf({ batch, record, checksums }: BegunBatch, { sequence, synced }: RecordStamp): Buffer {
    const counts = { detail: checksums.length, entryCount: batch.length };
    const values = { ...this.#here(), kind: recordKinds.BATCH, sequence, synced, ...counts };
    return finishRecord(record, values, this.segment.cipher);
  }

  /** Where the next record begins. */
  get #nextBytes(): number {
    return this.#begun.at(-1)?.endBytes ?? this.segment.endBytes;
  }

  #isDataFirst(batch: readonly BatchEntry[], times = 1): boolean {
    return dataBlocksOf(batch) * this.#input.index.blockBytes >= this.#input.dataFirstBytes * times;
  }

  /**
   * Where the data of a batch goes, and what is to be written there: padded, and where the log is encrypted sealed, to
   * `room` or a buffer of its own.
   */
  #place(
    batch: readonly BatchEntry[],
    dataPosition: number,
    room?: Buffer,
  ): { entries: LogEntry[]; data: Uint8Array[]; bytes: number } {
    const { blockBytes } = this.#input.index;
    const { cipher } = this.segment;
    const sealed = cipher && (room ?? Buffer.allocUnsafe(dataBlocksOf(batch) * blockBytes));
    let bytes = 0;
    const entries: LogEntry[] = [];
    const data: Uint8Array[] = [];
    for (const { block, count, data: plain } of batch) {
      const position = plain && dataPosition + bytes;
      entries.push({ block, count, position });
      if (plain === undefined) continue;
      const stored = sealed?.subarray(bytes, bytes + count * blockBytes);
      if (stored !== undefined) cipher?.sealBlocks(block, dataPosition + bytes, plain, stored);
      data.push(stored ?? plain);
      bytes += count * blockBytes;
    }
    const padding = -bytes & (RECORD_ALIGNMENT - 1);
    if (padding > 0) data.push(zeroes.subarray(0, padding));
    return { entries, data, bytes: bytes + padding };
  }

  /** Writes a record without data behind the last one. Rejects as `appendBatch` does. */
  async append(values: RecordStamp & Pick<RecordValues, 'kind' | 'entryCount'>, record: Buffer): Promise<void> {
    const { segment } = this;
    const stored = finishRecord(record, { ...values, detail: 0, ...this.#here() }, segment.cipher);
    try {
      await this.#file.write([stored], segment.endBytes);
    } catch (error) {
      throw await this.#takeBack(error);
    }
    segment.endBytes += stored.length;
  }

  /** Writes zeroes ahead, if those that are there are used up. */
  async writeAhead(): Promise<void> {
    const { endBytes } = this.segment;
    const { segmentBytes } = this.#input;
    if (endBytes <= this.#aheadBytes || this.#begun.length > 0) return;
    const aheadBytes = Math.min(endBytes + this.#input.aheadBytes, segmentBytes);
    if (aheadBytes <= endBytes) return;
    try {
      await this.#file.write(zeroBuffers(aheadBytes - endBytes), endBytes);
      this.#aheadBytes = aheadBytes;
    } catch (error) {
      // The record before has landed. On a full disk it is as well off without them.
      const failure = await this.#takeBack(error);
      if (failure.reason !== 'full') throw failure;
    }
  }

  /**
   * Writes the INDEX: no more records follow. Resolves to its bytes, 0 if that failed: without it the segment is read
   * record by record. Rejects with OverlayError as `#takeBack` does.
   */
  async complete(stamp: RecordStamp): Promise<number> {
    const { index, log } = this.#input;
    const { segment } = this;
    const position = segment.endBytes;
    const records = indexRecords({ ...stamp, ...this.#here() }, segment);
    index.complete(segment);
    try {
      // END is sought where the file ends.
      if (this.#aheadBytes > position) await this.#file.truncate(position);
      await this.#file.write(records, position);
      return records.reduce((bytes, { length }) => bytes + length, 0);
    } catch (error) {
      log.warn({ error, segment: segment.number }, 'a segment stays without its index');
      await this.#takeBack(error);
      return 0;
    }
  }

  #here(): Pick<RecordValues, 'overlayId' | 'segment' | 'position'> {
    const { number, endBytes } = this.segment;
    return { overlayId: this.#input.overlayId, segment: number, position: endBytes };
  }

  /**
   * Makes the log end where it ended before, durably: a crash must not bring back what was half written, behind a shorter
   * record or in a segment whose end nobody knows; there it would look like damage. Resolves to the error that the failed
   * write comes to. Rejects with OverlayError if the fdatasync fails, which nobody may try again.
   */
  async #takeBack(cause: unknown): Promise<OverlayError> {
    const { files, log } = this.#input;
    const { number, endBytes } = this.segment;
    const path = files.pathOf(number);
    this.#aheadBytes = 0;
    await this.giveUp();
    try {
      await this.#file.truncate(endBytes);
    } catch (error) {
      // What is behind the end is no part of the log once the next segment's head says where this one ends.
      log.warn({ error, segment: number }, 'a failed write could not be taken back');
      this.#abandoned = true;
      return overlayFailure(`cannot write to ${path}`, cause);
    }
    try {
      await this.#file.sync();
    } catch (error) {
      throw new OverlayError(`cannot make ${path} durable`, { reason: 'io', cause: error });
    }
    return overlayFailure(`cannot write to ${path}`, cause);
  }
}

/** That many bytes of zeroes. */
function zeroBuffers(bytes: number): Buffer[] {
  const count = Math.ceil(bytes / zeroes.length);
  return Array.from({ length: count }, (_, at) =>
    zeroes.subarray(0, Math.min(zeroes.length, bytes - at * zeroes.length)),
  );
}
