/** The built command line, run as an operator runs it: a process of its own, its lines read, signals sent. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { type Cleanup, projectRoot } from './fixtures.ts';

export const builtCli = join(projectRoot, 'dist/cli/main.js');

export interface ProcessResult {
  /** Undefined if a signal ended it. */
  readonly exitCode: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** For `run`, all of it; for the command line, what is added. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Another main.js than the checkout's. */
  readonly cli?: string;
  readonly uid?: number;
  readonly gid?: number;
}

/** Runs any program to its end; rejects only if it cannot be started. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<ProcessResult> {
  const { cli: _, ...spawnOptions } = options;
  const child = spawn(command, args, { ...spawnOptions, stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr, end] = await Promise.all([text(child.stdout), text(child.stderr), endOf(child)]);
  return { ...end, stdout, stderr };
}

/** As `run`, for what must succeed: returns its standard output, rejects with all it said otherwise. */
export async function mustRun(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { exitCode, signal, stdout, stderr } = await run(command, args, options);
  if (exitCode === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')} ended with ${exitCode ?? signal}:\n${stdout}${stderr}`);
}

/** Runs `kloset-nbd ARGS…` to its end. */
export function runCli(args: readonly string[], options: RunOptions = {}): Promise<ProcessResult> {
  return run(process.execPath, [options.cli ?? builtCli, ...args], cliOptions(options));
}

/** A line of the server's log. */
export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface RunningServer {
  /** One for each `--listen`, in order, as the ready lines give them. */
  readonly uris: readonly string[];
  readonly pid: number;
  /** The lines of the log so far. */
  readonly log: readonly LogLine[];
  /** Resolves with the first line of the log, past or future, that `matches`; rejects with ServerEndedError if there is none. */
  waitForLog(matches: (line: LogLine) => boolean): Promise<LogLine>;
  kill(signal: NodeJS.Signals): void;
  /** How it ended; `stop` and `kill` make it. */
  readonly ended: Promise<ProcessResult>;
  /** SIGTERM, then its end. Idempotent. */
  stop(): Promise<ProcessResult>;
}

/** A server ended where it should have gone on: its message is all it said. */
export class ServerEndedError extends Error {
  readonly result: ProcessResult;

  constructor(missing: string, result: ProcessResult) {
    super(`the server ended without ${missing}:\n${result.stdout}\n${result.stderr}`);
    this.name = 'ServerEndedError';
    this.result = result;
  }
}

/**
 * Starts `kloset-nbd serve ARGS…` and waits for its ready lines. Without `--listen` among the arguments it listens on a
 * free port of the loopback address. Rejects with ServerEndedError if it ends before it is ready.
 */
export async function startServer(
  cleanup: Cleanup,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunningServer> {
  const listeners = args.filter((argument) => argument === '--listen').length;
  const listen = listeners === 0 ? ['--listen', 'tcp://127.0.0.1:0'] : [];
  const { cli = builtCli, ...spawnOptions } = cliOptions(options);
  const child = spawn(process.execPath, [cli, 'serve', ...args, ...listen], {
    ...spawnOptions,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const watched = watch(child);
  cleanup.add(async () => {
    child.kill('SIGKILL');
    await watched.ended;
  });
  const uris = await watched.ready(Math.max(1, listeners));
  return {
    uris,
    pid: child.pid!,
    log: watched.log,
    waitForLog: watched.waitForLog,
    kill: (signal) => child.kill(signal),
    ended: watched.ended,
    stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      return watched.ended;
    },
  };
}

/** The URI of another export of the same server. */
export function exportUri(uri: string, name: string): string {
  const url = new URL(uri);
  url.pathname = `/${encodeURIComponent(name)}`;
  return url.href;
}

type PipedChild = ChildProcessByStdio<null, Readable, Readable>;

/** Adds to the caller's environment, without what would change what a test sees: colours and an operator's own store. */
function cliOptions(options: RunOptions): RunOptions {
  const env: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: '1' };
  delete env.PLAKAR_REPOSITORY;
  return { ...options, env: { ...env, ...options.env } };
}

/** Reads a server's two streams line by line. */
function watch(child: PipedChild) {
  const stdout: string[] = [];
  const stderr: string[] = [];
  const log: LogLine[] = [];
  const watchers = new Set<() => void>();
  const notify = () => {
    for (const look of watchers) look();
  };
  const collect = (stream: Readable, lines: string[]) =>
    new Promise<void>((resolve) => {
      createInterface({ input: stream })
        .on('line', (line) => {
          lines.push(line);
          const entry = lines === stderr ? parseLogLine(line) : undefined;
          if (entry !== undefined) log.push(entry);
          notify();
        })
        .on('close', resolve);
    });
  const streams = Promise.all([collect(child.stdout, stdout), collect(child.stderr, stderr)]);
  let result: ProcessResult | undefined;
  const ended = Promise.all([endOf(child), streams]).then(([end]): ProcessResult => {
    result = { ...end, stdout: stdout.join('\n'), stderr: stderr.join('\n') };
    notify();
    return result;
  });
  /** Resolves once `find` finds something; looks again after every line. */
  const until = <T>(what: string, find: () => T | undefined) =>
    new Promise<T>((resolve, reject) => {
      const look = () => {
        const found = find();
        if (found === undefined && result === undefined) return;
        watchers.delete(look);
        if (found !== undefined) resolve(found);
        else reject(new ServerEndedError(what, result!));
      };
      watchers.add(look);
      look();
    });
  return {
    log,
    ended,
    ready: (count: number) =>
      until('a ready line for each listener', () => {
        const uris = stdout.flatMap((line) => /^ready (nbd\S+)$/.exec(line)?.[1] ?? []);
        return uris.length >= count ? uris : undefined;
      }),
    waitForLog: (matches: (line: LogLine) => boolean) => until('the awaited line in its log', () => log.find(matches)),
  };
}

function parseLogLine(line: string): LogLine | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function endOf(child: PipedChild): Promise<Pick<ProcessResult, 'exitCode' | 'signal'>> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ exitCode: code ?? undefined, signal: signal ?? undefined }));
  });
}

async function text(stream: Readable): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}
