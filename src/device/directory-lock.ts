/**
 * One server a directory. Node cannot lock files, flock(1) can: it is handed our open file as its descriptor 3, locks
 * it and exits. A lock of flock(2) belongs to the open file, not to the process, so it is ours as long as we have the
 * file open, and the kernel takes it back when we end, however that happens. No helper process has to stay alive.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../core/errors.ts';

const LOCK_NAME = 'lock';
/** Exit status of `flock --nonblock` when somebody else has the lock. */
const LOCK_TAKEN = 1;

export interface DirectoryLock {
  release(): Promise<void>;
}

/** What is said when there is no lock to be had; `who` is `process 1234` or `another process`. */
export interface LockTexts {
  readonly taken: (who: string, directory: string) => string;
  readonly missing: string;
}

const overlayTexts: LockTexts = {
  taken: (who, directory) =>
    `the overlay directory ${directory} is in use by ${who}; stop it, or use another directory`,
  missing: 'durable overlays need the program flock (Debian: util-linux): install it, or use --overlay memory',
};

/** Rejects with UserError if another process has the lock, naming it, and if there is no flock(1). */
export async function lockDirectory(
  directory: string,
  texts: LockTexts = overlayTexts,
  command = 'flock',
): Promise<DirectoryLock> {
  const path = join(directory, LOCK_NAME);
  const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    const status = await runFlock(command, handle.fd, texts);
    if (status === LOCK_TAKEN) throw await takenError(directory, handle, texts);
    if (status !== 0)
      throw new UserError(`flock could not lock ${path} (status ${status}); is it on a file system without locks?`);
    await assertSameFile(path, handle);
    await handle.truncate(0);
    await handle.write(`${process.pid}\n`, 0);
    return { release: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function runFlock(command: string, fd: number, texts: LockTexts): Promise<number | null> {
  return new Promise((resolve, reject) => {
    // Short options: BusyBox has no others.
    const child = spawn(command, ['-x', '-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
    child.on('error', (cause) => reject(new UserError(texts.missing, { cause })));
    child.on('exit', resolve);
  });
}

async function takenError(directory: string, handle: FileHandle, texts: LockTexts): Promise<UserError> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(32), 0, 32, 0);
  const holder = Number.parseInt(buffer.toString('latin1', 0, bytesRead), 10);
  const who = Number.isInteger(holder) ? `process ${holder}` : 'another process';
  return new UserError(texts.taken(who, directory), {
    details: { directory, holder: Number.isInteger(holder) ? holder : undefined },
  });
}

/** A lock on a file that was replaced by another one protects nothing. */
async function assertSameFile(path: string, handle: FileHandle): Promise<void> {
  const [byName, byHandle] = await Promise.all([stat(path), handle.stat()]);
  if (byName.ino !== byHandle.ino || byName.dev !== byHandle.dev) {
    throw new UserError(`${path} was replaced while it was being locked; try again`);
  }
}
