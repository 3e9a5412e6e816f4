import { LRUCache } from 'lru-cache';
import type { SealedReader } from './sealed-reader.ts';

interface Opened {
  readonly reader: Promise<SealedReader | undefined>;
  /** The same once it is there. */
  known: SealedReader | undefined;
  /** Reads under way. */
  users: number;
  /** No longer kept: closed by the last who reads. */
  isDropped: boolean;
}

/** Open sealed files by path, those used last kept open; a bounded number beside those that are being read. */
export class OpenReaders {
  readonly #kept: LRUCache<string, Opened>;
  readonly #closing = new Set<Promise<void>>();

  constructor(openMax: number) {
    this.#kept = new LRUCache({ max: openMax, dispose: (opened) => this.#drop(opened) });
  }

  /** Calls `read` with the file, which `open` opens unless it is; with undefined if that finds none. */
  async with<T>(
    path: string,
    open: () => Promise<SealedReader | undefined>,
    read: (reader: SealedReader | undefined) => Promise<T>,
  ): Promise<T> {
    const opened = this.#kept.get(path) ?? this.#open(path, open);
    opened.users++;
    try {
      const reader = await opened.reader;
      // What is not there now may be there the next time.
      if (reader === undefined) this.#forget(path, opened);
      return await read(reader);
    } catch (error) {
      this.#forget(path, opened);
      throw error;
    } finally {
      if (--opened.users === 0 && opened.isDropped) this.#close(opened);
    }
  }

  /**
   * The file for use in this turn, which `open` opens unless it is. Undefined if that finds none, or while `with` is opening
   * it.
   */
  now(path: string, open: () => SealedReader | undefined): SealedReader | undefined {
    const kept = this.#kept.get(path);
    if (kept !== undefined) return kept.known;
    const known = open();
    if (known === undefined) return undefined;
    this.#kept.set(path, { reader: Promise.resolve(known), known, users: 0, isDropped: false });
    return known;
  }

  /** Closes the file, which is not what it should be. */
  forget(path: string): void {
    this.#kept.delete(path);
  }

  /** Closes all files that nobody reads, now and whenever the last read ends. */
  async close(): Promise<void> {
    this.#kept.clear();
    await Promise.allSettled(this.#closing);
  }

  #open(path: string, open: () => Promise<SealedReader | undefined>): Opened {
    const opened: Opened = { reader: open(), known: undefined, users: 0, isDropped: false };
    opened.reader.then(
      (known) => {
        opened.known = known;
      },
      () => {}, // Whoever reads is told.
    );
    this.#kept.set(path, opened);
    return opened;
  }

  #forget(path: string, opened: Opened): void {
    if (this.#kept.peek(path) === opened) this.#kept.delete(path);
  }

  #drop(opened: Opened): void {
    opened.isDropped = true;
    if (opened.users === 0) this.#close(opened);
  }

  #close({ reader }: Opened): void {
    const closing = reader.then(
      (each) => each?.close().catch(() => undefined),
      () => undefined,
    );
    this.#closing.add(closing);
    closing.finally(() => this.#closing.delete(closing));
  }
}
