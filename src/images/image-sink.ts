import { once } from 'node:events';
import { constants } from 'node:fs';
import { type FileHandle, link, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Writable } from 'node:stream';
import { exitCodes, UserError } from '../core/errors.ts';
import { KiB, MiB } from '../core/units.ts';

/** What an image is written to, from its beginning to its end. */
export interface ImageSink {
  /** Bytes so far. */
  readonly position: number;
  /** Appends; borrows `bytes` until it resolves. */
  write(bytes: Uint8Array): Promise<void>;
  /** Appends zeroes, as a hole where there can be one. */
  skip(length: number): Promise<void>;
  /** Replaces bytes at the beginning; undefined where what is written is gone. */
  readonly rewrite: ((bytes: Uint8Array) => Promise<void>) | undefined;
}

const ZEROES = new Uint8Array(64 * KiB);

/** A pipe, such as standard output. Rejects when its reader has gone. */
export function streamSink(stream: Writable): ImageSink {
  let position = 0;
  const write = async (bytes: Uint8Array) => {
    position += bytes.length;
    // The stream keeps what it has not written yet, and the caller uses its buffer again.
    if (!stream.write(Buffer.from(bytes))) await explained('the pipe', () => once(stream, 'drain'));
  };
  return {
    get position() {
      return position;
    },
    write,
    async skip(length) {
      for (let done = 0; done < length; done += ZEROES.length) {
        await write(ZEROES.subarray(0, Math.min(ZEROES.length, length - done)));
      }
    },
    rewrite: undefined,
  };
}

/** A file that has its name once it is complete. */
export interface ImageFile {
  readonly sink: ImageSink;
  /** Makes all durable and gives the file its name. Rejects with UserError if another has got that meanwhile. */
  finish(): Promise<void>;
  /** Removes what was written. */
  discard(): Promise<void>;
}

/**
 * Makes the file, under a name of this process until it is complete; what killed processes left under such names is removed.
 * Rejects with UserError if there is such a file and `replace` is not set, or if it cannot be made.
 */
export async function createImageFile(path: string, { replace }: { readonly replace: boolean }): Promise<ImageFile> {
  const taken = () => new UserError(`${path} is there already: choose another name, or use --force to replace it.`);
  const present = await stat(path).catch(() => undefined); // What cannot be looked at cannot be made either: see below.
  if (present !== undefined && !present.isFile()) throw new UserError(`${path} is no regular file.`);
  if (present !== undefined && !replace) throw taken();
  await removeAbandoned(path);
  const temporary = `${path}.${process.pid}.partial`;
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  const handle = await explained(path, () => open(temporary, flags, 0o600));
  const sink = fileSink(handle, path);
  const discard = async () => {
    await handle.close();
    // It may have got its name before something else failed.
    await rm(temporary, { force: true });
  };
  return {
    sink,
    discard,
    async finish() {
      await explained(path, async () => {
        await handle.truncate(sink.position);
        await handle.sync();
        if (replace) await rename(temporary, path);
        else {
          await link(temporary, path).catch((error: NodeJS.ErrnoException) => {
            throw error.code === 'EEXIST' ? taken() : error;
          });
          await unlink(temporary);
        }
        await handle.close();
        await syncDirectory(dirname(path));
      });
    },
  };
}

/** Removes what processes that have ended left of images of this name. Whatever is in the way is left to `open`. */
async function removeAbandoned(path: string): Promise<void> {
  const beginning = `${basename(path)}.`;
  const names = await readdir(dirname(path)).catch(() => []);
  for (const name of names.filter((one) => one.startsWith(beginning))) {
    const [, processId] = /^([1-9][0-9]*)\.partial$/.exec(name.slice(beginning.length)) ?? [];
    if (processId === undefined || isSomebodyElse(Number(processId))) continue;
    await rm(join(dirname(path), name), { force: true }).catch(() => undefined);
  }
}

/** Whether the process lives and is another one than this: in a container ids begin anew. */
function isSomebodyElse(processId: number): boolean {
  if (processId === process.pid) return false;
  try {
    process.kill(processId, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

function fileSink(handle: FileHandle, path: string): ImageSink {
  let position = 0;
  return {
    get position() {
      return position;
    },
    async write(bytes) {
      await explained(path, () => writeAt(handle, bytes, position));
      position += bytes.length;
    },
    async skip(length) {
      position += length;
    },
    rewrite: (bytes) => explained(path, () => writeAt(handle, bytes, 0)),
  };
}

/** Errors of the system, as one line that names the image. */
async function explained<T>(what: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(`cannot write ${what}: ${(cause as Error).message}`, { cause, exitCode: exitCodes.failure });
  }
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(MiB, bytes.length - done), position + done);
    done += bytesWritten;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
