import { accessSync, constants, existsSync } from 'node:fs';
import { arch, release } from 'node:os';
import type { Argv, CommandModule } from 'yargs';
import { hasNbdModule } from '../attach/kernel-nbd.ts';
import { findProgram, finish } from '../attach/program.ts';
import { Sandbox } from '../attach/sandbox.ts';
import { createSession, removeSession } from '../attach/sessions.ts';
import { exitCodes, KlosetNbdError } from '../core/errors.ts';
import { installedPrograms } from '../postgres/server-programs.ts';
import { type GlobalArguments, timerOption } from './arguments.ts';
import { chooseStore, openChosen } from './store.ts';

interface DoctorArguments extends GlobalArguments {
  readonly json: boolean;
}

/** One thing that was looked at. */
interface Finding {
  readonly what: string;
  /** `missing` is no fault where something else does the same; `needed` says so. */
  readonly state: 'ok' | 'missing';
  readonly needed: boolean;
  /** What there is, or what to do. */
  readonly text: string;
}

export const doctorCommand: CommandModule<object, DoctorArguments> = {
  command: 'doctor',
  describe: 'Look at what this machine has for serve, attach and pg, and say what to do about what it lacks',
  builder: (yargs) =>
    yargs.option('json', {
      describe: 'A JSON array instead of lines',
      type: 'boolean',
      default: false,
    }) as unknown as Argv<DoctorArguments>,
  handler: doctor,
};

async function doctor(given: DoctorArguments): Promise<void> {
  const findings = [
    ...programs(),
    ...ways(),
    await namespaces(),
    ...postgres(),
    await clientTimeout(timerOption('fetch-timeout', given.fetchTimeout)),
    await store(given),
  ];
  const lines = findings.map(({ what, state, text }) => `${state.padEnd(8)} ${what.padEnd(22)} ${text}\n`);
  process.stdout.write(given.json ? `${JSON.stringify(findings, undefined, 2)}\n` : lines.join(''));
  if (findings.some(({ state, needed }) => state === 'missing' && needed)) process.exitCode = exitCodes.failure;
}

function finding(what: string, ok: boolean, text: { ok: string; missing: string }, needed = true): Finding {
  return { what, state: ok ? 'ok' : 'missing', needed, text: ok ? text.ok : text.missing };
}

function programs(): Finding[] {
  const program = (name: string, use: string, install: string, needed: boolean) => {
    const path = findProgram(name);
    return finding(name, path !== undefined, { ok: path ?? '', missing: `${use}: ${install}` }, needed);
  };
  const [major] = process.versions.node.split('.').map(Number);
  return [
    finding('node', major! >= 20, {
      ok: `${process.version}, ${process.platform} ${release()} ${arch()}`,
      missing: 'install Node.js 20.19 or later',
    }),
    program('flock', 'locks overlay directories', 'apt-get install util-linux', true),
    program('nbd-client', "attaches by the kernel's client", 'apt-get install nbd-client', false),
    program('nbdfuse', 'attaches where the kernel has no nbd', 'apt-get install libnbd-bin', false),
    program('fuse2fs', 'mounts without root', 'apt-get install fuse2fs', false),
    program('unshare', 'contains PostgreSQL', 'apt-get install util-linux', false),
    program(
      'plakar',
      'for --source plakar, and for locations that are not read natively',
      'plakar (see plakar.io)',
      false,
    ),
  ];
}

/** Whether some way to attach works. */
function ways(): Finding[] {
  const isRoot = process.getuid?.() === 0;
  const nbd = isRoot && hasNbdModule();
  const fuse = mayOpen('/dev/fuse');
  const loop = isRoot && existsSync('/dev/loop-control');
  const kernel = nbd && findProgram('nbd-client') !== undefined;
  const byFuse = fuse && findProgram('nbdfuse') !== undefined && (loop || findProgram('fuse2fs') !== undefined);
  return [
    finding(
      'rights',
      isRoot,
      { ok: 'root', missing: 'not root: attach and pg work by FUSE, slowly; serve needs no rights' },
      false,
    ),
    finding(
      'kernel nbd',
      nbd,
      { ok: '/dev/nbd0', missing: 'modprobe nbd as root; where the kernel has none, nbdfuse does it' },
      false,
    ),
    finding('/dev/fuse', fuse, { ok: 'can be opened', missing: 'modprobe fuse, or give this user access' }, false),
    finding('loop devices', loop, { ok: '/dev/loop-control', missing: 'modprobe loop as root' }, false),
    finding('attach', kernel || byFuse, {
      ok: kernel ? "by the kernel's nbd client" : loop ? 'by nbdfuse and a loop device' : 'by nbdfuse and fuse2fs',
      missing: 'no way works: install nbd-client (with the nbd module) or libnbd-bin',
    }),
  ];
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    // Not there, or not for us: both are told the same way.
    return false;
  }
}

/** Tried, not guessed: containers forbid them in many ways. */
async function namespaces(): Promise<Finding> {
  const what = 'namespaces';
  const ok = 'PostgreSQL of a backup is contained';
  const missing = (why: string) => `PostgreSQL of a backup would not be contained: ${why}`;
  const impossible = Sandbox.whyImpossible();
  if (impossible !== undefined) return finding(what, false, { ok, missing: missing(impossible) }, false);
  const directory = await createSession();
  try {
    const sandbox = await Sandbox.start({ directory });
    await sandbox.close();
    return finding(what, true, { ok, missing: '' }, false);
  } catch (error) {
    if (!(error instanceof KlosetNbdError)) throw error;
    return finding(what, false, { ok, missing: missing(error.message) }, false);
  } finally {
    await removeSession(directory);
  }
}

function postgres(): Finding[] {
  const installed = installedPrograms();
  const missing = 'no server is installed: apt-get install postgresql, of the major version of the backup';
  if (installed.length === 0) return [finding('PostgreSQL', false, { ok: '', missing }, false)];
  return installed.map(({ directory, version }) =>
    finding('PostgreSQL', true, { ok: `${version} in ${directory}`, missing: '' }, false),
  );
}

/** A kernel that gives up before we do takes the disk away from a mounted filesystem. */
async function clientTimeout(fetchTimeoutMs: number): Promise<Finding> {
  const { stdout } = await finish([
    'sh',
    '-c',
    'for d in /sys/block/nbd*; do [ ! -e $d/pid ] || cat $d/queue/io_timeout; done',
  ]);
  return judgeTimeouts(stdout.split('\n').filter(Boolean).map(Number), fetchTimeoutMs);
}

/**
 * What the kernel tells of a device for which nbd-client was given no time-out, and which waits for ever. One that was given
 * just this cannot be told from it. Source: drivers/block/nbd.c, nbd_set_cmd_timeout.
 */
const NO_TIMEOUT_MS = 30_000;

/** `timeoutsMs`: of each nbd device in use. */
export function judgeTimeouts(timeoutsMs: readonly number[], fetchTimeoutMs: number): Finding {
  if (timeoutsMs.length === 0) {
    return finding('nbd-client time-out', true, { ok: 'no nbd device is in use', missing: '' }, false);
  }
  const limits = timeoutsMs.filter((timeoutMs) => timeoutMs > 0 && timeoutMs !== NO_TIMEOUT_MS);
  const shortestMs = Math.min(...limits);
  const seconds = (milliseconds: number) => `${milliseconds / 1000} s`;
  // Longer than the time-out, or none, which nbd-client calls 0.
  const advice = `${seconds(shortestMs)} are less than --fetch-timeout (${seconds(fetchTimeoutMs)}): attach with nbd-client -timeout ${Math.ceil(fetchTimeoutMs / 1000) * 2}`;
  const ok = limits.length === 0 ? 'none' : seconds(shortestMs);
  return finding('nbd-client time-out', !(shortestMs < fetchTimeoutMs), { ok, missing: advice }, false);
}

async function store(given: DoctorArguments): Promise<Finding> {
  try {
    const opened = await openChosen(chooseStore(given));
    const text = `${opened.repository.location}, ${opened.snapshots.length} snapshots`;
    await opened.close();
    return finding('store', true, { ok: text, missing: '' });
  } catch (error) {
    if (!(error instanceof KlosetNbdError)) throw error;
    // Whoever names a store wants to know of it.
    return finding('store', false, { ok: '', missing: error.message }, given.store !== undefined);
  }
}
