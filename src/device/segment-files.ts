import { join } from 'node:path';
import { errorCode, type OverlayFile, type OverlayFileSystem } from './file-system.ts';
import { segmentFileName } from './log-format.ts';

/** Files kept open at a time beyond those in use. A TiB of log is 32,768 segments, and a server serves many overlays. */
const IDLE_FILES_MAX = 32;

/** Codes that mean: not for writing. */
const readOnlyCodes: ReadonlySet<string | undefined> = new Set(['EROFS', 'EACCES', 'EPERM']);

interface Opened {
  readonly file: Promise<OverlayFile>;
  /** The same, of one that `create` holds. */
  readonly held: OverlayFile | undefined;
  users: number;
}

/** The open files of an overlay's segments: opened when needed, the least recently used closed. */
export class SegmentFiles {
  readonly #directory: string;
  readonly #fileSystem: OverlayFileSystem;
  /** Least recently used first. */
  readonly #opened = new Map<number, Opened>();

  constructor(directory: string, fileSystem: OverlayFileSystem) {
    this.#directory = directory;
    this.#fileSystem = fileSystem;
  }

  pathOf(segment: number): string {
    return join(this.#directory, segmentFileName(segment));
  }

  /** Makes the file of a new segment and keeps it open until `release`. */
  async create(segment: number): Promise<OverlayFile> {
    const file = await this.#fileSystem.open(this.pathOf(segment), 'create');
    this.#opened.set(segment, { file: Promise.resolve(file), held: file, users: 1 });
    return file;
  }

  /** The file of a segment that `create` made and that is still held, for use within this turn. */
  held(segment: number): OverlayFile | undefined {
    return this.#opened.get(segment)?.held;
  }

  /** Calls `action` with the segment's file, which stays open meanwhile. */
  async use<T>(segment: number, action: (file: OverlayFile) => Promise<T>): Promise<T> {
    const opened = this.#opened.get(segment) ?? {
      file: this.#open(segment),
      held: undefined,
      users: 0,
    };
    opened.users++;
    this.#opened.delete(segment);
    this.#opened.set(segment, opened);
    try {
      return await action(await opened.file);
    } finally {
      await this.#letGo(opened);
    }
  }

  /** Gives back what `create` holds. */
  async release(segment: number): Promise<void> {
    const opened = this.#opened.get(segment);
    if (opened !== undefined) await this.#letGo(opened);
  }

  /** One user less. A promise only where idle files have to be closed for it. */
  #letGo(opened: Opened): Promise<void> | undefined {
    opened.users--;
    const excess = this.#opened.size - IDLE_FILES_MAX;
    return excess > 0 ? this.#closeIdle(excess) : undefined;
  }

  /** Closes and removes the file of a segment that nobody uses. */
  async remove(segment: number): Promise<void> {
    const opened = this.#opened.get(segment);
    this.#opened.delete(segment);
    if (opened !== undefined) await closeQuietly(opened);
    await this.#fileSystem.remove(this.pathOf(segment));
  }

  async closeAll(): Promise<void> {
    const all = [...this.#opened.values()];
    this.#opened.clear();
    await Promise.all(all.map(closeQuietly));
  }

  /** A file system that has become read-only still has the blocks. */
  async #open(segment: number): Promise<OverlayFile> {
    const path = this.pathOf(segment);
    try {
      return await this.#fileSystem.open(path, 'write');
    } catch (error) {
      if (!readOnlyCodes.has(errorCode(error))) throw error;
      return this.#fileSystem.open(path, 'read');
    }
  }

  async #closeIdle(wanted: number): Promise<void> {
    const idle: Opened[] = [];
    for (const [segment, opened] of this.#opened) {
      if (idle.length === wanted) break;
      if (opened.users > 0) continue;
      this.#opened.delete(segment);
      idle.push(opened);
    }
    await Promise.all(idle.map(closeQuietly));
  }
}

/** A file that could not be opened is already somebody's error, and one that does not close has nothing left to lose: it was synced. */
async function closeQuietly({ file }: Opened): Promise<void> {
  await file.then((opened) => opened.close()).catch(() => undefined);
}
