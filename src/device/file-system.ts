/**
 * The file system as the overlay uses it, narrow enough to be replaced: the tests put one in its place that fails on
 * demand, and one that shows what a crash would have left. Errors are Node's, with their `code`.
 */
import { constants, fdatasync, fdatasyncSync, fstatSync, readSync, writevSync } from 'node:fs';
import { copyFile, type FileHandle, link, mkdir, open, readdir, rename, rmdir, unlink } from 'node:fs/promises';
import { promisify } from 'node:util';
import { liesElsewhere } from '../core/file-system-type.ts';
import { PromptDisk } from '../core/prompt-disk.ts';
import { KiB } from '../core/units.ts';

export interface OverlayFile {
  /**
   * Reads into `target` from byte `position`. Resolves to the bytes read, fewer than asked for only at the end of the file.
   * `isRecent`: they were written lately, so that the page cache has them.
   */
  read(target: Uint8Array, position: number, options?: { readonly isRecent: boolean }): Promise<number>;
  /** As `read` of what was written lately, at once: true when `target` is filled, false if `read` is to be asked. */
  readNow?(target: Uint8Array, position: number): boolean;
  /** Writes all buffers one behind the other from byte `position` on, or rejects: then any part of them may be written. */
  write(buffers: readonly Uint8Array[], position: number): Promise<void>;
  /** The same at once; false if `write` is to be asked, which says what is wrong: any part of them may be written by then. */
  writeNow?(buffers: readonly Uint8Array[], position: number): boolean;
  /** fdatasync. */
  sync(): Promise<void>;
  truncate(lengthBytes: number): Promise<void>;
  status(): Promise<{ sizeBytes: number }>;
  /** Whether somebody could still find the file. A look at what the kernel has in memory: it does not wait. */
  isLinked(): boolean;
  close(): Promise<void>;
}

export interface OverlayFileSystem {
  /** `create`: a new file, mode 0600, rejects with EEXIST if it is there. Otherwise an existing one. */
  open(path: string, access: 'read' | 'write' | 'create'): Promise<OverlayFile>;
  /** Names in a directory, in no order. */
  list(directory: string): Promise<string[]>;
  /** A new directory, mode 0700. Rejects with EEXIST if it is there. */
  makeDirectory(path: string): Promise<void>;
  /** An empty directory. */
  removeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** A second name for a file. Rejects with EEXIST if it is taken. */
  link(from: string, to: string): Promise<void>;
  /** A new file with what another one holds now, which may be appended to meanwhile; shares its blocks where it can be done. */
  copy(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** fsync of a directory: names made, changed or removed in it are durable. */
  syncDirectory(path: string): Promise<void>;
}

const openFlags = {
  read: constants.O_RDONLY,
  write: constants.O_RDWR,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
} as const;

/**
 * Up to this long, what goes to the page cache or comes from it is copied at once: a WRITE of 64 KiB and its record take
 * some 20 us, a thread to do it 50 and more.
 */
const COPY_AT_ONCE_BYTES = 80 * KiB;
/** Up to so much written since the last, an fdatasync may be waited for in the main thread: a database's commit. */
const SYNC_AT_ONCE_BYTES = 256 * KiB;
/**
 * How long it may take there on average, milliseconds. A good disk takes 0.15, and so does a thread to do it and to say so,
 * with both processors busy.
 */
const SYNC_AT_ONCE_MS_MAX = 1;
/** Buffers of one writev at most: IOV_MAX of Linux. */
const BUFFERS_PER_WRITE_MAX = 1024;

/** As `FileHandle.datasync`, in half the time of the main thread. */
const syncData = promisify(fdatasync);

/** The real one. */
export const nodeFileSystem: OverlayFileSystem = {
  async open(path, access) {
    const handle = await open(path, openFlags[access], 0o600);
    const prompt = new PromptDisk({ msMax: SYNC_AT_ONCE_MS_MAX });
    if (access !== 'read' && (await liesElsewhere(path))) prompt.never();
    return fileOf(handle, prompt);
  },
  list: (directory) => readdir(directory),
  async makeDirectory(path) {
    await mkdir(path, { mode: 0o700 });
  },
  removeDirectory: rmdir,
  rename,
  link,
  copy: (from, to) => copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE),
  remove: unlink,
  async syncDirectory(path) {
    const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  },
};

/** `prompt`: when an fdatasync may be waited for. */
function fileOf(handle: FileHandle, prompt: PromptDisk): OverlayFile {
  let unsyncedBytes = 0;
  return {
    async read(target, position, { isRecent } = { isRecent: false }) {
      const isAtOnce = isRecent && target.length <= COPY_AT_ONCE_BYTES;
      let done = isAtOnce ? readSync(handle.fd, target, 0, target.length, position) : 0;
      while (done < target.length) {
        const { bytesRead } = await handle.read(target, done, target.length - done, position + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    },
    readNow(target, position) {
      if (target.length > COPY_AT_ONCE_BYTES) return false;
      return succeeds(() => readSync(handle.fd, target, 0, target.length, position) === target.length);
    },
    async write(buffers, position) {
      unsyncedBytes += totalBytes(buffers);
      let at = position;
      for (let first = 0; first < buffers.length; first += BUFFERS_PER_WRITE_MAX) {
        at += await writeAll(handle, buffers.slice(first, first + BUFFERS_PER_WRITE_MAX), at);
      }
    },
    writeNow(buffers, position) {
      const total = totalBytes(buffers);
      if (total > COPY_AT_ONCE_BYTES || buffers.length > BUFFERS_PER_WRITE_MAX) return false;
      unsyncedBytes += total;
      return succeeds(() => writevSync(handle.fd, buffers, position) === total);
    },
    async sync() {
      const isSmall = unsyncedBytes <= SYNC_AT_ONCE_BYTES;
      unsyncedBytes = 0;
      if (isSmall && prompt.isPrompt) prompt.during(() => fdatasyncSync(handle.fd));
      else await syncData(handle.fd);
    },
    truncate: (lengthBytes) => handle.truncate(lengthBytes),
    async status() {
      const { size } = await handle.stat();
      return { sizeBytes: size };
    },
    isLinked: () => fstatSync(handle.fd).nlink > 0,
    close: () => handle.close(),
  };
}

/** Whether an operation that is made at once does what it should; a failure is left to the one that waits. */
function succeeds(operation: () => boolean): boolean {
  try {
    return operation();
  } catch {
    return false;
  }
}

function totalBytes(buffers: readonly Uint8Array[]): number {
  return buffers.reduce((bytes, buffer) => bytes + buffer.length, 0);
}

/** A write may be cut short by a full disk: the next call then says why. Returns the bytes of all buffers. */
async function writeAll(handle: FileHandle, buffers: readonly Uint8Array[], position: number): Promise<number> {
  const total = totalBytes(buffers);
  if (total <= COPY_AT_ONCE_BYTES && writevSync(handle.fd, buffers, position) === total) return total;
  let rest = [...buffers];
  for (let done = 0; done < total; ) {
    const { bytesWritten } = await handle.writev(rest, position + done);
    done += bytesWritten;
    if (done < total) rest = dropBytes(rest, bytesWritten);
  }
  return total;
}

function dropBytes(buffers: readonly Uint8Array[], count: number): Uint8Array[] {
  let skip = count;
  const rest: Uint8Array[] = [];
  for (const buffer of buffers) {
    if (skip < buffer.length) rest.push(buffer.subarray(skip));
    skip = Math.max(0, skip - buffer.length);
  }
  return rest;
}

/** The `code` of a system error, for example ENOSPC. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
