/**
 * Appends to the log: record by record (write-queue.ts), to one segment after the other (growing-segment.ts).
 *
 * A FLUSH waits for an fdatasync (log-syncer.ts); if nothing has landed since the last, it costs nothing.
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
import { type BegunBatch, GrowingSegment, type RecordStamp } from './growing-segment.ts';
import { newRecord, recordKinds } from './log-format.ts';
import { type LogIndex, type Segment, WordList } from './log-index.ts';
import { LogSyncer } from './log-syncer.ts';
import { type BatchEntry, dataBlocksOf, dropTable, type LogEntries, segmentTable } from './log-tables.ts';
import { SegmentCipher } from './segment-cipher.ts';
import type { SegmentFiles } from './segment-files.ts';
import { type Work, WriteQueue } from './write-queue.ts';

/**
 * Segments written to that may wait for a FLUSH: 256 MiB. More would make the next FLUSH take long, and opening after a
 * crash: what is not known to be durable is read and compared then. A sequential writer who never flushes has the same
 * speed with four times as many, within 5 %.
 */
const UNSYNCED_SEGMENTS_MAX = 8;
/**
 * Records up to this long are small: where each is flushed, zeroes are written ahead of them. With larger ones the
 * journal is not what a FLUSH waits for.
 */
const SMALL_RECORD_BYTES = 64 * KiB;
/** Idle for so long after an fdatasync, the log is told of it by a MARK. A busy one tells it by its next record. */
const MARK_DELAY_MS = 10;

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
  readonly dataFirstBytes: number;
  readonly aheadBytes: number;
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
  readonly #queue: WriteQueue<BegunBatch>;
  #growing: GrowingSegment | undefined;
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
    this.#queue = new WriteQueue<BegunBatch>({
      write: (works, ahead) => this.#write(works, ahead),
      beginAhead: (next) =>
        this.#growing?.takesAhead === true ? this.#growing.beginAhead(batchOf(next())) : undefined,
      onLanded: input.onLanded,
    });
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

  /** Nothing is being written, and nothing has failed: not even what is there already is to be promised after that. */
  get isReady(): boolean {
    return this.#failure === undefined && this.#queue.isIdle;
  }

  /** As `append`, at once: true when they have landed; false if that is to be asked, and nothing has landed. */
  appendNow(entries: readonly BatchEntry[]): boolean {
    const growing = this.#growing;
    if (growing === undefined || !this.isReady) return false;
    const { synced } = this.#syncer;
    const startBytes = growing.segment.endBytes;
    const written = growing.writeNow(entries, { sequence: this.#sequence + 1, synced });
    if (written === undefined) return false;
    this.#recorded(growing, startBytes, synced);
    this.#changedBy(growing, written);
    this.#input.onLanded();
    return true;
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
    while (this.#queue.running !== undefined || this.#background.size > 0) {
      await Promise.all([this.#queue.running, ...this.#background]);
    }
    if (this.#failure !== undefined) throw this.#failure;
    const growing = this.#growing;
    // First, so that no MARK follows the last record while its INDEX is on its way.
    this.#growing = undefined;
    if (growing !== undefined) await this.#complete(growing, this.#sequence);
    if (this.#syncer.unsyncedSegments > 0) await this.#syncer.sync();
    const last = [...this.#input.index.segments].at(-1);
    return last && { segment: last.number, endBytes: last.endBytes, sequence: this.#sequence };
  }

  #enqueue(work: Work): Promise<void> {
    return this.#failure === undefined ? this.#queue.add(work) : Promise.reject(this.#failure);
  }

  async #write(works: readonly Work[], ahead: BegunBatch | undefined): Promise<void> {
    if (this.#failure !== undefined) {
      // Whoever asked gets the data back that is being written.
      await this.#growing?.giveUp();
      throw this.#failure;
    }
    if (works[0]?.kind === 'drop') return this.#writeDrop(works[0].dropped);
    const batch = ahead?.batch ?? batchOf(works);
    if (batch.length > 0) await this.#writeBatch(batch, ahead);
  }

  async #writeDrop(dropped: readonly Segment[]): Promise<void> {
    const growing = await this.#growingFor(0);
    const record = dropTable(dropped.map(({ number }) => number));
    const values = { kind: recordKinds.DROP, entryCount: dropped.length };
    await this.#record(growing, (stamp) => growing.append({ ...values, ...stamp }, record));
    // At once: the next segment's head must not list them.
    for (const segment of dropped) this.#input.index.forget(segment);
    this.#changed = this.#sequence;
  }

  async #writeBatch(batch: readonly BatchEntry[], ahead: BegunBatch | undefined): Promise<void> {
    const isBegun = ahead?.isVoid === false;
    const growing = isBegun ? this.#growing! : await this.#growingFor(dataBlocksOf(batch));
    const { segment } = growing;
    const startBytes = segment.endBytes;
    const written = await this.#record(growing, (stamp) => {
      const begun = isBegun ? ahead : growing.begin(batch);
      this.#queue.beginAhead();
      return growing.finish(begun, stamp);
    });
    const isSmall = segment.endBytes - startBytes <= SMALL_RECORD_BYTES;
    // Its client flushes each, as far as one can tell: what was there before is durable.
    const isFlushed = this.#changed <= this.#syncer.synced;
    if (isSmall && isFlushed) await this.#guardSegment(growing, () => growing.writeAhead());
    this.#changedBy(growing, written);
  }

  /** The last record changes the device. */
  #changedBy({ segment }: GrowingSegment, { entries, checksums }: LogEntries): void {
    const { index } = this.#input;
    index.land(segment, entries, checksums);
    index.note(segment, entries);
    this.#changed = this.#sequence;
  }

  /** Has a record written behind the last one. */
  async #record<T>(growing: GrowingSegment, write: (stamp: RecordStamp) => Promise<T>): Promise<T> {
    const { synced } = this.#syncer;
    const startBytes = growing.segment.endBytes;
    const written = await this.#guardSegment(growing, () => write({ sequence: this.#sequence + 1, synced }));
    this.#recorded(growing, startBytes, synced);
    return written;
  }

  /** A record that says that all up to `synced` is durable has landed where `segment` ended before. */
  #recorded({ segment }: GrowingSegment, startBytes: number, synced: number): void {
    this.#sequence++;
    this.#claimed = synced;
    this.#syncer.written(segment);
    this.writtenBytes += segment.endBytes - startBytes;
  }

  async #guardSegment<T>(growing: GrowingSegment, write: () => Promise<T>): Promise<T> {
    try {
      return await this.#guard(write);
    } finally {
      if (growing.abandoned && this.#growing === growing) {
        this.#growing = undefined;
        this.#input.index.complete(growing.segment);
      }
    }
  }

  /** The segment that the next record goes to, with room for `dataBlocks`. */
  async #growingFor(dataBlocks: number): Promise<GrowingSegment> {
    const last = this.#growing;
    if (last?.hasRoomFor(dataBlocks)) return last;
    if (!this.#opened) {
      await this.#guard(() => this.#input.beforeFirstRecord(), 'cannot begin to write');
      this.#opened = true;
    }
    const lastSequence = this.#sequence;
    const created = await this.#createSegment();
    this.#growing = created;
    if (last !== undefined) this.#inBackground(this.#retire(last, lastSequence));
    return created;
  }

  async #retire(growing: GrowingSegment, sequence: number): Promise<void> {
    await this.#complete(growing, sequence);
    this.#syncer.retire(growing.segment);
    if (this.#syncer.unsyncedSegments > UNSYNCED_SEGMENTS_MAX) await this.#syncer.sync();
  }

  async #complete(growing: GrowingSegment, sequence: number): Promise<void> {
    const stamp = { sequence, synced: this.#syncer.synced };
    this.writtenBytes += await this.#guard(() => growing.complete(stamp));
    this.#syncer.written(growing.segment);
  }

  async #createSegment(): Promise<GrowingSegment> {
    const { index, files, overlayKey } = this.#input;
    const number = this.#nextSegment++;
    const older = [...index.segments].map(({ number: segment, endBytes }) => ({ segment, endBytes }));
    const segment = index.addSegment(number);
    segment.entries = new WordList();
    segment.cipher = overlayKey && SegmentCipher.create(overlayKey);
    try {
      const file = await this.#guard(() => files.create(number), `cannot create ${files.pathOf(number)}`);
      this.#syncer.created();
      const created = new GrowingSegment(this.#input, segment, file);
      const values = { kind: recordKinds.SEGMENT, entryCount: older.length };
      await this.#record(created, (stamp) => created.append({ ...values, ...stamp }, segmentTable(older)));
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

  #markLater(): void {
    this.#markTimer?.refresh();
    this.#markTimer ??= setTimeout(() => {
      if (this.#queue.running === undefined && this.#failure === undefined) this.#inBackground(this.#mark());
    }, MARK_DELAY_MS).unref();
  }

  /** Tells the log what is durable, so that damage to it is not taken for the end of the log after a crash. */
  async #mark(): Promise<void> {
    const growing = this.#growing;
    if (growing === undefined || this.#syncer.synced <= this.#claimed) return;
    const values = { kind: recordKinds.MARK, entryCount: 0 };
    const mark = this.#record(growing, (stamp) => growing.append({ ...values, ...stamp }, newRecord(0)));
    // Requests that arrive meanwhile wait for it, as for any record.
    this.#queue.occupy(
      mark.catch((error: unknown) => this.#input.log.warn({ error }, 'the overlay could not note what is durable')),
    );
    await this.#queue.running;
  }

  #inBackground(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => this.#input.log.debug({ error }, 'background work of the overlay failed'))
      .finally(() => this.#background.delete(done));
    this.#background.add(done);
  }

  /** Nothing more is written after any failure but a full disk. */
  async #guard<T>(action: () => Promise<T>, what = 'cannot write to the overlay'): Promise<T> {
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

/** The changes of several requests, in the order they came. */
function batchOf(works: readonly Work[]): readonly BatchEntry[] {
  return works.length === 1 ? works[0]!.entries() : works.flatMap((work) => work.entries());
}
