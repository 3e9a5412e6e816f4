/**
 * An export as a mounted filesystem, by the best way that this machine has:
 *
 *   nbd    the kernel's own client: /dev/nbdN, set up by nbd-client
 *   loop   nbdfuse shows the disk as a file, the kernel mounts that by a loop device
 *   fuse   nbdfuse, and fuse2fs for ext4: the one way without root; slow
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exitCodes, UserError } from '../core/errors.ts';
import { findFreeNbd, hasNbdModule } from './kernel-nbd.ts';
import { complaint, findProgram, finish, requireProgram, run } from './program.ts';
import { startOf } from './sessions.ts';

export const attachMethods = ['nbd', 'loop', 'fuse'] as const;
export type AttachMethod = (typeof attachMethods)[number];

/** What a server serves, as a client names it. */
export interface ExportAddress {
  readonly uri: string;
  readonly name: string;
  readonly at: { readonly path: string } | { readonly host: string; readonly port: number };
}

export interface MountRequest {
  readonly address: ExportAddress;
  /** An existing directory. */
  readonly mountPoint: string;
  /** A directory for what the way needs; stays the caller's. */
  readonly workDirectory: string;
  readonly readOnly: boolean;
  /** Undefined: the first that works. */
  readonly method?: AttachMethod | undefined;
  /** The words that run a program where the mount shall be. */
  inside(words: readonly string[]): readonly string[];
  /** The helper programs go on when this process ends. */
  readonly detached: boolean;
  /** When it is aborted, attaching stops and is undone. */
  readonly ending?: AbortSignal;
  /** Called with the device before it is connected, where that outlives this process. */
  onDevice?(device: string): Promise<void>;
}

export interface MountedDisk {
  readonly method: AttachMethod;
  /** The block device, or the file that stands for it. */
  readonly device: string;
  readonly mountPoint: string;
  /** The process that keeps it: nbdfuse or nbd-client. */
  readonly pid: number | undefined;
}

/** How long a disk may take to appear: opening a big snapshot takes its time, so this is for what hangs, milliseconds. */
const APPEAR_MS_MAX = 600_000;
const POLL_MS = 10;

/**
 * Pages that may wait to be written to the device, in percent of all that may: few, since client and server of one
 * machine share its memory, and a client that has filled it waits for a server that waits for memory.
 */
const DIRTY_SHARE_PERCENT = 10;

/** The first way that can work here; throws UserError saying what to install if there is none. */
export function chooseMethod(): AttachMethod {
  const isRoot = process.getuid?.() === 0;
  if (isRoot && findProgram('nbd-client') !== undefined && hasNbdModule()) return 'nbd';
  requireProgram('nbdfuse');
  if (isRoot) return 'loop';
  requireProgram('fuse2fs');
  return 'fuse';
}

/** Attaches and mounts; undoes what it did if a part fails. Rejects with UserError quoting the program that failed. */
export async function mountDisk(request: MountRequest): Promise<MountedDisk> {
  const method = request.method ?? chooseMethod();
  return method === 'nbd' ? mountKernelNbd(request) : mountNbdfuse(request, method);
}

async function mountKernelNbd(request: MountRequest): Promise<MountedDisk> {
  const { address, mountPoint, readOnly, inside } = request;
  const device = findFreeNbd();
  await request.onDevice?.(device);
  const where = 'path' in address.at ? ['-unix', address.at.path] : [address.at.host, String(address.at.port)];
  // Without netlink the connection is the program's: it ends with it.
  const words = ['nbd-client', ...where, device, '-N', address.name, '-nonetlink', ...(readOnly ? ['-R'] : [])];
  await run(inside(words), { what: `nbd-client for ${address.uri}` });
  try {
    const pid = await clientOf(device);
    await limitDirtyPages(`/sys/block/${basename(device)}`);
    await run(inside(['mount', '-t', 'ext4', '-o', mountOptions(readOnly), device, mountPoint]), {
      what: `Mounting ${device}`,
    });
    return { method: 'nbd', device, mountPoint, pid };
  } catch (error) {
    await finish(['nbd-client', '-d', device]);
    throw error;
  }
}

/** How long nbd-client may take from its end in the foreground to the device's start, milliseconds. */
const CLIENT_MS_MAX = 10_000;

/** The process that keeps the device: nbd-client returns before that has begun. */
async function clientOf(device: string): Promise<number> {
  const path = `/sys/block/${basename(device)}/pid`;
  const end = Date.now() + CLIENT_MS_MAX;
  for (;;) {
    const text = await readFile(path, 'utf8').catch(() => '');
    if (text !== '') return Number(text);
    if (Date.now() > end) throw new UserError(`${device} has no client: the server has closed the connection at once.`);
    await sleep(POLL_MS);
  }
}

async function mountNbdfuse(request: MountRequest, method: 'loop' | 'fuse'): Promise<MountedDisk> {
  const { address, mountPoint, workDirectory, readOnly, inside, detached, ending } = request;
  const directory = join(workDirectory, 'disk');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const pidFile = join(workDirectory, 'nbdfuse.pid');
  const words = ['nbdfuse', '--pidfile', pidFile, ...(readOnly ? ['-r'] : []), directory, address.uri];
  const child = startHelper(inside(words), detached);
  try {
    await appears(pidFile, child, ending);
    const file = join(directory, 'nbd');
    if (method === 'fuse') {
      const options = `${readOnly ? 'ro' : 'rw'},nosuid,nodev,fakeroot`;
      await run(inside(['fuse2fs', '-o', options, file, mountPoint]), { what: 'fuse2fs' });
      return { method, device: file, mountPoint, pid: child.process.pid };
    }
    const options = `loop,${mountOptions(readOnly)}`;
    await run(inside(['mount', '-t', 'ext4', '-o', options, file, mountPoint]), { what: 'Mounting the disk' });
    const device = (await finish(inside(['findmnt', '-n', '-o', 'SOURCE', '--target', mountPoint]))).stdout.trim();
    await limitDirtyPages(`/sys/block/${basename(device)}`);
    return { method, device, mountPoint, pid: child.process.pid };
  } catch (error) {
    await finish(inside(['umount', directory]));
    child.process.kill();
    throw error;
  }
}

/**
 * A device node of a backup would be this machine's device, and a set-uid program of it would get this machine's rights.
 * ext4's own times of access would be writes that nobody asked for.
 */
function mountOptions(readOnly: boolean): string {
  return `${readOnly ? 'ro' : 'rw'},nosuid,nodev,noatime`;
}

interface Helper {
  readonly process: ChildProcess;
  said(): string;
}

/** A program that runs as long as the disk is there. */
function startHelper([command, ...given]: readonly string[], detached: boolean): Helper {
  const stdio = ['ignore', 'ignore', detached ? 'ignore' : 'pipe'] as const;
  // Ctrl-C is for this process, which takes the disk down in order.
  const child = spawn(command!, given, { stdio: [...stdio], detached: true });
  let stderr = '';
  child.stderr?.on('data', (bytes: Buffer) => {
    stderr = complaint(stderr + bytes.toString());
  });
  child.on('error', (error) => {
    stderr = error.message;
  });
  if (detached) child.unref();
  return { process: child, said: () => stderr };
}

async function appears(path: string, helper: Helper, ending: AbortSignal | undefined): Promise<void> {
  const until = Date.now() + APPEAR_MS_MAX;
  while (Date.now() < until) {
    ending?.throwIfAborted();
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (isThere) return;
    if (helper.process.exitCode !== null || helper.process.signalCode !== null) {
      throw new UserError(`nbdfuse failed: ${helper.said() || 'it ended at once'}`, { exitCode: exitCodes.failure });
    }
    await sleep(POLL_MS);
  }
  throw new UserError(`nbdfuse did not show the disk within ${APPEAR_MS_MAX / 1000} s.`, {
    exitCode: exitCodes.failure,
  });
}

/** Source: the kernel's Documentation/ABI/testing/sysfs-class-bdi. */
async function limitDirtyPages(sysfs: string): Promise<void> {
  await writeFile(join(sysfs, 'bdi', 'max_ratio'), String(DIRTY_SHARE_PERCENT)).catch((error) => {
    // Of a device that has none, or where sysfs is read-only (in a container), nothing is limited.
    if (!['ENOENT', 'EROFS', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  });
}

/**
 * Writes everything back, unmounts and detaches; when it resolves, nothing of the disk is left. Idempotent. Rejects with
 * UserError if the filesystem is in use.
 */
export async function unmountDisk(
  disk: Pick<MountedDisk, 'method' | 'device' | 'mountPoint' | 'pid'>,
  { workDirectory, inside }: Pick<MountRequest, 'workDirectory' | 'inside'>,
): Promise<void> {
  if (await isMounted(disk.mountPoint, inside)) {
    const words = disk.method === 'fuse' ? ['fusermount3', '-u', disk.mountPoint] : ['umount', disk.mountPoint];
    await run(inside(words), { what: `Unmounting ${disk.mountPoint}` });
  }
  if (disk.method === 'nbd') {
    // From here: a network namespace has no netlink of nbd's, by which it is done.
    await run(['nbd-client', '-d', disk.device], { what: `Detaching ${disk.device}` });
    await until(async () => !(await exists(`/sys/block/${basename(disk.device)}/pid`)), `${disk.device} to be free`);
    return;
  }
  const directory = join(workDirectory, 'disk');
  if (await isMounted(directory, inside)) {
    const words = disk.method === 'fuse' ? ['fusermount3', '-u', directory] : ['umount', directory];
    // The loop device lets go of the file a moment after its filesystem is unmounted.
    await until(async () => (await finish(inside(words))).status === 0, `${directory} to be free`);
  }
  if (disk.pid !== undefined) await until(async () => startOf(disk.pid!) === undefined, `nbdfuse (${disk.pid}) to end`);
}

async function isMounted(path: string, inside: MountRequest['inside']): Promise<boolean> {
  return (await finish(inside(['findmnt', '-n', '--mountpoint', path]))).status === 0;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** How long taking down may take, milliseconds: all that was written has left the page cache by then. */
const RELEASE_MS_MAX = 60_000;

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + RELEASE_MS_MAX;
  while (!(await condition())) {
    if (Date.now() > end) {
      throw new UserError(`Waited ${RELEASE_MS_MAX / 1000} s for ${what}: look for what still uses it (lsof, fuser).`, {
        exitCode: exitCodes.failure,
      });
    }
    await sleep(POLL_MS);
  }
}
