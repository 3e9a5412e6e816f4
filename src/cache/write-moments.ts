import { CHUNK_WRITE_DELAY_MS } from './limits.ts';

/**
 * When chunks are written. Who reads one page after the other has a chunk fetched and decoded, and asks for the next one
 * at once: a write that began when its chunk had come would be in the way of that, on the disk and on the processors.
 * So it begins when the stored bytes of the next have come, which a thread decodes then; or where none come, a little later.
 */
export class WriteMoments {
  #waiting: (() => void)[] = [];

  /** Resolves when a write may begin. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.come(), CHUNK_WRITE_DELAY_MS);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Now is one. */
  come(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (const begin of waiting) begin();
  }
}
