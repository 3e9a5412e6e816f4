/**
 * Two memory groups where this process runs in a limited one of control groups version 1. There a process that needs
 * memory of a full group waits until pages of that group are written; a server that waits for pages which it itself must
 * write waits for ever. With a group each, what the database has written is never in the server's way. Version 2 does not
 * wait so, and needs nothing. Source: the kernel's mm/vmscan.c, shrink_folio_list; cgroup-v1/memory.rst.
 */
import { readFileSync } from 'node:fs';
import { mkdir, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Shares of the limit, percent; the rest is what this process took before. */
const SERVER_PERCENT = 50;
const DATABASE_PERCENT = 37;

/** A larger limit is none: a group without one tells a number near 2^63. */
const LIMIT_BYTES_MAX = 2 ** 50;

/** How long the kernel may take to see that a group is empty, milliseconds. */
const EMPTY_MS_MAX = 5000;
const POLL_MS = 10;

/** $0: the group; then the words that run in it. */
const ENTER = 'echo $$ > "$0/cgroup.procs"; exec "$@"';

export class MemoryGroups {
  readonly serverBytesMax: number;
  readonly databaseBytesMax: number;
  readonly #above: string;
  readonly #own: string;

  private constructor(above: string, own: string, bytesMax: number) {
    this.#above = above;
    this.#own = own;
    this.serverBytesMax = share(bytesMax, SERVER_PERCENT);
    this.databaseBytesMax = share(bytesMax, DATABASE_PERCENT);
  }

  /** Puts this process into a group of its own; `name` is theirs. Undefined where none is needed, or none can be made. */
  static async enter(name: string): Promise<MemoryGroups | undefined> {
    const above = limitedGroup();
    if (above === undefined) return undefined;
    const groups = new MemoryGroups(above.directory, join(above.directory, name), above.bytesMax);
    try {
      await groups.#make('server', groups.serverBytesMax);
      await groups.#make('database', groups.databaseBytesMax);
      await writeFile(join(groups.#own, 'server', 'cgroup.procs'), String(process.pid));
      return groups;
    } catch (error) {
      await groups.leave();
      if (['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
      throw error;
    }
  }

  /** Where they are. */
  get directory(): string {
    return this.#own;
  }

  /** The words that run a program in the database's group. */
  database(words: readonly string[]): readonly string[] {
    return ['sh', '-c', ENTER, join(this.#own, 'database'), ...words];
  }

  /** Puts this process back and removes the groups. Idempotent. */
  async leave(): Promise<void> {
    await writeFile(join(this.#above, 'cgroup.procs'), String(process.pid)).catch(() => undefined);
    await removeMemoryGroups(this.#own);
  }

  async #make(name: string, bytesMax: number): Promise<void> {
    const directory = join(this.#own, name);
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'memory.limit_in_bytes'), String(bytesMax));
  }
}

/** Removes groups as soon as nothing runs in them. */
export async function removeMemoryGroups(directory: string): Promise<void> {
  const until = Date.now() + EMPTY_MS_MAX;
  for (const path of [join(directory, 'server'), join(directory, 'database'), directory]) {
    while (Date.now() < until && !(await isRemoved(path))) await sleep(POLL_MS);
  }
}

async function isRemoved(path: string): Promise<boolean> {
  return rmdir(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== 'EBUSY',
  );
}

/** Where a process's group of version 1 is, by what its files in /proc say; undefined if it has none. Source: cgroups(7), proc(5). */
export function groupDirectory(cgroup: string, mountinfo: string): string | undefined {
  const path = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(cgroup)?.[1];
  const mount = mountinfo.split('\n').find((line) => / - cgroup \S+ \S*\bmemory\b/.test(line));
  if (path === undefined || mount === undefined) return undefined;
  const [, , , root, mountPoint] = mount.split(' ');
  return join(mountPoint!, root === '/' ? path : path.slice(root!.length));
}

/** This process's group, if it has a limit and is of version 1. */
function limitedGroup(): { readonly directory: string; readonly bytesMax: number } | undefined {
  try {
    const directory = groupDirectory(
      readFileSync('/proc/self/cgroup', 'utf8'),
      readFileSync('/proc/self/mountinfo', 'utf8'),
    );
    if (directory === undefined) return undefined;
    const bytesMax = Number(
      /^hierarchical_memory_limit (\d+)$/m.exec(readFileSync(join(directory, 'memory.stat'), 'utf8'))?.[1],
    );
    return bytesMax < LIMIT_BYTES_MAX ? { directory, bytesMax } : undefined;
  } catch {
    // No such files: no control groups, or not to be read.
    return undefined;
  }
}

function share(bytes: number, percent: number): number {
  return Math.floor((bytes / 100) * percent);
}
