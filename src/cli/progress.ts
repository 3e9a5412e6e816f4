/**
 * Progress on standard error, for whatever takes more than a second: on a terminal a bar that is drawn over itself,
 * otherwise a line now and then. Never on standard output.
 */
import type { Log } from '../core/log.ts';
import type { Progress, ProgressStage } from '../core/progress.ts';
import { silentProgress } from '../core/progress.ts';
import type { LogLevel } from '../observability/log.ts';

/** Nothing is said about what is done within this, milliseconds. */
const QUIET_MS = 1000;
/** Between two drawings of the bar, and between two lines where nothing can be drawn over, milliseconds. */
const REDRAW_MS = 200;
const LINE_MS = 5000;
/** Calls of `advance` between two looks at the clock. */
const CALLS_PER_LOOK = 256;
const BAR_WIDTH = 24;
/** To the line's beginning, and what is on it away. */
const CLEAR_LINE = '\r\u001b[K';

/** Where progress is told, and by which clock. */
export interface ProgressOutput {
  readonly isTerminal: boolean;
  /** To a terminal, as it is. */
  write(text: string): void;
  /** A line for who reads it later. */
  line(text: string): void;
  /** Milliseconds, rising. */
  now(): number;
  /** Calls back every `ms` milliseconds until what it returned is called; never keeps the process alive. */
  repeat(ms: number, callback: () => void): () => void;
}

/** Progress for the commands: silent where only errors are to be told. Lines go to `log`, if there is one. */
export function openProgress(level: LogLevel, log?: Log): Progress {
  if (level === 'error' || level === 'silent') return silentProgress;
  return progressTo(log === undefined ? standardError : { ...standardError, line: (text) => log.info({}, text) });
}

export function progressTo(output: ProgressOutput): Progress {
  return { begin: (what, total) => new Stage(output, what, total) };
}

const standardError: ProgressOutput = {
  isTerminal: process.stderr.isTTY === true,
  write: (text) => void process.stderr.write(text),
  line: (text) => void process.stderr.write(`${text}\n`),
  now: () => performance.now(),
  repeat(ms, callback) {
    const timer = setInterval(callback, ms);
    timer.unref();
    return () => clearInterval(timer);
  },
};

class Stage implements ProgressStage {
  readonly #output: ProgressOutput;
  readonly #what: string;
  readonly #begunMs: number;
  #total: number | undefined;
  #done = 0;
  #calls = 0;
  #nextMs: number;
  #isDrawn = false;
  readonly #stopTimer: () => void;

  constructor(output: ProgressOutput, what: string, total: number | undefined) {
    this.#output = output;
    this.#what = what;
    this.#total = total;
    this.#begunMs = output.now();
    this.#nextMs = this.#begunMs + QUIET_MS;
    // What takes long need not advance often: a single state can have a million records.
    this.#stopTimer = output.repeat(REDRAW_MS, () => this.#look());
  }

  advance(count = 1): void {
    this.#done += count;
    // The timer waits while a loop runs; reading the clock each of ten million times would be most of the cost.
    if (++this.#calls % CALLS_PER_LOOK === 0) this.#look();
  }

  setTotal(total: number): void {
    this.#total = total;
  }

  end(): void {
    this.#stopTimer();
    if (this.#isDrawn && this.#output.isTerminal) this.#output.write(CLEAR_LINE);
    this.#isDrawn = false;
  }

  #look(): void {
    const now = this.#output.now();
    if (now < this.#nextMs) return;
    this.#nextMs = now + (this.#output.isTerminal ? REDRAW_MS : LINE_MS);
    this.#isDrawn = true;
    const text = this.#describe(now - this.#begunMs);
    // Back to the line's beginning: what the log writes meanwhile covers the bar.
    if (this.#output.isTerminal) this.#output.write(`${CLEAR_LINE}${text}\r`);
    else this.#output.line(text);
  }

  #describe(elapsedMs: number): string {
    const done = this.#done.toLocaleString('en');
    const seconds = Math.round(elapsedMs / 1000);
    if (this.#total === undefined || this.#total === 0) return `${done} ${this.#what}, ${seconds} s`;
    const share = Math.min(1, this.#done / this.#total);
    const counts = `${done} of ${this.#total.toLocaleString('en')} ${this.#what}`;
    const left = share === 0 ? '' : `, about ${Math.ceil((elapsedMs / 1000) * (1 / share - 1))} s left`;
    if (!this.#output.isTerminal) return `${Math.floor(share * 100)}%: ${counts}, ${seconds} s${left}`;
    const filled = Math.round(share * BAR_WIDTH);
    return `[${'#'.repeat(filled)}${' '.repeat(BAR_WIDTH - filled)}] ${counts}${left}`;
  }
}
