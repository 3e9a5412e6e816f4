/** The end of what a killed process left behind. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeMemoryGroups } from './memory-groups.ts';
import { finish } from './program.ts';
import { removeSession, type SessionRecord } from './sessions.ts';

/** Programs that a session runs, and how each is ended: PostgreSQL takes its sessions with it. */
const SIGNALS: Readonly<Record<string, NodeJS.Signals>> = {
  postgres: 'SIGQUIT',
  nbdfuse: 'SIGKILL',
  fuse2fs: 'SIGKILL',
  'nbd-client': 'SIGKILL',
};

/** How long they may take to end, milliseconds; one that waits for a disk ends when that is gone. */
const END_MS_MAX = 10_000;
const POLL_MS = 10;

/**
 * Takes down what is left of a session whose process is gone: its programs, mounts, loop and nbd devices, its directory.
 * What was not written back is lost with the process already, so nothing is waited for.
 */
export async function takeDown(directory: string, record: SessionRecord | undefined): Promise<void> {
  if (record?.container !== undefined) await finish(['docker', 'rm', '--force', record.container]);
  await endPrograms(directory, ['postgres']);
  const disk = join(directory, 'disk');
  if (record?.mountPoint !== undefined && (await isOurs(record.mountPoint, directory, record))) {
    await unmount(record.mountPoint);
  }
  for (const mountPoint of [join(directory, 'mnt'), disk]) await unmount(mountPoint);
  if (record?.method === 'nbd' && record.device !== undefined && isConnected(record)) {
    await finish(['nbd-client', '-d', record.device]);
  }
  await endPrograms(directory, Object.keys(SIGNALS));
  // One that was just starting may have mounted meanwhile.
  await unmount(disk);
  if (record?.memoryGroups !== undefined) await removeMemoryGroups(record.memoryGroups);
  await removeSession(directory);
}

/** Lazily: programs that still have files open there shall not keep the rest. */
async function unmount(mountPoint: string): Promise<void> {
  const isMounted = async () => (await finish(['findmnt', '-n', '--mountpoint', mountPoint])).status === 0;
  if (await isMounted()) await finish(['umount', '--lazy', mountPoint]);
  if (await isMounted()) await finish(['fusermount3', '-uz', mountPoint]);
}

/** Somebody may have mounted something else where a session was once. */
async function isOurs(mountPoint: string, directory: string, record: SessionRecord): Promise<boolean> {
  const { stdout } = await finish(['findmnt', '-n', '-o', 'SOURCE', '--mountpoint', mountPoint]);
  const source = stdout.trim().split('\n').at(-1)!;
  const file = source.startsWith('/dev/loop') ? backingFile(source) : source;
  // As the kernel names a file whose own filesystem is unmounted already.
  const isDetached = file === '/nbd' && source === record.device;
  return file.startsWith(`${directory}/`) || isDetached || (record.method === 'nbd' && source === record.device);
}

function backingFile(device: string): string {
  return textOf(`/sys/block/${basename(device)}/loop/backing_file`).trim();
}

/** Whether the client that keeps the device is the session's: the device may be another's by now. */
function isConnected({ device, uri }: SessionRecord): boolean {
  const words = textOf(`/proc/${textOf(`/sys/block/${basename(device!)}/pid`).trim()}/cmdline`).split('\0');
  return words.includes(device!) && words.includes(decodeURIComponent(new URL(uri).pathname.slice(1)));
}

/** Ends the programs of those names that have the session's directory in their words, and waits for their end. */
async function endPrograms(directory: string, names: readonly string[]): Promise<void> {
  const until = Date.now() + END_MS_MAX;
  for (let isFirst = true; Date.now() < until; isFirst = false) {
    const found = readdirSync('/proc').flatMap((pid) => {
      const name = /^\d+$/.test(pid) ? textOf(`/proc/${pid}/comm`).trim() : '';
      return names.includes(name) && textOf(`/proc/${pid}/cmdline`).includes(`${directory}/`) ? [{ pid, name }] : [];
    });
    if (found.length === 0) return;
    if (isFirst) for (const { pid, name } of found) signal(Number(pid), SIGNALS[name]!);
    await sleep(POLL_MS);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Empty if there is no such file, or no such process any more. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Gone between looking and reading, or never there.
    return '';
  }
}
