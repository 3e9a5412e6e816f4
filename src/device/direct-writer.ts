/**
 * Writes of a log's large data past the page cache (O_DIRECT). Data that is written once and hardly read again is not worth
 * a copy there: it takes more time than the disk does, the more so where memory has to be found for it.
 *
 * The kernel keeps both ways of writing one file consistent, page by page; data and records share no page.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { KiB } from '../core/units.ts';

/** Below this a round trip to the disk takes longer than the copy. */
const DIRECT_BYTES_MIN = 256 * KiB;

export class DirectWriter {
  readonly #path: string;
  #handle: Promise<FileHandle | undefined> | undefined;
  #isPossible = constants.O_DIRECT !== undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * False if they are to be written otherwise: few bytes, a file system that cannot, or one that took only a part of them.
   * Rejects with Node's errors.
   */
  async write(buffers: readonly Uint8Array[], position: number): Promise<boolean> {
    const total = buffers.reduce((bytes, { length }) => bytes + length, 0);
    if (!this.#isPossible || total < DIRECT_BYTES_MIN) return false;
    this.#handle ??= this.#open();
    const handle = await this.#handle;
    if (handle === undefined) return false;
    try {
      const { bytesWritten } = await handle.writev([...buffers], position);
      return bytesWritten === total;
    } catch (error) {
      // It asks for more than we know of.
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      this.#isPossible = false;
      return false;
    }
  }

  async close(): Promise<void> {
    await (await this.#handle)?.close();
  }

  async #open(): Promise<FileHandle | undefined> {
    try {
      return await open(this.#path, constants.O_WRONLY | constants.O_DIRECT);
    } catch {
      // A file system without O_DIRECT, or no descriptor left: the page cache takes everything.
      this.#isPossible = false;
      return undefined;
    }
  }
}
