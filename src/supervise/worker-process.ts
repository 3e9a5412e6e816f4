/** A worker: a child process that serves on a private socket, and what the supervisor knows of it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { exitCodes, UserError } from '../core/errors.ts';
import {
  type Answer,
  type Begin,
  type DeviceIdentity,
  type PassphraseAnswer,
  type PassphraseWanted,
  type Question,
  WORKER_VARIABLE,
} from './control.ts';
import { superviseLimits } from './limits.ts';

export interface WorkerEnd {
  readonly exitCode: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  /** The end of its log; empty if that went straight to a terminal. */
  readonly lastLines: string;
}

export interface Worker {
  readonly pid: number | undefined;
  readonly socketPath: string;
  /** Has it open the store and serve. Until then it only loads the program. */
  begin(): void;
  /** Resolves to true when it serves; to false if it ended before. Never rejects. */
  readonly ready: Promise<boolean>;
  /** Never rejects. */
  readonly ended: Promise<WorkerEnd>;
  /** Which device a name means; undefined if none. Resolves to 'ended' if the worker ends before it answers. */
  identify(exportName: string): Promise<DeviceIdentity | undefined | 'ended'>;
  kill(signal: NodeJS.Signals): void;
}

export interface WorkerCommand {
  /** Of the command line itself: its main file, and what was given to it. */
  readonly script: string;
  readonly argv: readonly string[];
  readonly socketPath: string;
  /** The store's passphrase, if a worker asks: then the store is encrypted. Rejects with UserError. */
  passphrase(): Promise<Uint8Array>;
}

/**
 * The words for a worker: it listens on the private socket instead of the public addresses, and supervises nobody. What
 * follows `--` are no options.
 */
export function workerArguments(argv: readonly string[], socketPath: string): string[] {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
  const kept: string[] = [];
  for (let i = 0; i < end; i++) {
    const word = argv[i]!;
    if (/^--?listen$/.test(word)) i++;
    else if (!/^--?(listen=|supervise(=|$)|no-supervise$)/.test(word)) kept.push(word);
  }
  return [...kept, `--listen=unix:${socketPath}`, ...argv.slice(end)];
}

export function startWorker({ script, argv, socketPath, passphrase }: WorkerCommand): Worker {
  // On a terminal the log is for people, and the worker writes it so only to a terminal.
  const isTerminal = process.stderr.isTTY === true;
  const child = spawn(process.execPath, [...process.execArgv, script, ...workerArguments(argv, socketPath)], {
    env: { ...process.env, [WORKER_VARIABLE]: dirname(socketPath) },
    stdio: ['ignore', 'pipe', isTerminal ? 'inherit' : 'pipe', 'ipc'],
    // In a group of its own: Ctrl-C is for the supervisor, which hands it on once.
    detached: true,
  });
  const lastLines = passOnLog(child);
  child.on('message', (message: Answer | PassphraseWanted) => {
    if ('wants' in message) void answerPassphrase(child, passphrase);
  });
  const ended = new Promise<WorkerEnd>((resolve) => {
    child.once('error', (error) => resolve({ exitCode: undefined, signal: undefined, lastLines: error.message }));
    // Not 'close': that waits for the log, which a grandchild may keep open.
    child.once('exit', (exitCode, signal) =>
      resolve({ exitCode: exitCode ?? undefined, signal: signal ?? undefined, lastLines: lastLines() }),
    );
  });
  const becameReady = new Promise<boolean>((resolve) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      if (line.startsWith('ready ')) resolve(true);
    });
  });
  const ready = Promise.race([becameReady, ended.then(() => false)]);
  return {
    pid: child.pid,
    socketPath,
    begin() {
      const begin: Begin = { begin: true };
      if (child.connected) child.send(begin, () => undefined);
    },
    ready,
    ended,
    identify: questioner(child, ended),
    kill: (signal) => child.kill(signal),
  };
}

/** The worker's log goes on to our own standard error; returns how to get its end. */
function passOnLog(child: ChildProcess): () => string {
  let tail = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    process.stderr.write(chunk);
    tail = (tail + chunk.toString()).slice(-superviseLimits.logTailBytes);
  });
  return () => tail.trimEnd();
}

/** Never rejects. */
async function answerPassphrase(child: ChildProcess, find: () => Promise<Uint8Array>): Promise<void> {
  const answer = await find().then(
    (passphrase): PassphraseAnswer => ({ passphrase: Buffer.from(passphrase).toString('base64') }),
    (error: unknown): PassphraseAnswer => ({
      noPassphrase: error instanceof Error ? error.message : String(error),
      exitCode: error instanceof UserError ? error.exitCode : exitCodes.failure,
    }),
  );
  // A worker that has died meanwhile asks no more.
  if (child.connected) child.send(answer, () => undefined);
}

function questioner(child: ChildProcess, ended: Promise<WorkerEnd>): Worker['identify'] {
  const waiting = new Map<number, (device: DeviceIdentity | undefined | 'ended') => void>();
  let nextId = 0;
  let hasEnded = false;
  void ended.then(() => {
    hasEnded = true;
    for (const resolve of waiting.values()) resolve('ended');
    waiting.clear();
  });
  child.on('message', (message: Answer | PassphraseWanted) => {
    if ('wants' in message) return;
    waiting.get(message.id)?.(message.device);
    waiting.delete(message.id);
  });
  return async (exportName) => {
    if (hasEnded) return 'ended';
    const question: Question = { id: nextId++, exportName };
    return new Promise((resolve) => {
      waiting.set(question.id, resolve);
      // A worker that dies tells so by ending; that it could not be asked adds nothing.
      if (child.connected) child.send(question, () => undefined);
    });
  };
}
