/** How long waiting may take on average by default, milliseconds: some ten times what a good disk takes to read, and a quarter of a turning one's. */
const MS_MAX_DEFAULT = 2;
/** What one wait counts for in that average: one that the system held up does not end it. */
const AVERAGE_PART = 1 / 16;
/** The pause when they take longer, in times what the last one took. */
const SLOW_PAUSE_FACTOR = 100;

export interface PromptDiskOptions {
  /** How long waiting may take on average, milliseconds. */
  readonly msMax?: number;
  /** A clock that only goes forward, for tests. */
  readonly nowMs?: () => number;
}

/**
 * Whether a disk may be waited for in the main thread: where it answers in a tenth of a millisecond, handing the work to
 * another thread takes longer than the work. What takes long has all clients wait, so then the disk is left alone for a
 * hundred times as long: one that is slow costs the main thread some hundredths of its time.
 */
export class PromptDisk {
  readonly #msMax: number;
  readonly #nowMs: () => number;
  #averageMs = 0;
  #pausedUntilMs = 0;

  constructor({ msMax = MS_MAX_DEFAULT, nowMs = () => performance.now() }: PromptDiskOptions = {}) {
    this.#msMax = msMax;
    this.#nowMs = nowMs;
  }

  get isPrompt(): boolean {
    return this.#nowMs() >= this.#pausedUntilMs;
  }

  /** It is not to be waited for at all. */
  never(): void {
    this.#pausedUntilMs = Number.POSITIVE_INFINITY;
  }

  /** Calls `work`, which waits for the disk. */
  during<T>(work: () => T): T {
    const startedMs = this.#nowMs();
    try {
      return work();
    } finally {
      this.#took(startedMs, this.#nowMs());
    }
  }

  #took(startedMs: number, endedMs: number): void {
    const tookMs = endedMs - startedMs;
    this.#averageMs += (tookMs - this.#averageMs) * AVERAGE_PART;
    if (this.#averageMs < this.#msMax) return;
    this.#pausedUntilMs = endedMs + tookMs * SLOW_PAUSE_FACTOR;
    this.#averageMs = 0;
  }
}
