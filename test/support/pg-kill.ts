/** `pg` and `attach` killed at random moments, and what of them is left on the machine. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { builtCli } from './cli.ts';
import type { Random } from './overlay-random.ts';
import type { Sessions } from './pg-session.ts';

export const killSignals = ['SIGKILL', 'SIGTERM', 'SIGINT'] as const;

/** The signal, when it came, and what became of the process: its exit status, or the signal's name. */
export interface Killed {
  readonly signal: NodeJS.Signals;
  readonly stage: string;
  readonly afterMs: number;
  readonly ended: number | string;
  readonly stderr: string;
}

/** Whether a stage is reached, told from what the process wrote to standard error. */
export type Stages = Readonly<Record<string, (stderr: string) => boolean>>;

/** How often a stage is looked for, and how long after it the signal comes at most, milliseconds. */
const LOOK_MS = 2;
const AFTER_MS = 400;

/** Starts the command line as a terminal does, in a process group of its own, and ends it a moment after a random stage. */
export async function startAndKill(
  sessions: Sessions,
  {
    words,
    random,
    stages,
    signals = killSignals,
  }: { words: readonly string[]; random: Random; stages: Stages; signals?: readonly NodeJS.Signals[] },
): Promise<Killed> {
  const signal = signals[random.below(signals.length)]!;
  const [stage, isReached] = Object.entries(stages)[random.below(Object.keys(stages).length)]!;
  const afterMs = random.below(AFTER_MS);
  const env = { ...process.env, KLOSET_NBD_RUN_DIR: sessions.directory };
  const child = spawn(process.execPath, [builtCli, ...words], {
    env,
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (bytes: Buffer) => {
    stderr += bytes.toString();
  });
  const ended = once(child, 'exit').then(([status, by]) => (status ?? by) as number | string);
  while (!isReached(stderr) && child.exitCode === null && child.signalCode === null) await sleep(LOOK_MS);
  await sleep(afterMs);
  send(child, signal);
  const how = await ended;
  child.stderr.destroy();
  return { signal, stage, afterMs, ended: how, stderr };
}

/** Ctrl-C reaches the whole group; the others are sent to one process. */
function send(child: ChildProcess, signal: NodeJS.Signals): void {
  if (signal !== 'SIGINT') child.kill(signal);
  else if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, signal);
}

/** Everything on the machine that names `directory`: processes, mounts, loop devices. */
export function leftOnMachine(directory: string): string[] {
  return [...processes(directory), ...mounts(directory), ...loopDevices(directory)];
}

function processes(directory: string): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid) || pid === String(process.pid)) return [];
    const words = text(`/proc/${pid}/cmdline`).replaceAll('\0', ' ');
    // A process of PostgreSQL's has a title in place of its words, and the socket's directory in its environment.
    const isOurs =
      words.includes(directory) || text(`/proc/${pid}/environ`).includes(directory) || inside(pid, directory);
    return isOurs && words !== '' ? [`process ${pid}: ${words}`] : [];
  });
}

function inside(pid: string, directory: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/cwd`).startsWith(directory);
  } catch {
    // It ended meanwhile.
    return false;
  }
}

function mounts(directory: string): string[] {
  const lines = text('/proc/self/mountinfo').split('\n');
  return lines.filter((line) => line.includes(directory)).map((line) => `mount: ${line}`);
}

function loopDevices(directory: string): string[] {
  return readdirSync('/sys/block').flatMap((name) => {
    const file = text(`/sys/block/${name}/loop/backing_file`).trim();
    return file.includes(directory) ? [`/dev/${name}: ${file}`] : [];
  });
}

function text(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Gone between looking and reading, or never there.
    return '';
  }
}
