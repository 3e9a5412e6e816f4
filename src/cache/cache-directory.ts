/**
 * Where the cache lies: one directory of ours for all stores, `--cache-dir`. Whoever can write into it could, for a
 * plaintext store whose id he knows, forge what is in it: so it must be ours, and nobody else's to write.
 */
import { constants, existsSync, openSync } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { CACHE_BYTES_MAX, LEFTOVER_AGE_MS } from './limits.ts';

/** The directory an operator asked for, or the one taken where none was named. */
export interface CacheChoice {
  readonly path: string;
  /** A default that cannot be used is done without; a directory that was asked for is not. */
  readonly isDefault: boolean;
}

/** How names of files that are not finished begin. */
export const TEMPORARY_PREFIX = 'tmp-';
/** Group and others may not write. */
const WRITABLE_BY_OTHERS = 0o022;

/**
 * The directory at `choice`, made if it is not there: mode 0700. Rejects with UserError (exit 64) if it is not a
 * directory, not ours or writable by others; undefined, with a warning, for a default that is so.
 */
export async function openCacheDirectory(choice: CacheChoice, log: Log): Promise<string | undefined> {
  try {
    await makeOwnDirectory(choice.path);
    await sweepLeftovers(choice.path);
    return choice.path;
  } catch (error) {
    const reason = error instanceof UserError ? error.message : systemReason(error);
    const text = `The cache directory ${choice.path} cannot be used: ${reason}`;
    if (!choice.isDefault) {
      throw new UserError(`${text}. Name another one with --cache-dir, or do without: --no-cache.`, { cause: error });
    }
    log.warn(
      { directory: choice.path },
      `${text}; opening goes on without a cache. --cache-dir DIR names another one.`,
    );
    return undefined;
  }
}

/** Makes `path` unless it is there; throws UserError unless it is a directory that only we can write to. */
export async function makeOwnDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const { uid, mode } = await stat(path);
  if (process.geteuid !== undefined && uid !== process.geteuid()) throw new UserError('it belongs to another user');
  if ((mode & WRITABLE_BY_OTHERS) !== 0) throw new UserError('other users may write to it (chmod go-w makes it ours)');
}

/** An existing file, or undefined if there is none; never through a symlink. */
export async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** As `openIfThere`, in this turn: the descriptor. */
export function openNowIfThere(path: string): number | undefined {
  // Looked for first: an error takes ten times as long to make.
  return existsSync(path) ? openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW) : undefined;
}

/** A new file under a name that no other process takes, mode 0600. */
export async function createTemporary(
  directory: string,
  unique: string,
): Promise<{ readonly file: FileHandle; readonly path: string }> {
  const path = join(directory, `${TEMPORARY_PREFIX}${process.pid}-${unique}`);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  return { file: await open(path, flags, 0o600), path };
}

/**
 * Removes the files used least recently, of whichever store, until at most `bytesMax` are left; `keep` stays. Files that
 * somebody has open stay readable for him.
 */
export async function evict(directory: string, keep: string, bytesMax = CACHE_BYTES_MAX): Promise<void> {
  const files = (await listFiles(directory)).filter(({ name }) => !name.startsWith(TEMPORARY_PREFIX));
  files.sort((a, b) => a.usedMs - b.usedMs);
  let bytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  for (const { path, sizeBytes } of files) {
    if (bytes <= bytesMax) return;
    if (path === keep) continue;
    await removeIfThere(path);
    bytes -= sizeBytes;
  }
}

/** Removes what processes that died while they wrote have left: nobody has written to it for an hour. */
async function sweepLeftovers(directory: string): Promise<void> {
  for (const { name, path, usedMs } of await listFiles(directory)) {
    if (name.startsWith(TEMPORARY_PREFIX) && usedMs < Date.now() - LEFTOVER_AGE_MS) await removeIfThere(path);
  }
}

interface CachedFile {
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  /** When it was last written or, for a finished one, used: milliseconds since 1970. */
  readonly usedMs: number;
}

/** The files of all stores' sub-directories. Others may remove some meanwhile. */
async function listFiles(directory: string): Promise<CachedFile[]> {
  const files: CachedFile[] = [];
  for (const store of await readdir(directory, { withFileTypes: true })) {
    if (!store.isDirectory()) continue;
    for (const name of await ifThere(readdir(join(directory, store.name)), [])) {
      const path = join(directory, store.name, name);
      const status = await ifThere(stat(path), undefined);
      if (status?.isFile()) files.push({ name, path, sizeBytes: status.size, usedMs: status.mtimeMs });
    }
  }
  return files;
}

/** Removes a file unless somebody else just did. */
export async function removeIfThere(path: string): Promise<void> {
  await ifThere(unlink(path), undefined);
}

async function ifThere<T>(asked: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return otherwise;
    throw error;
  }
}

/** A system error for people. */
export function systemReason(error: unknown): string {
  const reasons: Record<string, string> = {
    EACCES: 'permission denied',
    EROFS: 'it is on a read-only file system',
    ENOTDIR: 'it is not a directory',
    EEXIST: 'it is not a directory',
    ENOSPC: 'the disk is full',
    EDQUOT: 'the quota is used up',
  };
  const code = codeOf(error);
  return (code && reasons[code]) ?? (error instanceof Error ? error.message : String(error));
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
