import { join } from 'node:path';
import type { ReadCounters } from '../core/counters.ts';
import { toHex } from '../core/mac.ts';
import { errorCode, type OverlayFile, type OverlayFileSystem } from '../device/file-system.ts';
import type { BlobId } from '../kloset/blob-replica.ts';
import { type Clock, systemClock } from '../kloset/clock.ts';
import { DATA_FOLDER, dataPath } from './data-files.ts';
import { encodeBlob, encodeSnapshot, type HydratedBlob, type HydratedSnapshot } from './format.ts';
import { type HydratedBlobs, sha256Of } from './hydrated-blobs.ts';
import { INDEX_NAME, positionOf } from './index-file.ts';
import { COMMIT_BLOBS, COMMIT_BYTES, COMMIT_MS, DATA_FILE_BYTES_MAX, OFFERED_BYTES_MAX } from './limits.ts';

export interface BlobWriterOptions {
  readonly blobs: HydratedBlobs;
  readonly fileSystem: OverlayFileSystem;
  readonly counters: ReadCounters;
  readonly clock?: Clock;
  readonly dataFileBytesMax?: number;
}

type NewRecord = { readonly blob: HydratedBlob } | { readonly snapshot: HydratedSnapshot };

/** Adds blobs to a hydrated directory, of which this process has the lock. All errors are those of the file system. */
export class BlobWriter {
  /** Whether what clients' reads bring is wanted, besides what replaces damage. */
  takesOffers = false;
  /** How often something that was appended did not become durable: it is not there then. */
  failures = 0;
  readonly #blobs: HydratedBlobs;
  readonly #fileSystem: OverlayFileSystem;
  readonly #counters: ReadCounters;
  readonly #clock: Clock;
  readonly #dataFileBytesMax: number;
  readonly #index: OverlayFile;
  #recordEnd: number;
  #data: { readonly file: OverlayFile; readonly number: number } | undefined;
  #dataNumber: number;
  #dataEnd: number;
  /** What is written and not yet durable. */
  #pending: NewRecord[] = [];
  #pendingKeys = new Set<string>();
  #pendingBytes = 0;
  #offeredBytes = 0;
  #cancelCommit: (() => void) | undefined;
  /** Everything that touches the files, one behind the other. */
  #line: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  private constructor(options: BlobWriterOptions, index: OverlayFile) {
    this.#blobs = options.blobs;
    this.#fileSystem = options.fileSystem;
    this.#counters = options.counters;
    this.#clock = options.clock ?? systemClock;
    this.#dataFileBytesMax = options.dataFileBytesMax ?? DATA_FILE_BYTES_MAX;
    this.#index = index;
    this.#recordEnd = options.blobs.recordEnd;
    const { file, offset } = options.blobs.dataEnd;
    this.#dataNumber = file;
    this.#dataEnd = offset;
    options.blobs.onOffer = (id, stored, isNeeded) => this.#offer(id, stored, isNeeded);
  }

  /** Cuts off what a writer before left unfinished. */
  static async open(options: BlobWriterOptions): Promise<BlobWriter> {
    const { blobs, fileSystem } = options;
    const index = await fileSystem.open(join(blobs.directory, INDEX_NAME), 'write');
    try {
      await index.truncate(positionOf(blobs.recordEnd));
      return new BlobWriter(options, index);
    } catch (error) {
      await index.close();
      throw error;
    }
  }

  async has(id: BlobId): Promise<boolean> {
    return this.#pendingKeys.has(keyOf(id)) || (await this.#blobs.has(id));
  }

  /** Writes a blob's stored bytes, unless it is there; durable after the next commit. `stored` is borrowed until settled. */
  append(id: BlobId, stored: Uint8Array): Promise<void> {
    return this.#inLine(async () => {
      if (await this.has(id)) return;
      const data = await this.#dataFile(stored.byteLength);
      await data.file.write([stored], this.#dataEnd);
      const sha256 = sha256Of(id.type, stored);
      const place = { file: data.number, offset: this.#dataEnd, length: stored.byteLength };
      this.#pending.push({ blob: { type: id.type, mac: new Uint8Array(id.mac), sha256, ...place } });
      this.#pendingKeys.add(keyOf(id));
      this.#pendingBytes += stored.byteLength;
      this.#dataEnd += stored.byteLength;
      if (this.#pendingBytes >= COMMIT_BYTES || this.#pending.length >= COMMIT_BLOBS) await this.#commit();
      else this.#commitSoon();
    });
  }

  /** Notes how far a snapshot is, and makes it and all before it durable. */
  noteSnapshot(snapshot: HydratedSnapshot): Promise<void> {
    return this.#inLine(async () => {
      await this.#commit();
      this.#pending.push({ snapshot });
      await this.#commit();
    });
  }

  /** What was appended is durable, and found by readers, afterwards. */
  commit(): Promise<void> {
    return this.#inLine(() => this.#commit());
  }

  /** Commits what there is. */
  async close(): Promise<void> {
    this.#blobs.onOffer = undefined;
    this.#isClosed = true;
    this.#cancelCommit?.();
    try {
      await this.commit();
    } finally {
      await this.#data?.file.close();
      await this.#index.close();
    }
  }

  #inLine<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#line.then(work);
    this.#line = done.catch(() => undefined);
    return done;
  }

  async #commit(): Promise<void> {
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#pending.length === 0) return;
    const pending = this.#pending;
    const [blobs, bytes] = [this.#pendingKeys.size, this.#pendingBytes];
    this.#pending = [];
    try {
      await this.#data?.file.sync();
      const { key } = this.#blobs.index;
      const records = pending.map((record) =>
        'blob' in record ? encodeBlob(record.blob, key) : encodeSnapshot(record.snapshot, key),
      );
      await this.#index.write(records, positionOf(this.#recordEnd));
      await this.#index.sync();
    } catch (error) {
      this.failures++;
      // After a failed fsync nobody knows what of the file is on disk: it is not written to again.
      await this.#leaveDataFile();
      throw error;
    } finally {
      this.#pendingKeys.clear();
      this.#pendingBytes = 0;
    }
    this.#recordEnd += pending.length;
    this.#blobs.adopt(pending);
    this.#counters.hydratedBlobs += blobs;
    this.#counters.hydratedBytes += bytes;
  }

  #commitSoon(): void {
    if (this.#isClosed) return;
    // Who waits for durability commits himself and hears of a failure; the others find the blob missing.
    this.#cancelCommit ??= this.#clock.after(COMMIT_MS, () => void this.commit().catch(() => undefined));
  }

  /** The data file that takes so many bytes more at #dataEnd. */
  async #dataFile(bytes: number): Promise<{ readonly file: OverlayFile; readonly number: number }> {
    if (this.#dataEnd > 0 && this.#dataEnd + bytes > this.#dataFileBytesMax) {
      await this.#commit();
      await this.#leaveDataFile();
    }
    this.#data ??= { file: await this.#openData(), number: this.#dataNumber };
    return this.#data;
  }

  async #leaveDataFile(): Promise<void> {
    await this.#data?.file.close();
    this.#data = undefined;
    this.#dataNumber++;
    this.#dataEnd = 0;
  }

  async #openData(): Promise<OverlayFile> {
    const path = dataPath(this.#blobs.directory, this.#dataNumber);
    try {
      const file = await this.#fileSystem.open(path, 'create');
      await this.#fileSystem.syncDirectory(join(this.#blobs.directory, DATA_FOLDER));
      return file;
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
    }
    const file = await this.#fileSystem.open(path, 'write');
    await file.truncate(this.#dataEnd);
    return file;
  }

  /** Takes a copy and writes it when its turn comes; forgets it where there is no room in memory. */
  #offer(id: BlobId, stored: Uint8Array, isNeeded: boolean): void {
    if (!(this.takesOffers || isNeeded) || this.#isClosed) return;
    if (this.#offeredBytes + stored.byteLength > OFFERED_BYTES_MAX) return;
    const copy = new Uint8Array(stored);
    this.#offeredBytes += copy.byteLength;
    const own = { type: id.type, mac: new Uint8Array(id.mac) };
    this.append(own, copy)
      // Hydrating meets the same disk, and says what is wrong with it.
      .catch(() => undefined)
      .finally(() => {
        this.#offeredBytes -= copy.byteLength;
      });
  }
}

function keyOf({ type, mac }: BlobId): string {
  return `${type}:${toHex(mac)}`;
}
