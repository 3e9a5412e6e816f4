/**
 * Appends to the log. One write call is under way at a time, and what arrives meanwhile becomes the next one; so many
 * small requests share a record, and records land in the order of their sequence.
 *
 * A FLUSH waits for an fdatasync (log-syncer.ts); if nothing has landed since the last, it costs nothing.
 *
 * Clients that FLUSH after each small write, as databases do at each commit, wait for the file system to note in its
 * journal where the file now ends, too. So zeroes are written ahead of their records: an fdatasync of what lands inside
 * them has data to write and nothing else. A file's tail of zeroes is what a crash leaves of a write that was cut off;
 * it goes when the segment is complete.
 *
 * When a write finds no room, the log ends where it ended before, and the next one may succeed. After any other failed
 * write, and after a failed fdatasync, nothing more is written until the overlay is opened again: the kernel may have
 * dropped pages it still shows as written, and a second fdatasync would call them safe. What counts of the log is then
 * found as after a crash. Reads go on.
 */
import type { KeyObject } from 'node:crypto';
import { OverlayError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { KiB } from '../core/units.ts';
import { overlayFailure } from './file-errors.ts';
import type { OverlayFile } from './file-system.ts';
import {
  finishRecord,
  INDEX_ENTRY_BYTES,
  newRecord,
  RECORD_ALIGNMENT,
  type RecordValues,
  recordKinds,
  SEGMENT_BLOCKS_MAX,
  storedRecordBytes,
  TABLE_BYTES_MAX,
} from './log-format.ts';
import { type LogIndex, type Segment, WordList } from './log-index.ts';
import { LogSyncer } from './log-syncer.ts';
import { type BatchEntry, batchTable, dropTable, type LogEntry, segmentTable } from './log-tables.ts';
import { SegmentCipher } from './segment-cipher.ts';
import type { SegmentFiles } from './segment-files.ts';
import { indexRecords } from './segment-index.ts';

/**
 * Blocks of data in a record, unless one request has more: 1 MiB. Enough to share one system call among many small
 * requests. Records of up to 8 MiB were slower where measured: eight writers of 1 MiB had 400 MiB/s with them, 900 so.
 */
const BATCH_BLOCKS = 256;
const BATCH_REQUESTS_MAX = 512;
/**
 * Segments written to that may wait for a FLUSH. Syncing each when it is complete halves what can be written to a disk
 * in a row; many would make the next FLUSH, and opening after a crash, take long.
 */
const UNSYNCED_SEGMENTS_MAX = 8;
/** Records up to this long are small: with larger ones the journal is not what a FLUSH waits for. */
const SMALL_RECORD_BYTES = 64 * KiB;
/** Zeroes written ahead at a time, as a part of a segment: 1 MiB, for some 240 records of one block. */
const AHEAD_SEGMENTS = 1 / 32;
/** Idle for so long after an fdatasync, the log is told of it by a MARK. A busy one tells it by its next record. */
const MARK_DELAY_MS = 10;
/** Entries of a segment at most, so that its INDEX keeps within TABLE_BYTES_MAX. */
const SEGMENT_ENTRIES_MAX = Math.floor(TABLE_BYTES_MAX / INDEX_ENTRY_BYTES / 2);

interface Work {
  readonly kind: 'change' | 'move' | 'drop';
  /** Called when the record is made: what to put into it. */
  readonly entries: () => readonly BatchEntry[];
  readonly dropped: readonly Segment[];
}

interface Request extends Work {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Active {
  readonly segment: Segment;
  readonly file: OverlayFile;
  /** Where the zeroes end that were written ahead; behind it nothing is in the file. */
  aheadBytes: number;
}

export interface LogWriterInput {
  readonly index: LogIndex;
  readonly files: SegmentFiles;
  readonly overlayId: bigint;
  /** Undefined for a log that is not encrypted. */
  readonly overlayKey: KeyObject | undefined;
  /** Of the last record of the log; all of them are durable. */
  readonly sequence: number;
  readonly nextSegment: number;
  /** A segment with at least so many bytes is complete. */
  readonly segmentBytes: number;
  /** fsync of the overlay's directory. */
  readonly syncDirectory: () => Promise<void>;
  /** Called before the first record of this opening is written. */
  readonly beforeFirstRecord: () => Promise<void>;
  /** Called when a record has landed. */
  readonly onLanded: () => void;
  /** Called when everything that had landed has become durable. */
  readonly onSynced: () => void;
  readonly log: Log;
}

export class LogWriter {
  readonly #input: LogWriterInput;
  readonly #queue: Request[] = [];
  #running: Promise<void> | undefined;
  #active: Active | undefined;
  #opened = false;
  #nextSegment: number;
  #sequence: number;
  /** Of the last record that changed something: what a FLUSH is about. */
  #changed: number;
  readonly #syncer: LogSyncer;
  /** The highest durable record that a record has told the log of. */
  #claimed = 0;
  #failure: OverlayError | undefined;
  #markTimer: NodeJS.Timeout | undefined;
  readonly #background = new Set<Promise<void>>();
  writtenBytes = 0;

  constructor(input: LogWriterInput) {
    this.#input = input;
    this.#nextSegment = input.nextSegment;
    this.#sequence = input.sequence;
    this.#changed = input.sequence;
    this.#syncer = new LogSyncer({
      files: input.files,
      syncDirectory: input.syncDirectory,
      sequence: input.sequence,
      landed: () => this.#sequence,
      check: () => {
        if (this.#failure !== undefined) throw this.#failure;
      },
      fail: (error) => this.#fail(error),
      onSynced: () => {
        input.onSynced();
        this.#markLater();
      },
    });
  }

  get failure(): OverlayError | undefined {
    return this.#failure;
  }

  /** Of the last record written. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Resolves when the entries have landed, in one record. Borrows their data until then. */
  append(entries: readonly BatchEntry[]): Promise<void> {
    return this.#enqueue({ kind: 'change', entries: () => entries, dropped: [] });
  }

  /**
   * Resolves when blocks have a second, newer place. `entries` is called when everything asked for before has landed
   * and nothing newer is on its way: it leaves out what has been replaced meanwhile.
   */
  move(entries: () => readonly BatchEntry[]): Promise<void> {
    return this.#enqueue({ kind: 'move', entries, dropped: [] });
  }

  /** Resolves when the log says that these dead segments are no part of it any more, and the index has forgotten them. */
  drop(segments: readonly Segment[]): Promise<void> {
    return this.#enqueue({ kind: 'drop', entries: () => [], dropped: segments });
  }

  /** Resolves when everything that has landed before the call is durable. */
  async flush(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#changed > this.#syncer.synced) await this.#syncer.sync();
  }

  /**
   * Completes the log and makes it durable. Resolves to how it ended, or undefined if there is no log. Rejects if that
   * cannot be promised.
   */
  async close(): Promise<{ segment: number; endBytes: number; sequence: number } | undefined> {
    clearTimeout(this.#markTimer);
    while (this.#running !== undefined || this.#background.size > 0) {
      await Promise.all([this.#running, ...this.#background]);
    }
    if (this.#failure !== undefined) throw this.#failure;
    const active = this.#active;
    // First, so that no MARK follows the last record while its INDEX is on its way.
    this.#active = undefined;
    if (active !== undefined) await this.#complete(active, this.#sequence);
    if (this.#syncer.unsyncedSegments > 0) await this.#syncer.sync();
    const last = [...this.#input.index.segments].at(-1);
    return last && { segment: last.number, endBytes: last.endBytes, sequence: this.#sequence };
  }

  #enqueue(work: Work): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#queue.push({ ...work, resolve, reject });
      if (this.#running === undefined) this.#occupy(this.#run());
    });
  }

  /** Lets `work` be the one that writes; then what has queued up has its turn. */
  #occupy(work: Promise<void>): void {
    this.#running = work.finally(() => {
      this.#running = undefined;
      if (this.#queue.length > 0) this.#occupy(this.#run());
    });
  }

  async #run(): Promise<void> {
    // One turn later: requests of the same turn of the event loop share a record.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const requests = this.#takeRequests();
      try {
        if (this.#failure !== undefined) throw this.#failure;
        await this.#write(requests);
        for (const request of requests) request.resolve();
        this.#input.onLanded();
      } catch (error) {
        for (const request of requests) request.reject(error);
      }
    }
  }

  /** The requests for one record: all of one kind, so that a move is never behind a change that it has not seen. */
  #takeRequests(): Request[] {
    const taken: Request[] = [];
    let blocks = 0;
    for (const request of this.#queue) {
      if (taken.length > 0 && (request.kind === 'drop' || request.kind !== taken[0]!.kind)) break;
      const more = request.entries().reduce((sum, { count, data }) => sum + (data === undefined ? 0 : count), 0);
      if (taken.length > 0 && blocks + more > BATCH_BLOCKS) break;
      taken.push(request);
      blocks += more;
      if (taken.length === BATCH_REQUESTS_MAX) break;
    }
    this.#queue.splice(0, taken.length);
    return taken;
  }

  async #write(requests: readonly Request[]): Promise<void> {
    if (requests[0]?.kind === 'drop') return this.#writeDrop(requests[0].dropped);
    const batch = requests.flatMap((request) => request.entries());
    if (batch.length > 0) await this.#writeBatch(batch);
  }

  async #writeDrop(dropped: readonly Segment[]): Promise<void> {
    const active = await this.#activeFor(0);
    const record = dropTable(dropped.map(({ number }) => number));
    await this.#append(active, { kind: recordKinds.DROP, detail: 0, entryCount: dropped.length }, record, []);
    // At once: the next segment's head must not list them.
    for (const segment of dropped) this.#input.index.forget(segment);
    this.#changed = this.#sequence;
  }

  async #writeBatch(batch: readonly BatchEntry[]): Promise<void> {
    const { record, checksums } = batchTable(batch);
    const active = await this.#activeFor(checksums.length);
    const { segment } = active;
    const { cipher, endBytes: startBytes } = segment;
    const dataPosition = startBytes + storedRecordBytes(record.length, { kind: recordKinds.BATCH, cipher });
    let position = dataPosition;
    const entries: LogEntry[] = [];
    const data: Uint8Array[] = [];
    for (const entry of batch) {
      entries.push({ block: entry.block, count: entry.count, position: entry.data && position });
      if (entry.data === undefined) continue;
      data.push(cipher?.sealBlocks(entry.block, position, entry.data) ?? entry.data);
      position += entry.count * this.#input.index.blockBytes;
    }
    const padding = -(position - dataPosition) & (RECORD_ALIGNMENT - 1);
    if (padding > 0) data.push(Buffer.alloc(padding));
    const values = { kind: recordKinds.BATCH, detail: checksums.length, entryCount: batch.length };
    await this.#append(active, values, record, data);
    await this.#writeAhead(active, segment.endBytes - startBytes);
    this.#input.index.land(segment, entries, checksums);
    this.#input.index.note(segment, entries);
    this.#changed = this.#sequence;
  }

  /** Writes one record behind the last one. */
  async #append(
    active: Active,
    values: Pick<RecordValues, 'kind' | 'detail' | 'entryCount'>,
    record: Buffer,
    data: readonly Uint8Array[],
  ): Promise<void> {
    const { segment, file } = active;
    const { synced } = this.#syncer;
    const header = { ...values, ...this.#placeOf(segment), sequence: this.#sequence + 1, synced };
    const stored = finishRecord(record, header, segment.cipher);
    try {
      await file.write([stored, ...data], segment.endBytes);
    } catch (error) {
      throw await this.#writeFailed(active, error);
    }
    this.#sequence++;
    this.#claimed = synced;
    this.#syncer.written(segment);
    const bytes = data.reduce((sum, { length }) => sum + length, stored.length);
    segment.endBytes += bytes;
    this.writtenBytes += bytes;
  }

  /** Writes zeroes ahead if clients FLUSH one small write after the other, and those that are there are used up. */
  async #writeAhead(active: Active, recordBytes: number): Promise<void> {
    const { segment, file } = active;
    const { segmentBytes } = this.#input;
    if (segment.endBytes <= active.aheadBytes || recordBytes > SMALL_RECORD_BYTES) return;
    if (this.#changed > this.#syncer.synced) return;
    const aheadBytes = Math.min(segment.endBytes + Math.floor(segmentBytes * AHEAD_SEGMENTS), segmentBytes);
    if (aheadBytes <= segment.endBytes) return;
    try {
      await file.write([Buffer.alloc(aheadBytes - segment.endBytes)], segment.endBytes);
      active.aheadBytes = aheadBytes;
    } catch (error) {
      // The record itself has landed. On a full disk it is as well off without them.
      const failure = await this.#writeFailed(active, error);
      if (failure.reason !== 'full') throw failure;
    }
  }

  #placeOf(segment: Segment): Pick<RecordValues, 'overlayId' | 'segment' | 'position'> {
    return { overlayId: this.#input.overlayId, segment: segment.number, position: segment.endBytes };
  }

  /** Makes the log end where it ended before. The error the requests get. */
  async #writeFailed(active: Active, cause: unknown): Promise<OverlayError> {
    const { segment, file } = active;
    active.aheadBytes = 0;
    const error = overlayFailure(`cannot write to ${this.#input.files.pathOf(segment.number)}`, cause);
    try {
      await file.truncate(segment.endBytes);
    } catch (truncateError) {
      // What is behind the end is no part of the log once the next segment's head says where this one ends.
      this.#input.log.warn({ error: truncateError, segment: segment.number }, 'a failed write could not be taken back');
      if (this.#active?.segment === segment) {
        this.#active = undefined;
        this.#input.index.complete(segment);
      }
    }
    if (error.reason !== 'full') this.#fail(error);
    return error;
  }

  /** The segment that the next record goes to, with room for `dataBlocks`. */
  async #activeFor(dataBlocks: number): Promise<Active> {
    const active = this.#active;
    if (active !== undefined) {
      const { segment } = active;
      const fits =
        segment.endBytes < this.#input.segmentBytes &&
        segment.positions.length + dataBlocks <= SEGMENT_BLOCKS_MAX &&
        segment.entries!.length / (INDEX_ENTRY_BYTES / 4) < SEGMENT_ENTRIES_MAX;
      if (fits) return active;
    }
    if (!this.#opened) {
      await this.#guard('cannot begin to write', () => this.#input.beforeFirstRecord());
      this.#opened = true;
    }
    const lastSequence = this.#sequence;
    const created = await this.#createSegment();
    this.#active = created;
    if (active !== undefined) this.#inBackground(this.#retire(active, lastSequence));
    return created;
  }

  async #retire(active: Active, sequence: number): Promise<void> {
    await this.#complete(active, sequence);
    this.#syncer.retire(active.segment);
    if (this.#syncer.unsyncedSegments > UNSYNCED_SEGMENTS_MAX) await this.#syncer.sync();
  }

  async #createSegment(): Promise<Active> {
    const { index, files } = this.#input;
    const number = this.#nextSegment++;
    const older = [...index.segments].map(({ number: segment, endBytes }) => ({ segment, endBytes }));
    const segment = index.addSegment(number);
    segment.entries = new WordList();
    const { overlayKey } = this.#input;
    segment.cipher = overlayKey && SegmentCipher.create(overlayKey);
    try {
      const file = await this.#guard(`cannot create ${files.pathOf(number)}`, () => files.create(number));
      this.#syncer.created();
      const values = { kind: recordKinds.SEGMENT, detail: 0, entryCount: older.length };
      const created = { segment, file, aheadBytes: 0 };
      await this.#append(created, values, segmentTable(older), []);
      return created;
    } catch (error) {
      index.forget(segment);
      index.freeRow(segment);
      this.#syncer.forget(segment);
      await files.remove(number).catch((removeError: unknown) => {
        this.#input.log.debug(
          { error: removeError, number },
          'an empty segment stays until the overlay is opened again',
        );
      });
      throw error;
    }
  }

  /** Writes the INDEX of a segment that gets no more records. Without it the segment is read record by record. */
  async #complete({ segment, file, aheadBytes }: Active, sequence: number): Promise<void> {
    const { log, index } = this.#input;
    const position = segment.endBytes;
    const place = { overlayId: this.#input.overlayId, segment: segment.number, position };
    const records = indexRecords({ ...place, sequence, synced: this.#syncer.synced }, segment);
    index.complete(segment);
    try {
      // END is sought where the file ends.
      if (aheadBytes > position) await file.truncate(position);
      await file.write(records, position);
      this.writtenBytes += records.reduce((bytes, { length }) => bytes + length, 0);
    } catch (error) {
      log.warn({ error, segment: segment.number }, 'a segment stays without its index');
      await file.truncate(position).catch((truncateError: unknown) => {
        log.debug({ error: truncateError, segment: segment.number }, 'a partly written index stays');
      });
    }
    this.#syncer.written(segment);
  }

  #markLater(): void {
    clearTimeout(this.#markTimer);
    this.#markTimer = setTimeout(() => {
      if (this.#running === undefined && this.#failure === undefined) this.#inBackground(this.#mark());
    }, MARK_DELAY_MS);
    this.#markTimer.unref();
  }

  /** Tells the log what is durable, so that damage to it is not taken for the end of the log after a crash. */
  async #mark(): Promise<void> {
    const active = this.#active;
    if (active === undefined || this.#syncer.synced <= this.#claimed) return;
    const mark = this.#append(active, { kind: recordKinds.MARK, detail: 0, entryCount: 0 }, newRecord(0), []);
    // Requests that arrive meanwhile wait for it, as for any record.
    this.#occupy(
      mark.catch((error: unknown) => this.#input.log.warn({ error }, 'the overlay could not note what is durable')),
    );
    await this.#running;
  }

  #inBackground(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => this.#input.log.debug({ error }, 'background work of the overlay failed'))
      .finally(() => this.#background.delete(done));
    this.#background.add(done);
  }

  async #guard<T>(what: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      const error = overlayFailure(what, cause);
      if (error.reason !== 'full') this.#fail(error);
      throw error;
    }
  }

  /** Nothing more is written; returns why. */
  #fail(error: OverlayError): OverlayError {
    if (this.#failure !== undefined) return this.#failure;
    const message = `${error.message}; nothing more is written until the overlay is opened again`;
    this.#failure = new OverlayError(message, { reason: 'io', cause: error, details: error.details });
    this.#input.log.error({ error }, message);
    return this.#failure;
  }
}
