/** Disks attached to this host until somebody detaches them. */
import { lstat, mkdir, open, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { UserError } from '../core/errors.ts';
import { type DirectoryLock, lockDirectory } from '../device/directory-lock.ts';
import { type AttachMethod, type ExportAddress, mountDisk, unmountDisk } from './disk.ts';
import { findProgram, finish } from './program.ts';
import {
  createSession,
  listSessions,
  removeSession,
  type Session,
  type SessionRecord,
  sessionsDirectory,
  startOf,
  writeRecord,
} from './sessions.ts';
import { takeDown } from './take-down.ts';

export interface AttachRequest {
  readonly address: ExportAddress;
  readonly mountPoint: string;
  readonly readOnly: boolean;
  readonly method: AttachMethod | undefined;
  /** When it is aborted, attaching stops and is undone. */
  readonly ending: AbortSignal;
}

const here = (words: readonly string[]) => words;

/** How long another `attach` may hold the lock, milliseconds; mounting a disk waits for its server. */
const LOCK_MS_MAX = 60_000;
const LOCK_POLL_MS = 50;

/** Attaches and mounts. Rejects with UserError: no such directory, attached for writing already, or what a program said. */
export function attach(request: AttachRequest): Promise<Session> {
  return withLock(() => attachLocked(request));
}

async function attachLocked(request: AttachRequest): Promise<Session> {
  const { readOnly, method, ending } = request;
  const address = await withToken(request.address);
  const mountPoint = await realMountPoint(request.mountPoint);
  const sessions = (await listSessions()).filter(({ record, isAlive }) => record.kind === 'attach' && isAlive);
  const there = sessions.find(({ record }) => record.mountPoint === mountPoint);
  if (there !== undefined) {
    throw new UserError(`${mountPoint} has ${there.record.uri} already: detach it, or take another directory.`);
  }
  const writer = sessions.find(({ record }) => !record.readOnly && isSame(record.uri, address.uri));
  if (writer !== undefined && !readOnly) {
    throw new UserError(
      `${address.uri} is attached for writing at ${writer.record.mountPoint}; two mounts would destroy the filesystem. Detach it first, or attach NAME@base with --read-only.`,
    );
  }
  ending.throwIfAborted();
  const directory = await createSession();
  // Until the disk is there the session is this process's: killed, it leaves a record by which all is found.
  const planned: SessionRecord = {
    kind: 'attach',
    pid: process.pid,
    pidStart: startOf(process.pid) ?? 0,
    export: request.address.name,
    uri: address.uri,
    readOnly,
    mountPoint,
  };
  try {
    await writeRecord(directory, planned);
    const disk = await mountDisk({
      address,
      mountPoint,
      workDirectory: directory,
      readOnly,
      method,
      inside: here,
      detached: true,
      ending,
      onDevice: (device) => writeRecord(directory, { ...planned, method: 'nbd', device }),
    });
    const pid = disk.pid ?? 0;
    const record = {
      ...planned,
      pid,
      pidStart: startOf(pid) ?? 0,
      snapshot: await snapshotOf(disk.device),
      method: disk.method,
      device: disk.device,
    };
    ending.throwIfAborted();
    await writeRecord(directory, record);
    return { directory, record, isAlive: true };
  } catch (error) {
    await takeDown(directory, planned);
    throw error;
  }
}

/**
 * Detaches what is at a mount point, or is a device: writes back, unmounts, waits until the device is free. Resolves to
 * false if nothing is attached there. Rejects with UserError if it is in use.
 */
export function detach(what: string): Promise<boolean> {
  return withLock(async () => {
    const path = resolve(what);
    const real = await realpath(path).catch(() => path);
    const sessions = (await listSessions()).filter(({ record }) => record.kind === 'attach');
    const session = sessions.find(
      ({ record }) => [path, real].includes(record.mountPoint ?? '') || record.device === path,
    );
    if (session === undefined) return false;
    const { directory, record, isAlive } = session;
    if (isAlive) {
      await finish(['sync', '-f', record.mountPoint!]);
      const disk = { method: record.method!, device: record.device!, mountPoint: record.mountPoint!, pid: record.pid };
      await unmountDisk(disk, { workDirectory: directory, inside: here });
      await removeSession(directory);
    } else {
      await takeDown(directory, record);
    }
    return true;
  });
}

/** The volume name in ext4's superblock. Source: ext4's super.h, s_volume_name. */
const LABEL = { offset: 1024 + 0x78, bytes: 16 };
const LABEL_PREFIX = 'kloset-';

/** The first digits of the snapshot's id, which its label tells unless the operator chose another. */
async function snapshotOf(device: string): Promise<string | undefined> {
  const handle = await open(device, 'r');
  try {
    const { buffer } = await handle.read(Buffer.alloc(LABEL.bytes), 0, LABEL.bytes, LABEL.offset);
    const label = buffer.toString('latin1').replace(/\0.*$/s, '');
    return label.startsWith(LABEL_PREFIX) ? label.slice(LABEL_PREFIX.length) : undefined;
  } finally {
    await handle.close();
  }
}

/**
 * The same export by the name that never means another disk: `NAME@TOKEN`, which a server of ours tells in its
 * description. As it is if nobody can be asked.
 */
async function withToken(address: ExportAddress): Promise<ExportAddress> {
  if (findProgram('nbdinfo') === undefined || address.name.includes('@')) return address;
  const { stdout } = await finish(['nbdinfo', address.uri]);
  const attachName = /^\s*description: .*\battach as (.+@[0-9a-f]{32})$/m.exec(stdout)?.[1];
  if (attachName === undefined) return address;
  const path = `/${encodeURIComponent(attachName)}`;
  return { ...address, name: attachName, uri: address.uri.replace(/^([a-z+]+:\/\/[^/?]*)\/?[^?]*/, `$1${path}`) };
}

/** `@TOKEN` at the end of an export's name. */
const TOKEN = /(?:%40|@)([0-9a-f]{32})(?=\?|$)/;

/**
 * Two addresses of one disk. A token is a disk's own, whatever its names and those of the server; without one an empty path and a
 * missing one are the default export.
 */
function isSame(a: string, b: string): boolean {
  const [tokenA, tokenB] = [a, b].map((uri) => TOKEN.exec(uri)?.[1]);
  if (tokenA !== undefined && tokenA === tokenB) return true;
  const plain = (uri: string) => uri.replace(TOKEN, '').replace(/\/(?=\?|$)/, '');
  return plain(a) === plain(b);
}

async function realMountPoint(given: string): Promise<string> {
  const path = resolve(given);
  const stat = await lstat(await realpath(path).catch(() => path)).catch(() => undefined);
  if (stat === undefined) throw new UserError(`The directory ${path} does not exist: create it (mkdir ${path}).`);
  if (!stat.isDirectory()) throw new UserError(`${path} is no directory.`);
  const real = await realpath(path);
  const { status } = await finish(['findmnt', '-n', '--mountpoint', real]);
  if (status === 0)
    throw new UserError(`Something is mounted at ${real} already: unmount it, or take another directory.`);
  return real;
}

/** One attach or detach at a time on a host. */
async function withLock<T>(work: () => Promise<T>): Promise<T> {
  const base = sessionsDirectory();
  await mkdir(base, { recursive: true, mode: 0o711 });
  const lock = await takeLock(base);
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

async function takeLock(base: string): Promise<DirectoryLock> {
  const until = Date.now() + LOCK_MS_MAX;
  for (;;) {
    try {
      return await lockDirectory(base);
    } catch (error) {
      if (!(error instanceof UserError) || error.details.holder === undefined) throw error;
      if (Date.now() > until) {
        throw new UserError(`Another attach or detach does not end (process ${error.details.holder}): end it.`);
      }
    }
    await sleep(LOCK_POLL_MS);
  }
}
