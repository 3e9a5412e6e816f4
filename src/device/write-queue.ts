/**
 * The line in front of the log. One record is being written at a time, and what arrives meanwhile becomes the next one; so
 * many small requests share a record, and records land in the order in which they were asked for.
 */
import type { Segment } from './log-index.ts';
import { type BatchEntry, dataBlocksOf } from './log-tables.ts';

/**
 * Blocks of data in a record, unless one request has more: 1 MiB. Enough to share one system call among many small
 * requests. Records of up to 8 MiB were slower where measured: eight writers of 1 MiB had 400 MiB/s with them, 900 so.
 */
const BATCH_BLOCKS = 256;
const BATCH_REQUESTS_MAX = 512;

export interface Work {
  readonly kind: 'change' | 'move' | 'drop';
  /** Called when the record is made: what to put into it. */
  readonly entries: () => readonly BatchEntry[];
  readonly dropped: readonly Segment[];
}

interface Request extends Work {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class WriteQueue {
  /** Writes a record: all of one kind, and a single one where that is `drop`. */
  readonly #write: (works: readonly Work[]) => Promise<void>;
  /** Called when a record has landed and those who wait for it have been told. */
  readonly #onLanded: () => void;
  readonly #waiting: Request[] = [];
  #running: Promise<void> | undefined;

  constructor(write: (works: readonly Work[]) => Promise<void>, onLanded: () => void) {
    this.#write = write;
    this.#onLanded = onLanded;
  }

  /** What is being written now; it does not reject. */
  get running(): Promise<void> | undefined {
    return this.#running;
  }

  /** Resolves when the record with this work has landed; rejects as `write` does. */
  add(work: Work): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...work, resolve, reject });
      if (this.#running === undefined) this.occupy(this.#run());
    });
  }

  /** Lets `work`, which does not reject, be the one that writes; nothing else may be. Then what has queued up has its turn. */
  occupy(work: Promise<void>): void {
    this.#running = work.finally(() => {
      this.#running = undefined;
      if (this.#waiting.length > 0) this.occupy(this.#run());
    });
  }

  async #run(): Promise<void> {
    // One turn later: requests of the same turn of the event loop share a record.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const requests = this.#takeRequests();
      try {
        await this.#write(requests);
        for (const request of requests) request.resolve();
        this.#onLanded();
      } catch (error) {
        for (const request of requests) request.reject(error);
      }
    }
  }

  /** The requests for one record: all of one kind, so that a move is never behind a change that it has not seen. */
  #takeRequests(): Request[] {
    const taken: Request[] = [];
    let blocks = 0;
    for (const request of this.#waiting) {
      if (taken.length > 0 && (request.kind === 'drop' || request.kind !== taken[0]!.kind)) break;
      const more = dataBlocksOf(request.entries());
      if (taken.length > 0 && blocks + more > BATCH_BLOCKS) break;
      taken.push(request);
      blocks += more;
      if (taken.length === BATCH_REQUESTS_MAX) break;
    }
    this.#waiting.splice(0, taken.length);
    return taken;
  }
}
