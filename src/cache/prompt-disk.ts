import { PROMPT_AVERAGE_PART, PROMPT_MS_MAX, SLOW_PAUSE_FACTOR } from './limits.ts';

/**
 * Whether a disk may be waited for in the main thread: where it answers in a tenth of a millisecond, handing the read to
 * another thread takes longer than the read. What takes long has all clients wait, so then the disk is left alone for a
 * hundred times as long: one that is slow costs the main thread some hundredths of its time.
 */
export class PromptDisk {
  readonly #nowMs: () => number;
  #averageMs = 0;
  #pausedUntilMs = 0;

  /** `nowMs`: a clock that only goes forward, for tests. */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  get isPrompt(): boolean {
    return this.#nowMs() >= this.#pausedUntilMs;
  }

  /** It is not to be waited for at all. */
  never(): void {
    this.#pausedUntilMs = Number.POSITIVE_INFINITY;
  }

  /** Calls `read`, which waits for the disk. */
  during<T>(read: () => T): T {
    const startedMs = this.#nowMs();
    try {
      return read();
    } finally {
      this.#took(startedMs, this.#nowMs());
    }
  }

  #took(startedMs: number, endedMs: number): void {
    const tookMs = endedMs - startedMs;
    this.#averageMs += (tookMs - this.#averageMs) * PROMPT_AVERAGE_PART;
    if (this.#averageMs < PROMPT_MS_MAX) return;
    this.#pausedUntilMs = endedMs + tookMs * SLOW_PAUSE_FACTOR;
    this.#averageMs = 0;
  }
}
