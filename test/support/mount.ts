/**
 * An export as a mounted filesystem: nbdfuse shows it as a file, a loop device makes a disk of the file, and the kernel
 * mounts that. Needs requires('nbdfuse', 'fuse', 'loop', 'mount', 'root').
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, watch } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { mustRun, run } from './cli.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { commandPath, type Need } from './requires.ts';

/** For `requires(...)`. */
export const mountNeeds = ['root', 'nbdfuse', 'fuse', 'loop', 'mount', 'e2fsck'] as const satisfies readonly Need[];

export interface AttachedDevice {
  /** `/dev/loopN`. */
  readonly path: string;
  /** Gives the device back and disconnects from the server. Idempotent. */
  detach(): Promise<void>;
}

export interface Mount {
  readonly folder: string;
  /** Idempotent. Everything written has reached the server afterwards. */
  unmount(): Promise<void>;
}

/** Attaches an export as a block device. With `directIo` every request of the kernel reaches the server. */
export async function attachDevice(
  cleanup: Cleanup,
  uri: string,
  { readOnly = false, directIo = false }: { readOnly?: boolean; directIo?: boolean } = {},
): Promise<AttachedDevice> {
  const folder = temporaryFolder(cleanup);
  const fuseFolder = join(folder, 'fuse');
  mkdirSync(fuseFolder);
  const detachFile = await serveAsFile(uri, { folder: fuseFolder, pidFile: join(folder, 'pid'), readOnly });
  const file = join(fuseFolder, 'nbd');
  let path: string;
  try {
    const flags = [...(readOnly ? ['--read-only'] : []), ...(directIo ? ['--direct-io=on'] : [])];
    path = (await mustRun(commandPath('losetup'), [...flags, '--find', '--show', file])).trim();
  } catch (error) {
    await detachFile();
    throw error;
  }
  const detach = once(async () => {
    await mustRun(commandPath('losetup'), ['--detach', path]);
    await untilFree(path, file);
    await detachFile();
  });
  cleanup.add(detach);
  return { path, detach };
}

/** Mounts a block device that holds ext4. */
export async function mountDevice(
  cleanup: Cleanup,
  devicePath: string,
  { options = 'rw' }: { options?: string } = {},
): Promise<Mount> {
  const folder = join(temporaryFolder(cleanup), 'mnt');
  mkdirSync(folder);
  await mustRun(commandPath('mount'), ['-t', 'ext4', '-o', options, devicePath, folder]);
  const unmount = once(async () => {
    await mustRun(commandPath('umount'), [folder]);
  });
  cleanup.add(unmount);
  return { folder, unmount };
}

/** Attaches an export and mounts it; `unmount` undoes both. */
export async function mountExport(cleanup: Cleanup, uri: string, settings: { options?: string } = {}): Promise<Mount> {
  const device = await attachDevice(cleanup, uri);
  const mounted = await mountDevice(cleanup, device.path, settings);
  return {
    folder: mounted.folder,
    async unmount() {
      await mounted.unmount();
      await device.detach();
    },
  };
}

/**
 * What `e2fsck -fn` remarks on a filesystem: empty if it is clean. Its version, the names of its passes and the closing
 * count are no remarks; a filesystem that is not clean always has at least one.
 */
export async function fsckRemarks(path: string): Promise<readonly string[]> {
  const { exitCode, stdout, stderr } = await run(commandPath('e2fsck'), ['-fn', path]);
  const usual = [/^e2fsck \d/, /^Pass \d[A-Z]?: /, /^\S+: \d+\/\d+ files \(.*\), \d+\/\d+ blocks$/, /^$/];
  const remarks = `${stderr}\n${stdout}`.split('\n').filter((line) => !usual.some((pattern) => pattern.test(line)));
  return exitCode === 0 ? remarks : [`e2fsck ended with ${exitCode}`, ...remarks];
}

/** Starts nbdfuse and waits until the file is there; returns what ends it. */
async function serveAsFile(
  uri: string,
  { folder, pidFile, readOnly }: { folder: string; pidFile: string; readOnly: boolean },
): Promise<() => Promise<void>> {
  const flags = readOnly ? ['--readonly'] : [];
  const nbdfuse = spawn(commandPath('nbdfuse'), [...flags, '--pidfile', pidFile, folder, uri], {
    stdio: ['ignore', 'inherit', 'pipe'],
  });
  const errors: Buffer[] = [];
  nbdfuse.stderr.on('data', (piece) => errors.push(piece));
  const ended = new Promise<void>((resolve) => nbdfuse.once('close', () => resolve()));
  const ready = fileAppears(pidFile, ended);
  if (!(await ready)) throw new Error(`nbdfuse of ${uri} ended: ${Buffer.concat(errors)}`);
  return once(async () => {
    // One that ended by itself, because its server did, leaves its mount behind.
    if (isMounted(folder)) await mustRun(commandPath('umount'), [folder]);
    await ended;
  });
}

/** Resolves to true once the file is there, to false if `ended` settles first. */
async function fileAppears(path: string, ended: Promise<void>): Promise<boolean> {
  const watcher = watch(dirname(path));
  try {
    const appeared = new Promise<boolean>((resolve) => {
      watcher.on('change', () => existsSync(path) && resolve(true));
      if (existsSync(path)) resolve(true);
    });
    return await Promise.race([appeared, ended.then(() => false)]);
  } finally {
    watcher.close();
  }
}

/**
 * Waits until the kernel let go of a loop device's file. Whoever looks at the device last keeps it (udev does, for a
 * moment), and the kernel tells nobody when that ends: hence the looking again. Others may have the device by then.
 */
async function untilFree(path: string, file: string): Promise<void> {
  const deadlineMs = Date.now() + 30_000;
  while (fileBehind(path) === file) {
    if (Date.now() > deadlineMs) throw new Error(`${path} is still in use`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Undefined if the loop device is free. */
function fileBehind(path: string): string | undefined {
  try {
    return readFileSync(`/sys/block/${basename(path)}/loop/backing_file`, 'utf8').trim();
  } catch (error) {
    if (['ENOENT', 'ENXIO', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

function isMounted(folder: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${folder} `);
}

/** `action`, done at the first call only; later calls wait for it. */
function once(action: () => Promise<void>): () => Promise<void> {
  let result: Promise<void> | undefined;
  return () => {
    result ??= action();
    return result;
  };
}
