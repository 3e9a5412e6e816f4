/**
 * Gives space back: removes segments that nothing needs any more, and empties mostly dead ones by moving what is alive
 * to the end of the log.
 *
 * Bounded by what it writes: moved bytes stay below MOVED_SHARE of the bytes clients have written, so that all writing
 * together stays below 1.3 times theirs. Emptiest segments first: they give most space for least moving. One segment at
 * a time, a chunk at a time, behind the clients' requests.
 *
 * A segment's file is removed only when everything that replaced its content is durable, the log durably says that it
 * is not needed, and no request may still know a place in it.
 */
import type { Log } from '../core/log.ts';
import { BLOCK_SIZE, MiB } from '../core/units.ts';
import type { OverlayFile } from './file-system.ts';
import { recordKinds } from './log-format.ts';
import type { LogIndex, Segment } from './log-index.ts';
import { batchEntries, type SegmentReader } from './log-reader.ts';
import { type BatchEntry, indexEntries, type LogEntry, readIndexWords } from './log-tables.ts';
import type { LogWriter } from './log-writer.ts';
import type { SegmentFiles } from './segment-files.ts';
import type { UseEpochs } from './use-epochs.ts';

const MOVED_SHARE = 0.25;
/** Segments with more than this share of live bytes stay: moving them would give little. */
const LIVE_SHARE_MAX = 0.8;
/** While writes wait for space. Above it a move needs as much room as it gives. */
const PRESSED_LIVE_SHARE_MAX = 0.9;
/** Nothing is moved while the dead bytes are fewer than half a segment, or than a seventh of the live ones. */
const DEAD_SEGMENTS_MIN = 0.5;
const DEAD_SHARE_MIN = 1 / 7;
/** Dead segments are removed behind an fdatasync; so many, 256 MiB, are worth one that nobody asked for. */
const DEAD_SEGMENTS_UNSYNCED_MAX = 8;
/** Segments are looked at again when clients have written this part of one. */
const LOOK_SEGMENTS = 1 / 8;
const MOVE_BLOCKS = (1 * MiB) / BLOCK_SIZE;

/** Blocks that were alive in a segment when it was looked at; `value` is their place, as the block map has it. */
interface Live {
  readonly block: number;
  readonly count: number;
  readonly value: number;
  readonly isData: boolean;
}

export interface LogCompactorInput {
  readonly index: LogIndex;
  readonly files: SegmentFiles;
  readonly writer: LogWriter;
  readonly epochs: UseEpochs;
  readonly readerOf: (file: OverlayFile, segment: number) => Promise<SegmentReader>;
  readonly segmentBytes: number;
  /** Bytes of data that clients have written since the overlay was opened. */
  readonly acknowledgedBytes: () => number;
  /** Reads and checks blocks at a place. */
  readonly readBlocks: (first: number, value: number, target: Uint8Array) => Promise<void>;
  readonly log: Log;
}

export class LogCompactor {
  readonly #input: LogCompactorInput;
  #running: Promise<void> | undefined;
  /** While it runs: dead segments that are worth what removing them costs. */
  #deadMin = 1;
  #removals: Promise<void> = Promise.resolve();
  #stopped = false;
  /** Somebody waits for space: every segment with dead blocks is worth moving. */
  #pressed = false;
  #movedBytes = 0;
  /** What clients had written when segments were last looked at. */
  #bytesLooked = 0;

  constructor(input: LogCompactorInput) {
    this.#input = input;
  }

  /** To be called when a record has landed, when all are synced, and when space is short; costs nothing if there is nothing to do. */
  poke(why: 'landed' | 'synced' | 'short'): void {
    const { acknowledgedBytes, index } = this.#input;
    if (this.#running !== undefined && why === 'short') this.#deadMin = 1;
    if (this.#running !== undefined || this.#stopped) return;
    const grown = this.#pressed || acknowledgedBytes() - this.#bytesLooked >= this.#input.segmentBytes * LOOK_SEGMENTS;
    const deadMin = why === 'landed' && !this.#pressed ? DEAD_SEGMENTS_UNSYNCED_MAX : 1;
    if (index.dead.size < deadMin && !grown) return;
    this.#bytesLooked = acknowledgedBytes();
    this.#deadMin = deadMin;
    this.#running = this.#run()
      .catch((error: unknown) => this.#input.log.warn({ error }, 'space of the overlay could not be given back'))
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** A limit is reached: empties segments that would not be worth it otherwise, as far as what may be moved allows. */
  press(): void {
    this.#pressed = true;
    this.poke('landed');
  }

  /** Stops after the step that is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#removals;
  }

  async #run(): Promise<void> {
    while (!this.#stopped && this.#input.writer.failure === undefined) {
      if (this.#input.index.dead.size >= this.#deadMin) {
        await this.#removeDead();
        continue;
      }
      const victim = this.#pickVictim();
      if (victim === undefined) {
        this.#pressed = false;
        return;
      }
      await this.#empty(victim);
    }
  }

  #pickVictim(): Segment | undefined {
    const { index, acknowledgedBytes } = this.#input;
    let victim: Segment | undefined;
    let live = 0;
    let dead = 0;
    const share = ({ liveBytes, endBytes }: Segment) => liveBytes / endBytes;
    for (const segment of index.segments) {
      live += segment.liveBytes;
      if (!segment.complete || segment.damaged || segment.dead) continue;
      dead += segment.deadBytes;
      if (victim === undefined || share(segment) < share(victim)) victim = segment;
    }
    if (victim === undefined) return undefined;
    const worthIt = this.#pressed ? PRESSED_LIVE_SHARE_MAX : LIVE_SHARE_MAX;
    const enough =
      this.#pressed || dead >= Math.max(this.#input.segmentBytes * DEAD_SEGMENTS_MIN, live * DEAD_SHARE_MIN);
    if (share(victim) > worthIt || !enough) return undefined;
    const allowed = acknowledgedBytes() * MOVED_SHARE - this.#movedBytes;
    return victim.liveBytes <= allowed ? victim : undefined;
  }

  async #removeDead(): Promise<void> {
    const { index, writer, epochs } = this.#input;
    const dead = [...index.dead];
    await writer.flush();
    await writer.drop(dead);
    await writer.flush();
    for (const segment of dead) {
      epochs.retire(() => {
        index.freeRow(segment);
        this.#removals = this.#removals.then(() => this.#removeFile(segment));
      });
    }
  }

  async #removeFile({ number }: Segment): Promise<void> {
    const { files, log } = this.#input;
    try {
      await files.remove(number);
      log.debug({ segment: number }, 'a segment of the overlay was removed');
    } catch (error) {
      log.warn(
        { error, segment: number },
        'a segment that is not needed could not be removed; the next opening tries again',
      );
    }
  }

  async #empty(segment: Segment): Promise<void> {
    const { log, writer } = this.#input;
    try {
      for (const live of await this.#liveBlocks(segment)) {
        if (this.#stopped) return;
        await this.#move(live);
      }
    } catch (error) {
      if (writer.failure !== undefined) throw error;
      // A full disk passes; damage does not, and neither is worth trying again and again.
      segment.damaged = true;
      log.warn({ error, segment: segment.number }, 'a segment of the overlay stays: its blocks could not be moved');
    }
    if (!segment.dead && !this.#stopped) segment.damaged = true;
  }

  async #move(live: Live): Promise<void> {
    const { index, readBlocks, writer } = this.#input;
    const { block, count, value, isData } = live;
    if (!isData) return writer.move(() => stillThere(index, live, undefined));
    for (let done = 0; done < count; done += MOVE_BLOCKS) {
      const part = { block: block + done, count: Math.min(MOVE_BLOCKS, count - done), value: value + done, isData };
      if (stillThere(index, part, undefined).length === 0) continue;
      const data = Buffer.allocUnsafe(part.count * BLOCK_SIZE);
      await readBlocks(part.block, part.value, data);
      await writer.move(() => stillThere(index, part, data));
      this.#movedBytes += data.length;
    }
  }

  /** What of the segment's entries the block map still leads to. */
  async #liveBlocks(segment: Segment): Promise<Live[]> {
    const { index } = this.#input;
    const live: Live[] = [];
    let ordinal = 0;
    for (const { block, count, position } of await this.#entriesOf(segment)) {
      const isData = position !== undefined;
      const value = index.valueOf(segment, isData ? ordinal : undefined);
      if (isData) ordinal += count;
      for (const part of stillThere(index, { block, count, value, isData }, undefined)) {
        live.push({ ...part, value: isData ? value + part.block - block : value, isData });
      }
    }
    return live;
  }

  async #entriesOf({ number, endBytes }: Segment): Promise<readonly LogEntry[]> {
    const { files, readerOf } = this.#input;
    return files.use(number, async (file) => {
      const reader = await readerOf(file, number);
      const record = await reader.index();
      if (record?.position === endBytes) {
        return indexEntries(readIndexWords(record.table, record.header.entryCount, record.header.detail));
      }
      const steps = await reader.walk(endBytes);
      return steps.flatMap((step) =>
        step.kind === 'record' && step.record.header.kind === recordKinds.BATCH
          ? batchEntries(step.record, this.#input.index.blockBytes).entries
          : [],
      );
    });
  }
}

/** The parts of `live` that are still where they were, with their share of `data`. */
function stillThere(
  { map }: LogIndex,
  { block, count, value, isData }: Live,
  data: Uint8Array | undefined,
): BatchEntry[] {
  const parts: BatchEntry[] = [];
  const end = block + count;
  for (let at = block; at < end; ) {
    const run = map.runAt(at, end);
    if (run.value === (isData ? value + at - block : value)) {
      const from = (at - block) * BLOCK_SIZE;
      parts.push({ block: at, count: run.count, data: data?.subarray(from, from + run.count * BLOCK_SIZE) });
    }
    at += run.count;
  }
  return parts;
}
