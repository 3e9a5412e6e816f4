/** What processes have taken: their CPU time, memory and bytes read, by /proc; and commands run to be measured. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { mustRun } from '../../test/support/cli.ts';

export interface Usage {
  readonly cpuSeconds: number;
  /** Bytes that read(2) and its like returned, whether from a disk or from a cache of the kernel's. */
  readonly readBytes: number;
  /** Resident memory, at its most. */
  readonly peakBytes: number;
}

export interface Measured extends Usage {
  /** From before the process is made until after its end. */
  readonly seconds: number;
  readonly stdout: string;
}

export class TimeLimitError extends Error {
  constructor(what: string, limitMs: number) {
    super(`${what} was not done after ${limitMs / 1000} s`);
    this.name = 'TimeLimitError';
  }
}

/** USER_HZ, which is 100 on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;
/** How often a running command is asked for its memory: the most it had never falls, so only the end may be missed. */
const LOOK_EVERY_MS = 50;

/** Of a process that runs, with its threads but without its children. */
export function usageOf(pid: number): Usage {
  const [user, system] = statFields(readFileSync(`/proc/${pid}/stat`, 'utf8')).slice(0, 2);
  return {
    cpuSeconds: (user! + system!) / TICKS_PER_SECOND,
    readBytes: field(readFileSync(`/proc/${pid}/io`, 'utf8'), 'rchar'),
    peakBytes: peakOf(pid) ?? 0,
  };
}

/**
 * Runs a command to its end, its standard output thrown away unless `keepsOutput`. A shell around it tells what it has
 * taken: /proc gives a process the figures of the children it has waited for. Rejects if it fails, and with
 * TimeLimitError if it takes longer than `limitMs`.
 */
export async function measure(
  command: string,
  args: readonly string[],
  {
    env = process.env,
    cwd,
    limitMs,
    keepsOutput = false,
  }: { env?: NodeJS.ProcessEnv; cwd?: string; limitMs?: number; keepsOutput?: boolean } = {},
): Promise<Measured> {
  const script = '"$@"; status=$?; cat /proc/$$/io /proc/$$/stat >&3; exit $status';
  const begin = performance.now();
  const shell = spawn('sh', ['-c', script, 'sh', command, ...args], {
    env,
    ...(cwd === undefined ? {} : { cwd }),
    detached: true, // A group of its own, so that a limit ends the command with its shell.
    stdio: ['ignore', keepsOutput ? 'pipe' : 'ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    shell.once('error', reject);
    shell.once('close', resolve);
  });
  let peakBytes = 0;
  const looking = setInterval(() => {
    for (const child of childrenOf(shell.pid!)) peakBytes = Math.max(peakBytes, peakOf(child) ?? 0);
  }, LOOK_EVERY_MS);
  let isLate = false;
  const limit =
    limitMs === undefined
      ? undefined
      : setTimeout(() => {
          isLate = true;
          process.kill(-shell.pid!, 'SIGKILL');
        }, limitMs);
  try {
    const [status, stdout, stderr, told] = await Promise.all([
      ended,
      shell.stdout === null ? '' : text(shell.stdout),
      text(shell.stderr!),
      text(shell.stdio[3] as Readable),
    ]);
    const seconds = (performance.now() - begin) / 1000;
    if (isLate) throw new TimeLimitError(command, limitMs!);
    if (status !== 0) throw new Error(`${command} ${args.slice(0, 8).join(' ')} ended with ${status}:\n${stderr}`);
    const [, , user, system] = statFields(told.slice(told.indexOf('cancelled_write_bytes')));
    const cpuSeconds = (user! + system!) / TICKS_PER_SECOND;
    return { seconds, stdout, cpuSeconds, readBytes: field(told, 'rchar'), peakBytes };
  } finally {
    clearInterval(looking);
    clearTimeout(limit);
  }
}

/** Whether the kernel's caches can be emptied here. */
export const mayDropCaches = process.getuid?.() === 0;

/** Empties them, so that everybody begins from the disk. Does nothing without root. */
export async function dropCaches(): Promise<void> {
  if (!mayDropCaches) return;
  await mustRun('sync', []);
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** utime, stime, cutime and cstime in ticks: fields 14 to 17 of proc(5)'s stat, behind a name in brackets. */
function statFields(stat: string): number[] {
  return stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15)
    .map(Number);
}

function field(text: string, name: string): number {
  return Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(text)?.[1]);
}

/** Undefined if the process is gone. */
function peakOf(pid: number): number | undefined {
  const status = readIfThere(`/proc/${pid}/status`);
  const kibibytes = /^VmHWM:\s+(\d+)/m.exec(status)?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
}

function childrenOf(pid: number): number[] {
  return readIfThere(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

async function text(stream: Readable): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}
