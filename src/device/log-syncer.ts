/**
 * Makes the log durable. One fdatasync is under way at a time: a FLUSH waits for one that starts after it was asked for,
 * and all that wait share it. Writes go on meanwhile.
 *
 * After a failed one nothing may be called durable any more (log-writer.ts says why): its owner is told, once.
 */
import { OverlayError } from '../core/errors.ts';
import { overlayFailure } from './file-errors.ts';
import type { OverlayFile } from './file-system.ts';
import type { Segment } from './log-index.ts';
import type { SegmentFiles } from './segment-files.ts';

export interface LogSyncerInput {
  readonly files: SegmentFiles;
  /** fsync of the overlay's directory. */
  readonly syncDirectory: () => Promise<void>;
  /** Of the last record of the log; all of them are durable. */
  readonly sequence: number;
  /** Of the last record that has landed. */
  readonly landed: () => number;
  /** Throws once something has failed. */
  readonly check: () => void;
  /** Takes note of a failure; returns what those who wait for it get. */
  readonly fail: (error: OverlayError) => OverlayError;
  /** Called when everything that had landed has become durable. */
  readonly onSynced: () => void;
}

export class LogSyncer {
  readonly #input: LogSyncerInput;
  #synced: number;
  /** Segments written to since their last fdatasync began. */
  #unsynced = new Set<Segment>();
  /** Of these, complete ones: their files stay open until then, so that no error of theirs goes by unseen. */
  readonly #retired = new Set<Segment>();
  #directoryChanged = false;
  #current: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(input: LogSyncerInput) {
    this.#input = input;
    this.#synced = input.sequence;
  }

  /** Every record up to this one is durable. */
  get synced(): number {
    return this.#synced;
  }

  /** Segments that the next fdatasync is about. */
  get unsyncedSegments(): number {
    return this.#unsynced.size;
  }

  /** The segment has been written to. */
  written(segment: Segment): void {
    this.#unsynced.add(segment);
  }

  /** A file has been made. */
  created(): void {
    this.#directoryChanged = true;
  }

  /** The segment is complete: gives its file back when it is durable. */
  retire(segment: Segment): void {
    this.#retired.add(segment);
  }

  /** The segment is to be removed: nothing of it was ever acknowledged. */
  forget(segment: Segment): void {
    this.#unsynced.delete(segment);
  }

  /** Resolves when all that has landed is durable: joins an fdatasync that has not begun. */
  sync(): Promise<void> {
    if (this.#current === undefined) return this.#begin();
    this.#next ??= this.#current
      .catch(() => undefined) // Its own waiters have been told; `check` tells the next ones.
      .then(() => {
        this.#next = undefined;
        return this.#begin();
      });
    return this.#next;
  }

  #begin(): Promise<void> {
    const current = this.#syncNow().finally(() => {
      if (this.#next === undefined) this.#current = undefined;
    });
    this.#current = current;
    return current;
  }

  async #syncNow(): Promise<void> {
    const { check, landed, files, syncDirectory, fail, onSynced } = this.#input;
    check();
    const sequence = landed();
    const segments = this.#unsynced;
    const isDirectoryChanged = this.#directoryChanged;
    this.#unsynced = new Set();
    this.#directoryChanged = false;
    try {
      await this.#syncFiles(segments);
      if (isDirectoryChanged) await syncDirectory();
    } catch (cause) {
      throw fail(overlayFailure('cannot make the overlay durable', cause));
    }
    this.#synced = sequence;
    for (const segment of segments) if (this.#retired.delete(segment)) await files.release(segment.number);
    onSynced();
  }

  /**
   * One after the other: each waits for the disk in one of Node's four threads for files, and where all of them do,
   * every write and read waits, too.
   */
  async #syncFiles(segments: Iterable<Segment>): Promise<void> {
    for (const { number } of segments) await this.#input.files.use(number, syncLinked);
  }
}

/** fdatasync of a file that must still have a name: a removed one takes writes, and keeps none. */
async function syncLinked(file: OverlayFile): Promise<void> {
  await file.sync();
  if (!file.isLinked()) throw new OverlayError('a file of the overlay was removed while in use', { reason: 'io' });
}
