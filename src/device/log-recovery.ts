/**
 * Opening a log: from its files to the state of the device, and to what of the log counts.
 *
 * What is known to be durable is found first. Each record says up to which record everything was synced when it was
 * written, and closed.json says the same of a log that was closed. Records up to the highest such number (`synced`)
 * must be there; of the others a crash may have left any part. So, in order of their sequence:
 *
 *   - A record up to `synced` counts. Its data is compared with its checksums when it is read. If the record itself is
 *     unreadable, nobody can tell which blocks it changed: the overlay opens read-only and says why.
 *   - A later record counts if it and its data are intact. The first one that is not, and looks like a write that was
 *     cut off (sectors missing, log-reader.ts), ends the log: it and all behind it was never acknowledged as durable,
 *     and dropping all of it leaves the state of a prefix of the writes. What counts is synced before the overlay opens.
 *   - A later record that is broken in a way that no crash breaks it is damage too: its blocks cannot be read.
 *
 * Segments before those that have to be walked are read from their INDEX, a complete copy of their records' tables; if
 * that is unreadable the records themselves are walked.
 *
 * Nothing is changed here: `cut` and `leftovers` say what the caller should remove, and are empty for a damaged log.
 */
import { mapAhead } from '../core/concurrency.ts';
import { CorruptStoreError, exitCodes, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { OverlayFile } from './file-system.ts';
import { type BlockForm, recordBytes, recordKinds } from './log-format.ts';
import { LogIndex, type Segment } from './log-index.ts';
import { batchEntries, type LogRecord, type SegmentReader, type WalkStep } from './log-reader.ts';
import { type LogEntries, readDropTable, readIndexWords, readSegmentTable } from './log-tables.ts';
import type { SegmentCipher } from './segment-cipher.ts';
import type { SegmentFiles } from './segment-files.ts';

/** INDEX records read ahead of the one that is taken in: 1.3 MB each at most of a segment of single blocks. */
const SEGMENTS_AHEAD = 4;

/** How a closed log ended. */
export interface ClosedLog {
  readonly segment: number;
  readonly endBytes: number;
  readonly sequence: number;
}

/** The end of the log: this segment is cut off here (removed at 0), later ones are removed. */
export interface LogCut {
  readonly segment: number;
  readonly position: number;
  readonly later: readonly number[];
  /** Whether a write is lost, as far as one can tell: zeroes that were written ahead are none. */
  readonly torn: boolean;
}

export interface RecoveredLog {
  readonly index: LogIndex;
  /** Of the last record that counts. */
  readonly sequence: number;
  /** Segments whose last records count but are not known to be durable: sync them before the log is written to. */
  readonly unsynced: readonly number[];
  readonly cut: LogCut | undefined;
  /** Segments that were dropped, whose files are still there. */
  readonly leftovers: readonly number[];
  readonly nextSegment: number;
  readonly readOnlyReason: string | undefined;
}

interface Walk {
  readonly number: number;
  readonly steps: readonly WalkStep[];
}

export interface RecoveryInput {
  readonly files: SegmentFiles;
  /** Numbers of the segment files there are, ascending. */
  readonly present: readonly number[];
  readonly readerOf: (file: OverlayFile, segment: number) => Promise<SegmentReader>;
  readonly form: BlockForm;
  readonly closed: ClosedLog | undefined;
  readonly log: Log;
}

export async function recoverLog(input: RecoveryInput): Promise<RecoveredLog> {
  return new Recovery(input).run();
}

class Recovery {
  readonly #input: RecoveryInput;
  readonly #index: LogIndex;
  /** Of the segments that were read, where the log is encrypted. */
  readonly #ciphers = new Map<number, SegmentCipher>();
  readonly #damage: string[] = [];
  readonly #unsynced: number[] = [];
  /** Where the records of older segments end, as the newest readable head lists them. */
  readonly #ends = new Map<number, number>();
  #listed = false;
  /** Everything up to this record is durable. */
  #synced = 0;
  /** Last record that counts so far. */
  #sequence = 0;
  #cut: RecoveredLog['cut'];

  constructor(input: RecoveryInput) {
    this.#input = input;
    this.#index = new LogIndex(input.form);
  }

  async run(): Promise<RecoveredLog> {
    const { present, closed } = this.#input;
    const newest = present.at(-1) ?? 0;
    // A log that goes on behind its closing mark was opened by somebody who did not remove it: the log knows better.
    const usable = closed !== undefined && closed.segment >= newest ? closed : undefined;
    if (usable !== undefined) {
      this.#synced = usable.sequence;
      this.#ends.set(usable.segment, usable.endBytes);
    }
    const walks = await this.#walkNewest(usable);
    const expected = await this.#expectedSegments(walks, usable);
    await this.#applySegments(
      [...expected].sort((a, b) => a - b),
      walks,
    );
    this.#index.endRecovery();
    for (const segment of this.#index.segments) this.#index.complete(segment);
    if (usable !== undefined && this.#sequence < usable.sequence) this.#damaged('the end of the log is missing');
    const damaged = this.#damage.length > 0;
    return {
      index: this.#index,
      sequence: Math.max(this.#sequence, this.#synced),
      unsynced: this.#unsynced,
      cut: damaged ? undefined : this.#cut,
      leftovers: damaged ? [] : present.filter((number) => !expected.has(number) && number < newest),
      nextSegment: Math.max(newest, closed?.segment ?? 0) + 1,
      readOnlyReason: damaged ? this.#damage.join('; ') : undefined,
    };
  }

  /** Walks segments from the newest backwards until everything before is known to be durable. */
  async #walkNewest(closed: ClosedLog | undefined): Promise<Map<number, Walk>> {
    const walks = new Map<number, Walk>();
    if (closed !== undefined) return walks;
    const { present } = this.#input;
    for (const number of [...present].reverse()) {
      const steps = await this.#read(number, (reader) =>
        reader.walk(this.#ends.get(number) ?? Number.POSITIVE_INFINITY),
      );
      walks.set(number, { number, steps });
      for (const step of steps) {
        if (step.kind === 'record') this.#synced = Math.max(this.#synced, step.record.header.synced);
      }
      const first = steps[0];
      const head =
        first?.kind === 'record' && first.record.header.kind === recordKinds.SEGMENT ? first.record : undefined;
      if (head === undefined) continue;
      if (!this.#listed) this.#takeEnds(head);
      if (this.#synced >= head.header.sequence - 1) break;
    }
    return walks;
  }

  #takeEnds(head: LogRecord): void {
    this.#listed = true;
    for (const { segment, endBytes } of readSegmentTable(head.table, head.header.entryCount)) {
      this.#ends.set(segment, endBytes);
    }
  }

  /** The segments that must be there: those the newest head lists and does not drop, and those from it on. */
  async #expectedSegments(walks: Map<number, Walk>, closed: ClosedLog | undefined): Promise<Set<number>> {
    const { present } = this.#input;
    const expected = new Set<number>();
    if (closed !== undefined) {
      expected.add(closed.segment);
      if (present.includes(closed.segment)) {
        // A closed log is as long as its segments say, and the walk of its last one is the quickest way to its head.
        const steps = await this.#read(closed.segment, (reader) => reader.walk(closed.endBytes));
        walks.set(closed.segment, { number: closed.segment, steps });
        const first = steps[0];
        if (first?.kind === 'record' && first.record.header.kind === recordKinds.SEGMENT) this.#takeEnds(first.record);
      }
    }
    const newest = present.at(-1);
    for (const number of this.#ends.keys()) expected.add(number);
    const oldestWalked = Math.min(...walks.keys(), newest ?? 0);
    for (const number of present) if (!this.#listed || number >= oldestWalked) expected.add(number);
    for (const { steps } of walks.values()) {
      for (const step of steps) {
        if (step.kind !== 'record' || step.record.header.kind !== recordKinds.DROP) continue;
        for (const dropped of readDropTable(step.record.table, step.record.header.entryCount)) expected.delete(dropped);
      }
    }
    return expected;
  }

  /** In their order; INDEX records are read ahead of it. */
  async #applySegments(numbers: readonly number[], walks: ReadonlyMap<number, Walk>): Promise<void> {
    const present = new Set(this.#input.present);
    const read = mapAhead(numbers, SEGMENTS_AHEAD, async (number) => {
      const walk = walks.get(number);
      const broken = walk?.steps.some((step) => step.kind === 'gap') ?? true;
      const index = present.has(number) && broken ? await this.#read(number, (reader) => reader.index()) : undefined;
      return { number, walk, index };
    });
    for await (const { number, walk, index } of read) {
      if (this.#cut !== undefined) break;
      if (!present.has(number)) this.#damaged(`segment ${number} of the log is missing`);
      else await this.#applySegment(this.#index.addSegment(number), walk, index);
    }
  }

  async #applySegment(segment: Segment, walk: Walk | undefined, index: LogRecord | undefined): Promise<void> {
    const { number } = segment;
    if (index === undefined || !this.#applyIndex(segment, index)) {
      const endBytes = this.#ends.get(number) ?? Number.POSITIVE_INFINITY;
      const steps = walk?.steps ?? (await this.#read(number, (reader) => reader.walk(endBytes)));
      await this.#applyWalk(segment, steps);
    }
    segment.cipher = this.#ciphers.get(number);
  }

  /** Takes the whole segment from its INDEX, if all that lists is durable. */
  #applyIndex(segment: Segment, record: LogRecord): boolean {
    if (record.header.sequence > this.#synced) return false;
    if (record.position !== (this.#ends.get(segment.number) ?? record.position)) return false;
    this.#index.landIndex(segment, readIndexWords(record.table, record.header.entryCount, record.header.detail));
    segment.endBytes = record.position;
    this.#sequence = Math.max(this.#sequence, record.header.sequence);
    return true;
  }

  async #applyWalk(segment: Segment, steps: readonly WalkStep[]): Promise<void> {
    const isUnsynced = (step: WalkStep) => step.kind === 'record' && step.record.header.sequence > this.#synced;
    if (!steps.some(isUnsynced)) return this.#applySteps(segment, steps, undefined);
    // One reader for all: the records' data lies side by side.
    await this.#read(segment.number, (reader) => this.#applySteps(segment, steps, reader));
  }

  /** `reader`: where there are records that are not known to be durable. */
  async #applySteps(segment: Segment, steps: readonly WalkStep[], reader: SegmentReader | undefined): Promise<void> {
    let unsynced = false;
    for (const step of steps) {
      if (step.kind === 'gap') {
        const durable = this.#synced > this.#sequence;
        if (!durable && step.torn) return this.#endLog(segment, step.position, { torn: !step.zeroes });
        this.#damaged(`a record at byte ${step.position} of ${this.#input.files.pathOf(segment.number)} is unreadable`);
        continue;
      }
      const { record } = step;
      const { sequence } = record.header;
      if (sequence > this.#synced) {
        const isBatch = record.header.kind === recordKinds.BATCH;
        const verdict = isBatch ? await reader!.checkData(record) : 'intact';
        // Records behind a lost one do not count: what they build on is not there.
        const follows = sequence === Math.max(this.#sequence, this.#synced) + 1;
        if (verdict === 'torn' || !follows) return this.#endLog(segment, record.position, { torn: true });
        if (verdict === 'damaged') this.#noteDamagedData(segment, record);
        if (!unsynced) this.#unsynced.push(segment.number);
        unsynced = true;
      }
      if (record.header.kind === recordKinds.BATCH)
        this.#land(segment, batchEntries(record, this.#input.form.blockBytes));
      segment.endBytes = record.position + recordBytes(record.header, this.#input.form.blockBytes);
      this.#sequence = Math.max(this.#sequence, sequence);
    }
  }

  /** Its blocks fail to be read, each by its checksum; the rest of the overlay is as good as before. */
  #noteDamagedData(segment: Segment, { position }: LogRecord): void {
    segment.damaged = true;
    const path = this.#input.files.pathOf(segment.number);
    this.#input.log.error({ path, position }, 'data in the overlay is damaged; its blocks cannot be read');
  }

  #endLog(segment: Segment, position: number, { torn }: { readonly torn: boolean }): void {
    const later = this.#input.present.filter((number) => number > segment.number);
    this.#cut = { segment: segment.number, position, later, torn: torn || later.length > 0 };
    segment.endBytes = position;
    if (position === 0) this.#index.forget(segment);
  }

  #land(segment: Segment, { entries, checksums }: LogEntries): void {
    this.#index.land(segment, entries, checksums);
  }

  #damaged(what: string): void {
    this.#damage.push(what);
    this.#input.log.error({ damage: what }, 'the overlay is damaged');
  }

  async #read<T>(number: number, action: (reader: SegmentReader) => Promise<T>): Promise<T> {
    const { files, readerOf } = this.#input;
    try {
      return await files.use(number, async (file) => {
        const reader = await readerOf(file, number);
        const result = await action(reader);
        if (reader.cipher !== undefined) this.#ciphers.set(number, reader.cipher);
        return result;
      });
    } catch (cause) {
      if (cause instanceof CorruptStoreError) throw cause;
      const message = `cannot read ${files.pathOf(number)}: ${cause instanceof Error ? cause.message : cause}`;
      throw new UserError(message, { cause, exitCode: exitCodes.failure });
    }
  }
}
