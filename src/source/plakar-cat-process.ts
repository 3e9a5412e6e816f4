/**
 * A plakar child process: its output piece by piece, a time-out on silence, and an end that is always reached.
 *
 *   starting ── error ──> over            next(): undefined      ending(): why it could not start
 *      │
 *   running ── stdout ends, exits ──> over                       ending(): undefined for exit code 0, else why
 *      │
 *      └── end() ── pipes closed, SIGTERM, after a grace SIGKILL ──> over
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { exitCodes, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import {
  type CommandLine,
  type Ending,
  explainExit,
  explainSpawnError,
  globalOptions,
  quote,
  TextHead,
  words,
} from './plakar-cat-command.ts';
import { DRAIN_BYTES_MAX, type PlakarOptions } from './plakar-cat-options.ts';

/** The child wrote nothing, and did not end, for the whole idle time-out. */
export class IdleError extends Error {}
/** `interrupt` was called. */
export class InterruptedError extends Error {}

export interface ProcessLimits {
  readonly idleTimeoutMs: number;
  readonly killGraceMs: number;
}

export class PlakarProcess {
  readonly #plakar: PlakarOptions;
  readonly #limits: ProcessLimits;
  readonly #child: ChildProcess | undefined;
  readonly #output: Readable | undefined;
  readonly #complaints = new TextHead();
  /** Settles once the child is gone and its pipes are closed. Never rejects. */
  readonly #gone: Promise<void>;
  #over = false;
  #spawnError: NodeJS.ErrnoException | undefined;
  #exit: { readonly code: number | null; readonly signal: NodeJS.Signals | null } | undefined;
  #outputEnded = false;
  #interrupted = false;
  #killed = false;
  /** Wakes whoever waits for output, its end, or the process's. */
  #wake: () => void = () => {};

  /**
   * Starts the child; an error shows in `ending`. It leads a session of its own: a Ctrl-C at the terminal reaches us
   * alone, so that we can finish what is in flight, and plakar cannot ask the terminal for a passphrase. If we die, its
   * standard output breaks, and so does it. Its standard input is empty.
   */
  constructor({ file, args }: CommandLine, plakar: PlakarOptions, limits: ProcessLimits) {
    this.#plakar = plakar;
    this.#limits = limits;
    const { passphrase } = plakar;
    try {
      this.#child = spawn(file, args, {
        stdio: ['ignore', 'pipe', 'pipe'],
        detached: true,
        env: passphrase === undefined ? process.env : { ...process.env, PLAKAR_PASSPHRASE: passphrase },
      });
    } catch (error) {
      // Some causes are thrown (ENOEXEC, E2BIG), others come as an event (ENOENT, EACCES).
      this.#spawnError = error as NodeJS.ErrnoException;
    }
    this.#output = this.#child?.stdout ?? undefined;
    this.#gone = this.#child === undefined ? Promise.resolve() : this.#watch(this.#child);
    if (this.#child === undefined) this.#finish();
  }

  /** The beginning of what the child wrote to its standard error so far. */
  get complaints(): Uint8Array {
    return this.#complaints.bytes;
  }

  /** The next bytes of output, the caller's own; undefined at its end. Rejects with IdleError or InterruptedError. */
  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      this.#throwIfInterrupted();
      const piece: Buffer | null = this.#output?.read() ?? null;
      if (piece !== null) return piece;
      if (this.#outputEnded) return undefined;
      await this.#silence(this.#limits.idleTimeoutMs);
    }
  }

  /** Makes the pending `next` or `ending`, or else the coming one, reject once. */
  interrupt(): void {
    this.#interrupted = true;
    this.#wake();
  }

  /** Waits for the child to end by itself: undefined if it did well. Rejects with IdleError or InterruptedError. */
  async ending(): Promise<Ending | undefined> {
    while (!this.#over) {
      this.#throwIfInterrupted();
      await this.#silence(this.#limits.idleTimeoutMs);
    }
    if (this.#spawnError !== undefined) return explainSpawnError(this.#spawnError, this.#plakar);
    if (this.#exit === undefined || this.#exit.code === 0) return undefined;
    return explainExit(this.#exit.code, this.#exit.signal);
  }

  /**
   * After an error: lets the child come to its end for a short while, so that it can say why, and drops what it still
   * writes. The ending if it came, and was not our doing.
   */
  async lastWords(): Promise<Ending | undefined> {
    this.#interrupted = false;
    const deadline = performance.now() + this.#limits.killGraceMs;
    for (let drained = 0; !this.#over && !this.#interrupted && drained <= DRAIN_BYTES_MAX; ) {
      const piece: Buffer | null = this.#output?.read() ?? null;
      drained += piece?.byteLength ?? 0;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) return undefined;
      if (piece === null) await this.#silence(leftMs).catch(ignoreIdle);
    }
    return this.#over && !this.#killed ? this.ending() : undefined;
  }

  /** Ends the child if it still runs. Settles once it is gone; never rejects. */
  async end(): Promise<void> {
    if (this.#over || this.#child === undefined) return;
    const child = this.#child;
    this.#killed = true;
    child.kill('SIGTERM');
    // Closed here, not waited for: unread output would keep 'close' from coming, and a grandchild may hold the other ends.
    child.stdout?.destroy();
    child.stderr?.destroy();
    const timer = setTimeout(() => child.kill('SIGKILL'), this.#limits.killGraceMs);
    await this.#gone;
    clearTimeout(timer);
  }

  #watch(child: ChildProcess): Promise<void> {
    const { stdout, stderr } = child;
    stdout?.on('readable', () => this.#wake());
    stdout?.on('end', () => this.#endOutput());
    stdout?.on('error', () => this.#endOutput());
    stderr?.on('data', (piece: Uint8Array) => this.#complaints.add(piece));
    return new Promise((resolve) => {
      const over = () => {
        this.#finish();
        resolve();
      };
      child.on('error', (error) => {
        // Also emitted when a signal could not be sent, to a child that is there.
        if (child.pid !== undefined) return;
        this.#spawnError ??= error;
        over();
      });
      child.on('close', (code, signal) => {
        this.#exit = { code, signal };
        over();
      });
    });
  }

  #throwIfInterrupted(): void {
    if (!this.#interrupted) return;
    this.#interrupted = false;
    throw new InterruptedError();
  }

  #endOutput(): void {
    this.#outputEnded = true;
    this.#wake();
  }

  #finish(): void {
    this.#over = true;
    this.#endOutput();
  }

  /** Settles with the next event of the child; rejects with IdleError if there is none for so long. */
  #silence(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        // If our own process stood still, the time-out comes before output that has long been there: look once more.
        setImmediate(() => reject(new IdleError()));
      }, timeoutMs);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
    });
  }
}

function ignoreIdle(error: unknown): void {
  if (!(error instanceof IdleError)) throw error;
}

/**
 * Runs plakar once before serving: proves that the program is there, and lets it print its welcome to a new cache
 * directory here instead of into a file's contents. In a cache directory of our own the daily update check, a network
 * access that can hang, is switched off; in plakar's default one that is its owner's choice.
 *
 * Returns plakar's version line. Rejects with UserError.
 */
export async function checkPlakar(plakar: PlakarOptions, limits: ProcessLimits, log: Log): Promise<string> {
  const { command, cacheDir } = plakar;
  const options = globalOptions({ cacheDir });
  if (cacheDir !== undefined) {
    await runBriefly({ file: command, args: [...options, '-disable-security-check'] }, plakar, limits);
  }
  const output = await runBriefly({ file: command, args: [...options, 'version'] }, plakar, limits);
  const line = /^plakar\/.*$/m.exec(Buffer.from(output).toString())?.[0].trim();
  if (line === undefined) {
    const said = words(quote(output, plakar));
    throw unusable(
      plakar,
      `"${command}" does not say which plakar it is${said}: name plakar itself with --plakar PATH`,
    );
  }
  log.debug({ command, version: line }, 'plakar is there');
  return line;
}

/** The beginning of the standard output of a child. Rejects with UserError unless it ends well and in time. */
async function runBriefly(line: CommandLine, plakar: PlakarOptions, limits: ProcessLimits): Promise<Uint8Array> {
  const child = new PlakarProcess(line, plakar, limits);
  const output = new TextHead();
  try {
    for (let piece = await child.next(); piece !== undefined; piece = await child.next()) output.add(piece);
    const ending = await child.ending();
    if (ending === undefined) return output.bytes;
    const said = quote(child.complaints, plakar) || quote(output.bytes, plakar);
    throw unusable(plakar, `${ending.reason}${words(said)}`);
  } catch (error) {
    if (error instanceof IdleError) throw unusable(plakar, `no answer within ${limits.idleTimeoutMs / 1000} s`, error);
    throw error;
  } finally {
    await child.end();
  }
}

function unusable({ command }: PlakarOptions, reason: string, cause?: unknown): UserError {
  return new UserError(`--source plakar cannot be used: ${reason}`, {
    exitCode: exitCodes.failure,
    details: { command },
    cause,
  });
}
