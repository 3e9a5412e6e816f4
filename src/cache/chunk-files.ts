/**
 * Writes cached chunks, one file each, keeps them below their size, and reads of them what nobody waits for. Every call here
 * blocks: it runs in a thread of its own. Any number of processes may use one directory: files are renamed to their names
 * when they are complete, and what there is is counted again before anything is evicted.
 *
 * Nothing is synced: after a crash a file may hold anything, and is then not what was sealed. Files are written past the
 * kernel's page cache (O_DIRECT) where the file system can: what is written once and read much later would take more of
 * the processor than sealing it does, and push out pages that are needed.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { AlignedBuffer } from '../core/aligned-buffer.ts';
import { openNowIfThere, TEMPORARY_PREFIX } from './cache-directory.ts';
import { type ChunkFile, type ChunkFileSettings, ChunkNames } from './chunk-names.ts';
import {
  CHUNK_EVICTION_PART,
  CHUNK_FILE_BYTES_MIN,
  CHUNK_SEGMENT_BYTES,
  DISK_FREE_BYTES_MIN,
  LEFTOVER_AGE_MS,
} from './limits.ts';
import { sealedLength, sealInto } from './sealed-buffer.ts';
import type { SealKeys } from './sealed-format.ts';
import { type OpenFile, SealedReader } from './sealed-reader.ts';
import { packStored, storedFileLength } from './stored-file.ts';

/** What became of a chunk that was to be written. */
export interface ChunkWritten {
  /** `present`: some process had written it; `refused`: there is no room for it, however much is evicted. */
  readonly outcome: 'written' | 'present' | 'refused';
  readonly bytesWritten: number;
  readonly filesEvicted: number;
}

const PRESENT: ChunkWritten = { outcome: 'present', bytesWritten: 0, filesEvicted: 0 };

/** Where a segment of a chunk is to be read to: a buffer as long as it is. */
export interface SegmentTarget {
  readonly index: number;
  readonly target: Uint8Array;
}

export class ChunkFiles {
  readonly #directory: string;
  readonly #bytesMax: number;
  readonly #names: ChunkNames;
  readonly #buffer = new AlignedBuffer();
  #isDirect = constants.O_DIRECT !== undefined;
  /** All files as counted last, and what was written since; undefined before they were counted. */
  #bytes: number | undefined;
  #bytesSinceCount = 0;

  constructor(settings: ChunkFileSettings) {
    this.#directory = settings.directory;
    this.#bytesMax = settings.bytesMax;
    this.#names = new ChunkNames(settings);
  }

  /** Writes a chunk, unless it is there: then it counts as used now. Throws Node's own errors. */
  write(file: ChunkFile, plain: Uint8Array): ChunkWritten {
    if (recordUse(file.path)) return PRESENT;
    const { sealName: name, salt } = file;
    const seal = { name, salt, segmentBytes: CHUNK_SEGMENT_BYTES, keys: this.#names.seal };
    const length = sealedLength(plain.byteLength, CHUNK_SEGMENT_BYTES);
    const written = this.#write(file.path, length, (buffer) => sealInto(buffer.subarray(0, length), plain, seal));
    if (written.outcome === 'written') unlinkIfThere(file.storedPath);
    return written;
  }

  /** Writes a chunk's stored bytes, unless it is there in whichever form: then that counts as used now. Throws Node's own errors. */
  writeStored(file: ChunkFile, stored: Uint8Array): ChunkWritten {
    if (recordUse(file.path) || recordUse(file.storedPath)) return PRESENT;
    return this.#write(file.storedPath, storedFileLength(stored.byteLength), (buffer) => packStored(buffer, stored));
  }

  /** Makes a file of `length` bytes and what its last block takes, which `fill` fills. */
  #write(path: string, length: number, fill: (buffer: Uint8Array) => void): ChunkWritten {
    const buffer = this.#buffer.take(length);
    const cost = chunkFileCost(buffer.byteLength);
    const filesEvicted = this.#makeRoom(cost);
    if (filesEvicted === undefined) return { outcome: 'refused', bytesWritten: 0, filesEvicted: 0 };
    fill(buffer);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    if (!this.#writeDirect(path, buffer)) writeWhole(path, buffer);
    this.#bytes! += cost;
    this.#bytesSinceCount += cost;
    return { outcome: 'written', bytesWritten: length, filesEvicted };
  }

  /** Fills all targets with their segments of a chunk of `plainBytes`; false if one is not there or not as it was written. */
  read(file: ChunkFile, plainBytes: number, segments: readonly SegmentTarget[]): boolean {
    let fd: number | undefined;
    try {
      fd = openNowIfThere(file.path);
      if (fd === undefined) return false;
      const reader = openChunk(file, { fd, close: async () => {} }, { plainBytes, keys: this.#names.seal });
      for (const { index, target } of segments) reader.readSegmentNow(index, target);
      return true;
    } catch {
      return false; // Nobody waits for it: who does finds out why.
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  /** False where the file system cannot. Files have whole blocks: what lies behind a sealed one's end is never looked at. */
  #writeDirect(path: string, buffer: Uint8Array): boolean {
    if (!this.#isDirect) return false;
    try {
      writeWhole(path, buffer, constants.O_DIRECT);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      this.#isDirect = false;
    }
    return this.#isDirect;
  }

  /** Evicts until `cost` more bytes fit; undefined if they cannot. Otherwise the number of files evicted. */
  #makeRoom(cost: number): number | undefined {
    const part = Math.floor(this.#bytesMax / CHUNK_EVICTION_PART);
    const room = freeBytes(this.#directory);
    const fits = this.#bytes !== undefined && this.#bytes + cost <= this.#bytesMax && cost <= room;
    // Others write here, too: what they did is seen at the latest after as much of our own.
    if (fits && this.#bytesSinceCount <= part) return 0;
    const files = listChunkFiles(this.#directory);
    const limit = Math.min(this.#bytesMax, files.bytes + room) - cost;
    this.#bytesSinceCount = 0;
    this.#bytes = files.bytes;
    if (limit < 0) return undefined;
    if (files.bytes <= limit) return 0;
    const evicted = evictOldest(files, Math.max(0, limit - part));
    this.#bytes = evicted.bytesLeft;
    return evicted.count;
  }
}

/** A chunk's file that is open: nothing is read of it yet. */
export function openChunk(
  { sealName: name, salt }: ChunkFile,
  file: OpenFile,
  { plainBytes, keys }: { readonly plainBytes: number; readonly keys: SealKeys },
): SealedReader {
  return SealedReader.openKnown(file, { name, salt, segmentBytes: CHUNK_SEGMENT_BYTES, keys, plainBytes });
}

/** What a file of that size counts for. */
export function chunkFileCost(length: number): number {
  return Math.max(length, CHUNK_FILE_BYTES_MIN);
}

interface ListedFiles {
  readonly paths: readonly string[];
  /** Milliseconds since 1970, and bytes as `chunkFileCost` counts, by index in `paths`. */
  readonly usedMs: Float64Array;
  readonly costs: Float64Array;
  readonly bytes: number;
}

/** All complete files; those that processes left which died while they wrote are removed. */
export function listChunkFiles(directory: string): ListedFiles {
  const paths: string[] = [];
  const usedMs: number[] = [];
  const costs: number[] = [];
  let bytes = 0;
  for (const part of readdirSync(directory, { withFileTypes: true })) {
    if (!part.isDirectory()) continue;
    for (const name of readdirSync(join(directory, part.name))) {
      const path = join(directory, part.name, name);
      const status = statSync(path, { throwIfNoEntry: false });
      if (status === undefined) continue;
      if (name.startsWith(TEMPORARY_PREFIX)) {
        if (status.mtimeMs < Date.now() - LEFTOVER_AGE_MS) unlinkIfThere(path);
        continue;
      }
      const cost = chunkFileCost(status.size);
      paths.push(path);
      usedMs.push(status.mtimeMs);
      costs.push(cost);
      bytes += cost;
    }
  }
  return { paths, usedMs: Float64Array.from(usedMs), costs: Float64Array.from(costs), bytes };
}

/** Removes the files used least recently until at most `bytesMax` are left. */
function evictOldest(files: ListedFiles, bytesMax: number): { count: number; bytesLeft: number } {
  const order = Uint32Array.from(files.paths.keys()).sort((a, b) => files.usedMs[a]! - files.usedMs[b]!);
  let { bytes } = files;
  let count = 0;
  for (const index of order) {
    if (bytes <= bytesMax) break;
    if (unlinkIfThere(files.paths[index]!)) count++;
    bytes -= files.costs[index]!;
  }
  return { count, bytesLeft: bytes };
}

/** Bytes that may be written before the file system is as full as the cache may make it. */
function freeBytes(directory: string): number {
  const { bavail, blocks, bsize } = statfsSync(directory);
  return bavail * bsize - Math.min(DISK_FREE_BYTES_MIN, Math.floor((blocks * bsize) / 20));
}

/** Makes the file, with all of `bytes`. */
function writeWhole(path: string, bytes: Uint8Array, moreFlags = 0): void {
  const temporary = join(dirname(path), `${TEMPORARY_PREFIX}${process.pid}-${randomBytes(8).toString('hex')}`);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | moreFlags;
  const descriptor = openSync(temporary, flags, 0o600);
  try {
    try {
      for (let done = 0; done < bytes.byteLength; ) done += writeSync(descriptor, bytes, done);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
  } catch (error) {
    unlinkIfThere(temporary);
    throw error;
  }
}

/** False if there is no such file. */
function recordUse(path: string): boolean {
  const now = new Date();
  return whereThere(() => utimesSync(path, now, now));
}

function unlinkIfThere(path: string): boolean {
  return whereThere(() => unlinkSync(path));
}

function whereThere(act: () => void): boolean {
  try {
    act();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
