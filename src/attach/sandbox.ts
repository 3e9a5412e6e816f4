/**
 * Namespaces for what runs on a backup. Programs in a sandbox have mounts, processes, shared memory and a network of
 * their own: no network at all, the host's files read-only, and empty directories where servers of the host have their
 * sockets, data and temporary files. One program, which only waits for the end of its input, holds it together: when
 * this process ends, however it ends, that input ends, and the kernel kills everything in the sandbox and takes its
 * mounts down.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { exitCodes, UserError } from '../core/errors.ts';
import { complaint, findProgram, run } from './program.ts';

/**
 * What a program of a backup must not see of the host: temporary files, sockets of servers, their data. Those that the
 * host does not have are passed over.
 */
const HIDDEN = ['/tmp', '/var/tmp', '/run', '/dev/shm', '/var/lib/postgresql', '/var/lib/pgsql'];

/** Options of a mount that say whether it is writable; everything else stays as it is. */
const WRITABLE = ['rw', 'ro'];

/** Where programs and their libraries lie: what is mounted there, or above, stays. */
const SYSTEM = ['/usr', '/opt', '/nix', '/etc', '/bin', '/sbin', '/lib', '/lib64'];

/**
 * $1: what stays writable; then the mounts to give back; `--`; the mounts to make read-only, each with its options;
 * `--`; then the directories to hide. Mounts that cannot be changed are the kernel's own (such as /proc's parts).
 */
const SCRIPT = `
exec 3<"$1"; keep=$1; shift
while [ "$1" != -- ]; do umount --lazy "$1"; shift; done; shift
while [ "$1" != -- ]; do mount -o "remount,bind,$2" "$1" 2>/dev/null; shift 2; done; shift
for hidden; do [ -d "$hidden" ] && mount -t tmpfs -o mode=1777 tmpfs "$hidden"; done
set -e
mkdir -p "$keep"
mount --no-canonicalize --bind /proc/self/fd/3 "$keep"
mount -o remount,bind,rw "$keep"
`;

/** What holds it together: ready when it runs, and there until its input ends. */
const HOLD = 'echo ready; exec cat';

export class Sandbox {
  readonly #directory: string;
  /** The user is 0 inside, as mounting needs: what is to look like the user's own there is 0's. */
  readonly userIsRoot: boolean;
  readonly #holder: ChildProcess;
  readonly #enter: readonly string[];

  private constructor(directory: string, holder: ChildProcess, enter: readonly string[], userIsRoot: boolean) {
    this.#directory = directory;
    this.#holder = holder;
    this.#enter = enter;
    this.userIsRoot = userIsRoot;
  }

  /** Why there can be none here; undefined if there can. */
  static whyImpossible(): string | undefined {
    if (process.platform !== 'linux') return `namespaces are Linux's; this is ${process.platform}`;
    const missing = ['unshare', 'nsenter'].find((name) => findProgram(name) === undefined);
    return missing === undefined ? undefined : `${missing} is not installed`;
  }

  /**
   * `directory` is the one directory of the host that stays writable, seen by both sides. Rejects with UserError where
   * the kernel, or the rights of the user, do not allow it.
   */
  static async start({ directory }: { readonly directory: string }): Promise<Sandbox> {
    const isRoot = process.getuid?.() === 0;
    const own = isRoot ? [] : ['--user', '--map-root-user'];
    const words = [...own, '--net', '--mount', '--pid', '--ipc', '--fork', '--kill-child', '--mount-proc'];
    const holder = spawn('unshare', [...words, '--propagation', 'slave', 'sh', '-c', HOLD], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    await ready(holder);
    const first = firstProcessOf(holder.pid!);
    const enter = [
      'nsenter',
      '--target',
      String(first),
      ...(isRoot ? [] : ['--user', '--preserve-credentials']),
      '--net',
      '--mount',
      '--pid',
      '--ipc',
      '--',
    ];
    const sandbox = new Sandbox(directory, holder, enter, !isRoot);
    // What it has now, not what the host had before: a disk that was attached meanwhile would stay attached as long as this lives.
    const mounts = readFileSync(`/proc/${first}/mountinfo`, 'utf8').split('\n').flatMap(parseMount);
    const { readOnly, others } = hostMounts(mounts, { isRoot, directory });
    const script = [SCRIPT, 'sh', directory, ...others, '--', ...readOnly.flat(), '--', ...HIDDEN];
    await run(sandbox.inside(['sh', '-c', ...script]), { what: NO_NAMESPACE }).catch(async (error) => {
      await sandbox.close();
      throw error;
    });
    return sandbox;
  }

  /** The words that run a program inside. */
  inside(words: readonly string[]): string[] {
    return [...this.#enter, ...words];
  }

  /**
   * Makes the one directory that both sides see read-only inside, but for what is mounted below it. Rejects with UserError if
   * a program inside is writing to it.
   */
  async seal(): Promise<void> {
    const words = this.inside(['mount', '-o', 'remount,bind,ro', this.#directory]);
    await run(words, { what: 'Closing the session directory to what runs inside' });
  }

  /** Kills what runs in it and takes its mounts down. Idempotent. */
  async close(): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    const ended = once(this.#holder, 'close');
    this.#holder.stdin!.end();
    await ended;
  }
}

interface HostMounts {
  /** With the options that make it read-only and leave the rest. */
  readonly readOnly: readonly (readonly [path: string, options: string])[];
  /** Disks of their own, the newest first: a sandbox that kept them would keep them from being detached. */
  readonly others: readonly string[];
}

const NO_NAMESPACE = 'Making a namespace for PostgreSQL';

/**
 * What to do with each of a namespace's mounts. /proc stays as it is where it takes no rights to become oneself again: that is written
 * there. Source: proc(5), mountinfo.
 */
function hostMounts(
  mounts: readonly HostMount[],
  { isRoot, directory }: { readonly isRoot: boolean; readonly directory: string },
): HostMounts {
  const needed = [directory, ...SYSTEM];
  const isOther = ({ path, source, type }: HostMount) =>
    isRoot && isDisk(source, type) && !needed.some((place) => isWithin(place, path) || isWithin(path, place));
  return {
    others: mounts
      .filter(isOther)
      .map(({ path }) => path)
      .reverse(),
    readOnly: mounts
      .filter((mount) => !isOther(mount) && (isRoot || mount.path !== '/proc'))
      .map(({ path, options }) => {
        const kept = options.filter((option) => !WRITABLE.includes(option) && !option.startsWith('idmapped'));
        return [path, ['ro', ...kept].join(',')] as const;
      }),
  };
}

interface HostMount {
  readonly path: string;
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
}

function parseMount(line: string): HostMount[] {
  if (line === '') return [];
  const [, , , , path, options] = line.split(' ');
  const [type, source] = line.slice(line.indexOf(' - ') + 3).split(' ');
  return [{ path: unescapeOctal(path!), options: options!.split(','), type: type!, source: source! }];
}

function isDisk(source: string, type: string): boolean {
  // nbdfuse gives no name of its own to what it mounts.
  const isFuseFile = type === 'fuse' && source === '/dev/fuse';
  return /^\/dev\/(loop|nbd)\d/.test(source) || isFuseFile || type === 'fuse.ext4';
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

/** `\040` for a space, and the like. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

async function ready(holder: ChildProcess): Promise<void> {
  let stderr = '';
  holder.stderr!.on('data', (bytes: Buffer) => {
    stderr += bytes.toString();
  });
  const failed = (why: string) =>
    new UserError(`No namespace of its own can be made for PostgreSQL: ${why}.`, { exitCode: exitCodes.failure });
  await new Promise<void>((resolve, reject) => {
    holder.stdout!.once('data', () => resolve());
    holder.once('error', (error) => reject(failed(error.message)));
    holder.once('close', (status) => reject(failed(complaint(stderr) || `unshare ended with status ${status}`)));
  });
}

/** The process that is number 1 inside, by its number outside: unshare's only child. */
function firstProcessOf(pid: number): number {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
  if (!child) throw new UserError('The namespace for PostgreSQL ended at once.', { exitCode: exitCodes.failure });
  return Number(child);
}
