/** Programs of the system: finding them, and running them to their end. */
import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';

/** Where administrators' programs lie that an ordinary user's PATH leaves out. */
const SYSTEM_DIRECTORIES = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

/** How much of a program's complaint is quoted, characters. */
const COMPLAINT_LENGTH_MAX = 500;

/** Debian's packages of what we call, for the hint when it is missing. */
const packages: Readonly<Record<string, string>> = {
  nbdfuse: 'libnbd-bin',
  fuse2fs: 'fuse2fs',
  fusermount3: 'fuse3',
  'nbd-client': 'nbd-client',
  losetup: 'mount',
  mount: 'mount',
  umount: 'mount',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
};

/** The path of a program on PATH or where administrators' programs lie; undefined if there is none. */
export function findProgram(name: string, path = process.env.PATH ?? ''): string | undefined {
  const directories = [...path.split(delimiter), ...SYSTEM_DIRECTORIES].filter((directory) => directory !== '');
  return directories.map((directory) => join(directory, name)).find(isProgram);
}

/** As findProgram; throws UserError with the package that brings it. */
export function requireProgram(name: string): string {
  const found = findProgram(name);
  if (found !== undefined) return found;
  const hint = packages[name] === undefined ? '' : ` (Debian: apt-get install ${packages[name]})`;
  throw new UserError(`${name} is not installed${hint}.`, { exitCode: exitCodes.failure });
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    // Not there, or not for us: look on.
    return false;
  }
}

export interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Given to its standard input; otherwise that is empty. */
  readonly input?: string | Uint8Array;
  readonly environment?: NodeJS.ProcessEnv;
  /** Ends it early. */
  readonly ending?: AbortSignal;
}

/** Runs a program to its end, whatever its exit status. Rejects with UserError if it cannot be started. */
export function finish(words: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const [command, ...given] = words;
  const child = spawn(command!, given, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: options.environment ?? process.env,
    // Ctrl-C is for this process, which ends in order what it started.
    detached: true,
  });
  const end = () => void child.kill();
  options.ending?.addEventListener('abort', end);
  child.once('close', () => options.ending?.removeEventListener('abort', end));
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes));
  child.stderr.on('data', (bytes: Buffer) => stderr.push(bytes));
  // It may end without reading what it was given: its exit status tells.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    child.on('error', (cause) =>
      reject(new UserError(`${command} cannot be started: ${cause.message}`, { exitCode: exitCodes.failure, cause })),
    );
    child.on('close', (status, signal) =>
      resolve({
        status: status ?? (signal === null ? exitCodes.failure : 128),
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
      }),
    );
  });
}

/** Runs a program and resolves to its standard output. Rejects with UserError quoting it if it fails. */
export async function run(words: readonly string[], options: RunOptions & { what: string }): Promise<string> {
  const { status, stdout, stderr } = await finish(words, options);
  if (status === 0) return stdout;
  throw new UserError(`${options.what} failed: ${complaint(stderr || stdout) || `exit status ${status}`}`, {
    exitCode: exitCodes.failure,
  });
}

/** A program's last words, on one line. */
export function complaint(text: string): string {
  return text
    .trim()
    .replace(/\s*\n\s*/g, '; ')
    .slice(-COMPLAINT_LENGTH_MAX);
}
