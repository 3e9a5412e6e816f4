import { close, existsSync } from 'node:fs';
import { type FileHandle, utimes } from 'node:fs/promises';
import { promisify } from 'node:util';
import { copyBytes } from '../core/copy-bytes.ts';
import type { CacheCounters } from '../core/counters.ts';
import { liesElsewhere } from '../core/file-system-type.ts';
import type { Log } from '../core/log.ts';
import { PromptDisk } from '../core/prompt-disk.ts';
import { makeOwnDirectory, openIfThere, openNowIfThere, removeIfThere, systemReason } from './cache-directory.ts';
import { type ChunkWritten, openChunk, type SegmentTarget } from './chunk-files.ts';
import { type ChunkFile, type ChunkFileSettings, type ChunkId, ChunkNames } from './chunk-names.ts';
import { CacheDamagedError } from './errors.ts';
import {
  CHUNK_CLOSE_MS,
  CHUNK_SEGMENT_BYTES,
  CHUNK_WRITE_PAUSE_MS,
  CHUNK_WRITES_BYTES_MAX,
  OPEN_CHUNK_FILES_MAX,
} from './limits.ts';
import { OpenReaders } from './open-readers.ts';
import type { OpenFile, SealedReader } from './sealed-reader.ts';
import { type ReadStoredOptions, readStored } from './stored-file.ts';
import { WriteMoments } from './write-moments.ts';

/** ChunkFiles' work, one task after the other and where that keeps nobody waiting. */
export interface ChunkWriter {
  /** `plain` must stay as it is until this settles. Rejects with Node's own errors. */
  write(file: ChunkFile, plain: Uint8Array): Promise<ChunkWritten>;
  /** The same for its stored bytes. */
  writeStored(file: ChunkFile, stored: Uint8Array): Promise<ChunkWritten>;
  /** As ChunkFiles has it. The targets are its own until this settles. Rejects if it cannot work at all. */
  read(file: ChunkFile, plainBytes: number, segments: readonly SegmentTarget[]): Promise<boolean>;
  /** Drops what has not been written yet. */
  close(): Promise<void>;
}

export interface ChunkDiskParts {
  readonly settings: ChunkFileSettings;
  readonly writer: ChunkWriter;
  readonly counters: CacheCounters;
  readonly log: Log;
  /** When it may be waited for; default: as it answers. */
  readonly prompt?: PromptDisk;
}

const closeDescriptor = promisify(close);

interface Pending {
  /** Decoded, or stored bytes. */
  readonly bytes: Uint8Array;
  readonly done: Promise<void>;
}

/** How a chunk may lie on disk: decoded, so that a page of it is read by itself, or as the store has it, which costs next to nothing. */
export type ChunkForm = 'decoded' | 'stored';

/**
 * Chunks on disk: decoded, in segments each of which is authenticated when it is read, or stored bytes, which are for whoever
 * decodes them to check. Shared by all processes that use the directory. Nothing here fails a read: what is not as it was
 * written is removed and missing, what cannot be written is not cached.
 */
export class ChunkDisk {
  readonly #counters: CacheCounters;
  readonly #names: ChunkNames;
  readonly #directory: string;
  readonly #writer: ChunkWriter;
  readonly #log: Log;
  readonly #readers = new OpenReaders(OPEN_CHUNK_FILES_MAX);
  readonly #prompt: PromptDisk;
  readonly #moments = new WriteMoments();
  /** Being written, by path: bytes that can be had from memory. */
  readonly #pending = new Map<string, Pending>();
  #pendingBytes = 0;
  /** Damaged, and about to be gone: paths. */
  readonly #removing = new Set<string>();
  #pausedUntilMs = 0;
  #generation = 0;
  readonly #saidOf = new Set<string>();

  private constructor(parts: ChunkDiskParts) {
    this.#counters = parts.counters;
    this.#names = new ChunkNames(parts.settings);
    this.#directory = parts.settings.directory;
    this.#writer = parts.writer;
    this.#log = parts.log;
    this.#prompt = parts.prompt ?? new PromptDisk();
  }

  /** Takes the writer over. Undefined, with a warning, if the directory cannot be used. */
  static async open(parts: ChunkDiskParts): Promise<ChunkDisk | undefined> {
    const disk = new ChunkDisk(parts);
    try {
      await makeOwnDirectory(parts.settings.directory);
      if (await liesElsewhere(parts.settings.directory)) disk.#prompt.never();
      return disk;
    } catch (error) {
      disk.#complain('directory', error);
      await parts.writer.close();
      return undefined;
    }
  }

  /** Another number once more chunks may be there than before. */
  get generation(): number {
    return this.#generation;
  }

  /** A decoded chunk that is being written: its bytes, which are not to be kept beyond this turn. */
  pending(chunk: ChunkId): Uint8Array | undefined {
    return this.#pending.size === 0 ? undefined : this.#pending.get(this.#names.fileOf(chunk).path)?.bytes;
  }

  /** Fills `target` with a whole segment of the chunk; false if it is not there. */
  readSegment(chunk: ChunkId, index: number, target: Uint8Array): Promise<boolean> {
    return this.#read(chunk, index * CHUNK_SEGMENT_BYTES, target);
  }

  /** As `readSegment`, in this turn; false also where it would take long to find out. */
  readSegmentNow(chunk: ChunkId, index: number, target: Uint8Array): boolean {
    const file = this.#names.fileOf(chunk);
    if (!this.#prompt.isPrompt || this.#removing.has(file.path)) return false;
    try {
      return this.#prompt.during(() => {
        const reader = this.#readers.now(file.path, () => this.#openNow(file, chunk.lengthBytes));
        if (reader === undefined) return false;
        reader.readSegmentNow(index, target);
        this.#counters.diskBytesRead += target.byteLength;
        return true;
      });
    } catch (error) {
      this.#readers.forget(file.path);
      void this.#discard(file.path, error);
      return false;
    }
  }

  /** Whether the chunk is known not to be there in that form. */
  isMissing(chunk: ChunkId, form: ChunkForm = 'decoded'): boolean {
    const path = pathOf(this.#names.fileOf(chunk), form);
    if (this.#removing.has(path)) return true;
    return this.#prompt.isPrompt && !this.#pending.has(path) && !this.#prompt.during(() => existsSync(path));
  }

  /** Fills all targets with segments that nobody waits for, without keeping others waiting; false if one is not there. */
  async recall(chunk: ChunkId, segments: readonly SegmentTarget[]): Promise<boolean> {
    const file = this.#names.fileOf(chunk);
    if (this.#removing.has(file.path)) return false;
    const isRead = await this.#writer.read(file, chunk.lengthBytes, segments).catch(() => false);
    if (isRead) for (const { target } of segments) this.#counters.diskBytesRead += target.byteLength;
    return isRead;
  }

  /** Fills `target` with the whole chunk; false if it is not there. */
  readChunk(chunk: ChunkId, target: Uint8Array): Promise<boolean> {
    return this.#read(chunk, 0, target);
  }

  /** The chunk's stored bytes, `bytesMax` at most, in memory taken from `memory`; undefined if they are not there. Nobody has checked them. */
  async readStored(chunk: ChunkId, into: ReadStoredOptions): Promise<Uint8Array | undefined> {
    const { storedPath } = this.#names.fileOf(chunk);
    await this.#pending.get(storedPath)?.done;
    if (this.#removing.has(storedPath)) return undefined;
    let file: FileHandle | undefined;
    try {
      file = await openIfThere(storedPath);
      if (file === undefined) return undefined;
      void utimesNow(storedPath);
      const stored = await readStored(file, into);
      this.#counters.diskBytesRead += stored.byteLength;
      return stored;
    } catch (error) {
      await this.#discard(storedPath, error);
      return undefined;
    } finally {
      await file?.close();
    }
  }

  /** What `readStored` gave is not the chunk: it goes. */
  async rejectStored(chunk: ChunkId, why: Error): Promise<void> {
    await this.#discard(this.#names.fileOf(chunk).storedPath, new CacheDamagedError(why.message, { cause: why }));
  }

  /** Whether the chunk is there decoded, or will be in a moment; then it counts as used now. */
  async has(chunk: ChunkId): Promise<boolean> {
    if (this.isMissing(chunk)) return false;
    const { path } = this.#names.fileOf(chunk);
    return this.#pending.has(path) || utimesNow(path);
  }

  /** Says that the chunk was used: it is not to be evicted before others. */
  async recordUse(chunk: ChunkId): Promise<void> {
    const { path, storedPath } = this.#names.fileOf(chunk);
    if (!(await utimesNow(path))) await utimesNow(storedPath);
  }

  /** Whether a chunk of that length would be taken now. */
  hasRoomFor(lengthBytes: number): boolean {
    if (performance.now() < this.#pausedUntilMs) return false;
    return this.#pendingBytes === 0 || this.#pendingBytes + lengthBytes <= CHUNK_WRITES_BYTES_MAX;
  }

  /** Says that a chunk is dropped which there was no room for. */
  dropped(): void {
    this.#counters.diskWritesDropped++;
    if (performance.now() >= this.#pausedUntilMs) {
      this.#complain('slow', 'its disk takes chunks more slowly than the store gives them');
    }
  }

  /** Writes the chunk in the background. Settles, and never rejects, when `plain` is no longer needed. */
  offer(chunk: ChunkId, plain: Uint8Array): Promise<void> {
    const file = this.#names.fileOf(chunk);
    return this.#offer(file.path, plain, () => this.#writer.write(file, plain));
  }

  /** The same for its stored bytes, which were found sound. */
  offerStored(chunk: ChunkId, stored: Uint8Array): Promise<void> {
    const file = this.#names.fileOf(chunk);
    return this.#offer(file.storedPath, stored, () => this.#writer.writeStored(file, stored));
  }

  /** Says that the stored bytes of a chunk have come from the store. */
  fetched(): void {
    this.#moments.come();
  }

  /** Waits a while for what is being written. */
  async close(): Promise<void> {
    this.#moments.come();
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, CHUNK_CLOSE_MS)));
    await Promise.race([Promise.all([...this.#pending.values()].map(({ done }) => done)), patience]);
    clearTimeout(timer);
    await this.#writer.close();
    await this.#readers.close();
  }

  #offer(path: string, bytes: Uint8Array, write: () => Promise<ChunkWritten>): Promise<void> {
    if (this.#pending.has(path) || bytes.byteLength === 0) return Promise.resolve();
    this.#pendingBytes += bytes.byteLength;
    const done = this.#write(write).finally(() => {
      this.#pending.delete(path);
      this.#pendingBytes -= bytes.byteLength;
      this.#generation++;
    });
    this.#pending.set(path, { bytes, done });
    this.#generation++;
    return done;
  }

  async #read(chunk: ChunkId, offset: number, target: Uint8Array): Promise<boolean> {
    const file = this.#names.fileOf(chunk);
    const pending = this.#pending.get(file.path);
    if (pending !== undefined) {
      copyBytes(pending.bytes.subarray(offset, offset + target.byteLength), target);
      return true;
    }
    if (this.#removing.has(file.path)) return false;
    try {
      return await this.#readers.with(
        file.path,
        () => this.#open(file, chunk.lengthBytes),
        async (reader) => {
          if (reader === undefined) return false;
          await reader.read(offset, target);
          this.#counters.diskBytesRead += target.byteLength;
          return true;
        },
      );
    } catch (error) {
      await this.#discard(file.path, error);
      return false;
    }
  }

  #openNow(file: ChunkFile, plainBytes: number): SealedReader | undefined {
    const fd = openNowIfThere(file.path);
    return fd === undefined ? undefined : this.#opened(file, { fd, close: () => closeDescriptor(fd) }, plainBytes);
  }

  async #open(file: ChunkFile, plainBytes: number): Promise<SealedReader | undefined> {
    const handle = await openIfThere(file.path);
    return handle === undefined ? undefined : this.#opened(file, handle, plainBytes);
  }

  #opened(chunk: ChunkFile, file: OpenFile, plainBytes: number): SealedReader {
    void utimesNow(chunk.path);
    return openChunk(chunk, file, { plainBytes, keys: this.#names.seal });
  }

  /** A damaged file goes; one that cannot be opened for other reasons (too many open files) stays. */
  async #discard(path: string, why: unknown): Promise<void> {
    if (!(why instanceof CacheDamagedError) && (why as NodeJS.ErrnoException).code !== 'ELOOP') {
      this.#complain('read', why);
      return;
    }
    if (this.#removing.has(path)) return;
    this.#removing.add(path);
    this.#counters.diskDamaged++;
    const text = `A cached chunk is damaged and is fetched again: ${path} (${systemReason(why)})`;
    if (this.#saidOf.has('damage')) this.#log.debug({ file: path }, text);
    else this.#log.warn({ file: path }, `${text}. More of the kind are only counted.`);
    this.#saidOf.add('damage');
    await removeIfThere(path).catch((error: unknown) => this.#complain('read', error));
    this.#removing.delete(path);
  }

  async #write(write: () => Promise<ChunkWritten>): Promise<void> {
    await this.#moments.next();
    try {
      const { outcome, bytesWritten, filesEvicted } = await write();
      this.#counters.diskBytesWritten += bytesWritten;
      this.#counters.diskEvictions += filesEvicted;
      if (outcome !== 'refused') return;
      this.#complain('full', 'there is no room for chunks; a larger --cache-disk or free space helps');
    } catch (error) {
      this.#complain('write', error);
    }
    this.#counters.diskWritesDropped++;
    this.#pausedUntilMs = performance.now() + CHUNK_WRITE_PAUSE_MS;
  }

  /** Once for each kind of trouble. */
  #complain(kind: string, error: unknown): void {
    const reason = typeof error === 'string' ? error : systemReason(error);
    const text = `Chunks are not all cached in ${this.#directory}: ${reason}. What is missing there is fetched again.`;
    if (this.#saidOf.has(kind)) this.#log.debug({ directory: this.#directory }, text);
    else this.#log.warn({ directory: this.#directory }, text);
    this.#saidOf.add(kind);
  }
}

function pathOf({ path, storedPath }: ChunkFile, form: ChunkForm): string {
  return form === 'decoded' ? path : storedPath;
}

/** False if it is not there, or cannot be marked as used. */
async function utimesNow(path: string): Promise<boolean> {
  const now = new Date();
  try {
    await utimes(path, now, now);
    return true;
  } catch {
    return false;
  }
}
