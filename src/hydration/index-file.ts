import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { UnsupportedError, UserError } from '../core/errors.ts';
import { errorCode, type OverlayFile, type OverlayFileSystem } from '../device/file-system.ts';
import {
  decodeHeader,
  decodeRecord,
  type HydratedBlob,
  type HydratedSnapshot,
  INDEX_KEY_PURPOSE,
  indexHeader,
  isSealed,
  isWhole,
  RECORD_BYTES,
} from './format.ts';
import { RECORDS_AT_ONCE } from './limits.ts';

export const INDEX_NAME = 'index';

/** Whole records as they are read; their byte strings are views, gone with the window. */
export interface RecordVisitor {
  blob(record: number, blob: HydratedBlob): void;
  /** Sealed with the index's key. */
  snapshot(snapshot: HydratedSnapshot): void;
}

/** The index for reading: records by number. */
export class IndexFile {
  readonly key: KeyObject;
  readonly #file: OverlayFile;

  private constructor(file: OverlayFile, key: KeyObject) {
    this.#file = file;
    this.key = key;
  }

  /** Undefined if there is none. Rejects with UserError for one that cannot be used. */
  static async open(
    directory: string,
    fileSystem: OverlayFileSystem,
    fileKey: (purpose: string, salt: Uint8Array) => KeyObject,
  ): Promise<IndexFile | undefined> {
    const path = join(directory, INDEX_NAME);
    let file: OverlayFile;
    try {
      file = await fileSystem.open(path, 'read');
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    try {
      const header = new Uint8Array(indexHeader.sizeBytes);
      const read = await file.read(header, 0);
      const salt = decodeHeader(header.subarray(0, read));
      return new IndexFile(file, fileKey(INDEX_KEY_PURPOSE, salt));
    } catch (error) {
      await file.close();
      const advice = error instanceof UnsupportedError ? '' : '. Remove the directory to hydrate anew';
      throw new UserError(`${path} cannot be used: ${(error as Error).message}${advice}`, { cause: error });
    }
  }

  /**
   * Reads the records from number `first` on, and calls `settle` after each window of them. Resolves to the number behind the last whole one, and how many before that are
   * damaged.
   */
  async readFrom(
    first: number,
    visitor: RecordVisitor,
    settle: () => Promise<void>,
  ): Promise<{ readonly end: number; readonly damaged: number }> {
    const window = new Uint8Array(RECORDS_AT_ONCE * RECORD_BYTES);
    let end = first;
    let damaged = 0;
    let damagedSinceEnd = 0;
    for (let at = first; ; ) {
      const records = Math.floor((await this.#file.read(window, positionOf(at))) / RECORD_BYTES);
      for (let i = 0; i < records; i++) {
        if (!this.#visit(at + i, window.subarray(i * RECORD_BYTES, (i + 1) * RECORD_BYTES), visitor)) {
          damagedSinceEnd++;
          continue;
        }
        end = at + i + 1;
        damaged += damagedSinceEnd;
        damagedSinceEnd = 0;
      }
      await settle();
      if (records < RECORDS_AT_ONCE) return { end, damaged };
      at += records;
    }
  }

  #visit(number: number, record: Uint8Array, visitor: RecordVisitor): boolean {
    if (!isWhole(record)) return false;
    const decoded = decodeRecord(record);
    if (decoded === undefined) return true;
    if ('blob' in decoded) visitor.blob(number, decoded.blob);
    else if (isSealed(record, this.key)) visitor.snapshot(decoded.snapshot);
    return true;
  }

  /** The blob of a record; undefined if the record is not whole, of another kind, or not sealed with this index's key. */
  async readBlob(number: number): Promise<HydratedBlob | undefined> {
    const record = new Uint8Array(RECORD_BYTES);
    if ((await this.#file.read(record, positionOf(number))) < RECORD_BYTES) return undefined;
    if (!isWhole(record) || !isSealed(record, this.key)) return undefined;
    const decoded = decodeRecord(record);
    return decoded !== undefined && 'blob' in decoded ? decoded.blob : undefined;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** Byte at which a record begins. */
export function positionOf(record: number): number {
  return indexHeader.sizeBytes + record * RECORD_BYTES;
}
