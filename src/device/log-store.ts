/** The durable block store: an index in memory over a log in a directory. log-format.ts describes the log. */
import type { KeyObject } from 'node:crypto';
import { OverlayError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import type { BlockStore, Change, FrozenBlocks, OverlayStats } from './block-store.ts';
import { overlayFailure } from './file-errors.ts';
import type { OverlayFile } from './file-system.ts';
import { LogCompactor } from './log-compactor.ts';
import type { LogIndex, Segment } from './log-index.ts';
import type { SegmentReader } from './log-reader.ts';
import type { ClosedLog, RecoveredLog } from './log-recovery.ts';
import type { BatchEntry } from './log-tables.ts';
import { LogWriter } from './log-writer.ts';
import { SEALED_BLOCK_BYTES } from './segment-cipher.ts';
import type { SegmentFiles } from './segment-files.ts';
import { withoutUnchanged, withoutUnchangedNow } from './unchanged-blocks.ts';
import { UseEpochs } from './use-epochs.ts';

export interface LogStoreInput {
  readonly recovered: RecoveredLog;
  readonly files: SegmentFiles;
  readonly overlayId: bigint;
  /** Undefined for a log that is not encrypted. */
  readonly overlayKey: KeyObject | undefined;
  readonly readerOf: (file: OverlayFile, segment: number) => Promise<SegmentReader>;
  readonly segmentBytes: number;
  readonly dataFirstBytes: number;
  readonly aheadBytes: number;
  readonly syncDirectory: () => Promise<void>;
  /** Removes the mark that the log is closed, durably. */
  readonly markOpen: () => Promise<void>;
  /** Writes that mark, durably. */
  readonly markClosed: (end: ClosedLog) => Promise<void>;
  readonly log: Log;
}

/** Consecutive blocks of one file. */
interface Extent {
  readonly segment: Segment;
  readonly ordinal: number;
  readonly count: number;
  readonly position: number;
}

export class LogStore implements BlockStore {
  readonly readOnlyReason: string | undefined;
  readonly #input: LogStoreInput;
  readonly #index: LogIndex;
  readonly #writer: LogWriter;
  readonly #compactor: LogCompactor;
  readonly #epochs = new UseEpochs();
  #acknowledgedBytes = 0;
  /** A block as it is stored, between reading and opening it at once. */
  readonly #sealedBlock = Buffer.allocUnsafe(SEALED_BLOCK_BYTES);

  constructor(input: LogStoreInput) {
    const { recovered, files, overlayId, log } = input;
    this.#input = input;
    this.#index = recovered.index;
    this.readOnlyReason = recovered.readOnlyReason;
    this.#writer = new LogWriter({
      index: this.#index,
      files,
      overlayId,
      overlayKey: input.overlayKey,
      sequence: recovered.sequence,
      nextSegment: recovered.nextSegment,
      segmentBytes: input.segmentBytes,
      dataFirstBytes: input.dataFirstBytes,
      aheadBytes: input.aheadBytes,
      syncDirectory: input.syncDirectory,
      beforeFirstRecord: input.markOpen,
      onLanded: () => this.#compactor.poke('landed'),
      onSynced: () => this.#compactor.poke('synced'),
      log,
    });
    this.#compactor = new LogCompactor({
      index: this.#index,
      files,
      writer: this.#writer,
      epochs: this.#epochs,
      readerOf: input.readerOf,
      segmentBytes: input.segmentBytes,
      acknowledgedBytes: () => this.#acknowledgedBytes,
      readBlocks: (first, value, target) => this.read({ first, value }, 0, target),
      log,
    });
  }

  get map() {
    return this.#index.map;
  }

  async apply(changes: readonly Change[]): Promise<void> {
    if (this.readOnlyReason !== undefined) {
      throw new OverlayError(`the overlay is read-only: ${this.readOnlyReason}`, { reason: 'damaged' });
    }
    const news = await withoutUnchanged(changes, this.#index, (block, value, target) =>
      this.read({ first: block, value }, 0, target),
    );
    // After a failed fdatasync what equals it may be lost: the writer refuses that as it refuses all else.
    if (news.length > 0 || this.#writer.failure !== undefined) await this.#append(news);
    this.#acknowledged(changes);
  }

  applyNow(changes: readonly Change[]): boolean {
    if (this.readOnlyReason !== undefined || !this.#writer.isReady) return false;
    const news = withoutUnchangedNow(changes, this.#index, (block, value, target) =>
      this.#readBlockNow(block, value, target),
    );
    if (news === undefined || (news.length > 0 && !this.#writer.appendNow(news))) return false;
    this.#acknowledged(changes);
    return true;
  }

  #acknowledged(changes: readonly Change[]): void {
    for (const { data } of changes) this.#acknowledgedBytes += data?.length ?? 0;
  }

  async #append(news: readonly BatchEntry[]): Promise<void> {
    try {
      await this.#writer.append(news);
    } catch (error) {
      // Dead segments that wait for a FLUSH are room, and whoever waits for room may never FLUSH.
      if (error instanceof OverlayError && error.reason === 'full') this.#compactor.poke('short');
      throw error;
    }
  }

  async read(
    { first, value }: { readonly first: number; readonly value: number },
    skip: number,
    target: Uint8Array,
  ): Promise<void> {
    const epoch = this.#epochs.enter();
    try {
      const skipBlocks = Math.floor(skip / BLOCK_SIZE);
      const within = skip % BLOCK_SIZE;
      const block = first + skipBlocks;
      if (within === 0 && target.length % BLOCK_SIZE === 0) {
        await this.#readBlocks(block, value + skipBlocks, target);
        return;
      }
      // Checksums are of whole blocks.
      const whole = Buffer.allocUnsafe(Math.ceil((within + target.length) / BLOCK_SIZE) * BLOCK_SIZE);
      await this.#readBlocks(block, value + skipBlocks, whole);
      target.set(whole.subarray(within, within + target.length));
    } finally {
      this.#epochs.leave(epoch);
    }
  }

  flush(): Promise<void> {
    return this.#writer.flush();
  }

  stats(): OverlayStats {
    const { map } = this.#index;
    return {
      dirtyBytes: (map.dataBlocks + map.zeroBlocks) * BLOCK_SIZE,
      zeroBytes: map.zeroBlocks * BLOCK_SIZE,
      storedBytes: this.usedBytes,
      memoryBytes: 0,
      acknowledgedBytes: this.#acknowledgedBytes,
      writtenBytes: this.#writer.writtenBytes,
    };
  }

  get usedBytes(): number {
    return this.#index.storedBytes;
  }

  /** A log only grows: what is replaced comes free later, if at all. */
  roomFor(changes: readonly Change[]): number {
    return changes.reduce((bytes, { data }) => bytes + (data?.length ?? 0), 0);
  }

  /** No segment is removed, and no place given away, while a request of an epoch is under way: this is a long one. */
  freeze(): FrozenBlocks {
    const epoch = this.#epochs.enter();
    let held = true;
    const written = [...this.#index.segments].filter(({ endBytes }) => endBytes > 0);
    return {
      map: this.map.copy(),
      segments: written.map(({ number, endBytes, complete }) => ({ number, endBytes, complete })),
      sequence: this.#writer.sequence,
      release: () => {
        if (held) this.#epochs.leave(epoch);
        held = false;
      },
    };
  }

  makeRoom(how: 'removing' | 'moving'): void {
    if (how === 'moving') this.#compactor.press();
    else this.#compactor.poke('short');
  }

  async close(): Promise<void> {
    const { files } = this.#input;
    try {
      await this.#compactor.stop();
      if (this.readOnlyReason !== undefined) return;
      const end = await this.#writer.close();
      if (end !== undefined) await this.#markClosed(end);
    } catch (error) {
      throw overlayFailure('the overlay was not closed cleanly', error);
    } finally {
      await files.closeAll();
    }
  }

  /** Everything is durable already: without the mark the next opening reads the end of the log as after a crash. */
  async #markClosed(end: ClosedLog): Promise<void> {
    try {
      await this.#input.markClosed(end);
    } catch (error) {
      this.#input.log.warn({ error }, 'the overlay could not be marked as closed');
    }
  }

  async #readBlocks(first: number, value: number, target: Uint8Array): Promise<void> {
    const { segment, ordinal } = this.#index.locate(value);
    const reads: Promise<void>[] = [];
    let block = first;
    for (const extent of extentsOf(segment, ordinal, target.length / BLOCK_SIZE, this.#index.blockBytes)) {
      const from = (block - first) * BLOCK_SIZE;
      reads.push(this.#readExtent(block, extent, target.subarray(from, from + extent.count * BLOCK_SIZE)));
      block += extent.count;
    }
    for (const result of await Promise.allSettled(reads)) if (result.status === 'rejected') throw result.reason;
  }

  async #readExtent(first: number, extent: Extent, target: Uint8Array): Promise<void> {
    const { segment, position } = extent;
    const { files } = this.#input;
    const stored = segment.cipher === undefined ? target : Buffer.allocUnsafe(extent.count * this.#index.blockBytes);
    let got: number;
    try {
      got = await files.use(segment.number, (file) => file.read(stored, position, { isRecent: !segment.complete }));
    } catch (cause) {
      throw overlayFailure(`cannot read ${files.pathOf(segment.number)}`, cause);
    }
    const damaged = this.#openExtent(first, extent, stored.subarray(0, got), target);
    if (damaged !== undefined) throw damaged;
  }

  /** A block that was written lately, if its file is at hand. */
  #readBlockNow(block: number, value: number, target: Uint8Array): boolean {
    const { segment, ordinal } = this.#index.locate(value);
    const extent = { segment, ordinal, count: 1, position: segment.positions.at(ordinal) };
    const stored = segment.cipher === undefined ? target : this.#sealedBlock;
    if (segment.complete || this.#input.files.held(segment.number)?.readNow?.(stored, extent.position) !== true)
      return false;
    return this.#openExtent(block, extent, stored, target) === undefined;
  }

  /** From what is stored of an extent to its blocks in `target`; why not, if they are not what was written. */
  #openExtent(first: number, extent: Extent, stored: Uint8Array, target: Uint8Array): OverlayError | undefined {
    const { segment, ordinal, count, position } = extent;
    const { blockBytes } = this.#index;
    const there = Math.floor(stored.length / blockBytes);
    const opened = segment.cipher?.openBlocks(first, position, stored.subarray(0, there * blockBytes), target);
    const checksums = this.#index.checksumsOf(first, target);
    for (let at = 0; at < count; at++) {
      const isThere = opened === undefined ? at < there : opened[at] === true;
      if (isThere && checksums[at] === segment.checksums.at(ordinal + at)) continue;
      const place = position + at * blockBytes;
      const path = this.#input.files.pathOf(segment.number);
      return new OverlayError(`block ${first + at} of the overlay is damaged (byte ${place} of ${path})`, {
        reason: 'damaged',
        details: { block: first + at, path, position: place },
      });
    }
    return undefined;
  }
}

function extentsOf(segment: Segment, ordinal: number, count: number, blockBytes: number): Extent[] {
  const { positions } = segment;
  const extents: Extent[] = [];
  for (let at = 0; at < count; ) {
    const position = positions.at(ordinal + at);
    let length = 1;
    while (at + length < count && positions.at(ordinal + at + length) === position + length * blockBytes) length++;
    extents.push({ segment, ordinal: ordinal + at, count: length, position });
    at += length;
  }
  return extents;
}
