/**
 * What a test needs from the machine, asked for by name:
 *
 *   const need = requires('e2fsck', 'root');
 *   describe.skipIf(need.missing)(need.title('a fresh image'), () => { … });
 *
 * `title` puts the reason for a skip into the test's name, where people and the skip reporter (skips-reporter.ts) read
 * it. A probe looks at the real thing - attaches a loop device, opens /dev/fuse - since containers often have the
 * command without the right to use it.
 */
import { execFileSync } from 'node:child_process';
import { accessSync, closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

/** Commands, each with the Debian package that brings it: the hint in the reason for a skip. */
const commandPackages = {
  debugfs: 'e2fsprogs',
  dumpe2fs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  fio: 'fio',
  flock: 'util-linux',
  fuse2fs: 'fuse2fs',
  getfacl: 'acl',
  getfattr: 'attr',
  ip: 'iproute2',
  'mkfs.ext4': 'e2fsprogs',
  'mkfs.xfs': 'xfsprogs',
  'nbd-client': 'nbd-client',
  nbdcopy: 'libnbd-bin',
  nbdfuse: 'libnbd-bin',
  nbdinfo: 'libnbd-bin',
  nbdkit: 'nbdkit',
  nbdsh: 'python3-libnbd',
  npm: 'npm',
  openssl: 'openssl',
  'qemu-img': 'qemu-utils',
  python3: 'python3',
  'qemu-io': 'qemu-utils',
  setpriv: 'util-linux',
  slirp4netns: 'slirp4netns',
  unshare: 'util-linux',
} as const;

/** Abilities that are more than a command on PATH: each returns why it is missing, or undefined. */
const probes = {
  /** Uid 0. */
  root: () => (process.getuid?.() === 0 ? undefined : 'not running as root'),
  /** mount(2) is allowed, with the mount command at hand. */
  mount: () => noCommand('mount', 'mount') ?? (maySysAdmin() ? undefined : 'CAP_SYS_ADMIN is not held'),
  /** A loop device can be attached. */
  loop: () => noCommand('losetup', 'mount') ?? attempt(attachLoopDevice),
  /** The kernel counts what each thread reads. */
  'io-accounting': () => attempt(() => readFileSync(`/proc/self/task/${process.pid}/io`)),
  /** /dev/fuse can be opened. */
  fuse: () => attempt(() => closeSync(openSync('/dev/fuse', 'r+'))),
  /** unshare(1) may make network, PID and mount namespaces. */
  'network-namespace': () =>
    noCommand('unshare', 'util-linux') ??
    attempt(() => {
      const user = process.getuid?.() === 0 ? [] : ['--user', '--map-current-user', '--keep-caps'];
      execFileSync('unshare', [...user, '--net', '--mount', '--pid', '--fork', 'true'], { stdio: 'pipe' });
    }),
  /** /dev/net/tun can be opened. */
  tun: () => attempt(() => closeSync(openSync('/dev/net/tun', 'r+'))),
  /** PostgreSQL 15's server programs, and the user to run them as: they refuse root. */
  postgres15: () =>
    findPostgres15() === undefined
      ? 'no PostgreSQL 15 programs; Debian: postgresql-15'
      : attempt(() => execFileSync('id', ['-u', 'postgres'], { stdio: 'pipe' })),
  /** Python with the libnbd binding: `findPythonWithLibnbd` is its path. */
  'python3-libnbd': () => (findPythonWithLibnbd() ? undefined : 'no python3 with libnbd; Debian: python3-libnbd'),
  /** A server of the S3 protocol: versitygw (`go install github.com/versity/versitygw/cmd/versitygw@v1.8.0`), else moto's. */
  's3-server': () =>
    findCommand('versitygw') || findCommand('moto_server')
      ? undefined
      : 'neither versitygw nor moto_server on PATH; Go: versity/versitygw; Python: moto',
  /** The backup program itself, for comparisons with what it reads. */
  plakar: () => (findCommand('plakar') ? undefined : 'not on PATH'),
} as const;

export type Need = keyof typeof probes | keyof typeof commandPackages;

export interface Requirement {
  /** Whether the tests must be skipped. */
  readonly missing: boolean;
  /** `name`, followed by the reason if the tests will be skipped. */
  title(name: string): string;
}

export function requires(...needs: readonly Need[]): Requirement {
  const reasons = needs.flatMap((need) => {
    const reason = whyMissing(need);
    return reason === undefined ? [] : [`${need} (${reason})`];
  });
  return {
    missing: reasons.length > 0,
    title: (name) => (reasons.length === 0 ? name : `${name} ${renderSkip(reasons)}`),
  };
}

function renderSkip(reasons: readonly string[]): string {
  return `[skipped, needs ${reasons.join('; needs ')}]`;
}

/** The needs a test's full name says are missing; undefined if it names none. The reporter's side of `title`. */
export function missingNeeds(fullName: string): readonly string[] | undefined {
  const suffixes = [...fullName.matchAll(/\[skipped, needs (.*?)\)\]/g)];
  if (suffixes.length === 0) return undefined;
  return [...new Set(suffixes.flatMap(([, list]) => list!.split('; needs ').map((item) => item.replace(/ \(.*/, ''))))];
}

/** Where a command is: PATH first, then the system directories that an ordinary user's PATH leaves out. */
export function findCommand(name: string): string | undefined {
  const path = process.env.PATH?.split(delimiter) ?? [];
  return [...path, '/usr/local/sbin', '/usr/sbin', '/sbin'].map((folder) => join(folder, name)).find(isExecutable);
}

/** As findCommand, for code behind a `requires` that made sure of it. */
export function commandPath(name: string): string {
  const path = findCommand(name);
  if (path === undefined) throw new Error(`${name} is not installed: the test lacks a requires('${name}')`);
  return path;
}

/** The directory of PostgreSQL 15's programs: distributions keep them off PATH, several versions side by side. */
export function findPostgres15(): string | undefined {
  return remembered('postgres15', () => {
    const pgConfig = findCommand('pg_config');
    const candidates = [
      '/usr/lib/postgresql/15/bin',
      '/usr/pgsql-15/bin',
      '/usr/local/pgsql/bin',
      ...(pgConfig === undefined ? [] : [outputOf(pgConfig, '--bindir') ?? '']),
      ...(process.env.PATH?.split(delimiter) ?? []),
    ];
    return candidates.find(
      (folder) =>
        ['postgres', 'pg_ctl', 'psql'].every((name) => isExecutable(join(folder, name))) &&
        / 15\.\d/.test(outputOf(join(folder, 'postgres'), '--version') ?? ''),
    );
  });
}

/** The system's python3 first: another one on PATH does not see Debian's modules. */
export function findPythonWithLibnbd(): string | undefined {
  return remembered('python', () =>
    ['/usr/bin/python3', findCommand('python3')].find(
      (python) => python !== undefined && outputOf(python, '-c', 'import nbd; print("ok")') === 'ok',
    ),
  );
}

const answers = new Map<string, string | undefined>();

/** Asks once a process: a probe costs a child process, and every test file asks. */
function remembered(key: string, ask: () => string | undefined): string | undefined {
  if (!answers.has(key)) answers.set(key, ask());
  return answers.get(key);
}

function whyMissing(need: Need): string | undefined {
  return remembered(`need ${need}`, () =>
    need in probes
      ? probes[need as keyof typeof probes]()
      : noCommand(need, commandPackages[need as keyof typeof commandPackages]),
  );
}

function noCommand(name: string, debianPackage: string): string | undefined {
  return findCommand(name) === undefined ? `not on PATH; Debian: ${debianPackage}` : undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function outputOf(command: string, ...args: readonly string[]): string | undefined {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

/** Runs `action`; what it throws becomes the reason, in one line without brackets, which delimit reasons. */
function attempt(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    const lines = String(error instanceof Error ? error.message : error).split('\n');
    return (lines.at(1) || lines[0] || 'failed').replace(/[[\]()]/g, ' ').trim();
  }
}

/** CAP_SYS_ADMIN is bit 21 of the effective set (capabilities(7)). */
function maySysAdmin(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return (BigInt(`0x${effective}`) & (1n << 21n)) !== 0n;
}

function attachLoopDevice(): void {
  const folder = mkdtempSync(join(tmpdir(), 'loop-probe-'));
  try {
    const file = join(folder, 'image');
    closeSync(openSync(file, 'w'));
    truncateSync(file, 1024 * 1024);
    const losetup = commandPath('losetup');
    const device = execFileSync(losetup, ['--find', '--show', file], { encoding: 'utf8', stdio: 'pipe' }).trim();
    execFileSync(losetup, ['--detach', device], { stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
