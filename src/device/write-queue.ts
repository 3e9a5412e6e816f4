/**
 * The line in front of the log. One record is being written at a time, and what arrives meanwhile becomes the next one; so
 * many small requests share a record, and records land in the order in which they were asked for. Where the next one is
 * large, its data is on its way to the disk before its turn has come.
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

export interface WriteQueueInput<Begun> {
  /** Writes a record: all of one kind, and a single one where that is `drop`. `ahead`: what `beginAhead` made of it. */
  readonly write: (works: readonly Work[], ahead: Begun | undefined) => Promise<void>;
  /** Begins the record behind the one being written, of the changes that `next` gives; undefined if it has to wait for its turn. */
  readonly beginAhead: (next: () => readonly Work[]) => Begun | undefined;
  /** Called when a record has landed and those who wait for it have been told. */
  readonly onLanded: () => void;
}

/** What one record is made of. */
interface Turn<Begun> {
  readonly requests: readonly Request[];
  readonly ahead: Begun | undefined;
}

export class WriteQueue<Begun> {
  readonly #input: WriteQueueInput<Begun>;
  readonly #waiting: Request[] = [];
  #running: Promise<void> | undefined;
  /** The record that comes next, if it has begun. */
  #ahead: Turn<Begun> | undefined;

  constructor(input: WriteQueueInput<Begun>) {
    this.#input = input;
  }

  /** What is being written now; it does not reject. */
  get running(): Promise<void> | undefined {
    return this.#running;
  }

  /** Nothing is being written, and nothing waits. */
  get isIdle(): boolean {
    return this.#running === undefined && this.#waiting.length === 0;
  }

  /** Resolves when the record with this work has landed; rejects as `write` does. */
  add(work: Work): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...work, resolve, reject });
      if (this.#running === undefined) this.occupy(this.#run());
      else this.beginAhead();
    });
  }

  /** Lets `work`, which does not reject, be the one that writes; nothing else may be. Then what has queued up has its turn. */
  occupy(work: Promise<void>): void {
    this.#running = work.finally(() => {
      this.#running = undefined;
      if (this.#waiting.length > 0) this.occupy(this.#run());
    });
  }

  /** Begins the record behind the one being written, if that can be done. */
  beginAhead(): void {
    if (this.#ahead !== undefined || this.#waiting[0]?.kind !== 'change') return;
    let requests: readonly Request[] = [];
    const ahead = this.#input.beginAhead(() => {
      requests = this.#nextRequests();
      return requests;
    });
    if (ahead === undefined) return;
    this.#waiting.splice(0, requests.length);
    this.#ahead = { requests, ahead };
  }

  async #run(): Promise<void> {
    // One turn later: requests of the same turn of the event loop share a record.
    await Promise.resolve();
    for (let turn = this.#takeTurn(); turn !== undefined; turn = this.#takeTurn()) {
      const { requests, ahead } = turn;
      try {
        await this.#input.write(requests, ahead);
        for (const request of requests) request.resolve();
        this.#input.onLanded();
      } catch (error) {
        for (const request of requests) request.reject(error);
      }
    }
  }

  #takeTurn(): Turn<Begun> | undefined {
    const begun = this.#ahead;
    this.#ahead = undefined;
    if (begun !== undefined || this.#waiting.length === 0) return begun;
    const requests = this.#nextRequests();
    this.#waiting.splice(0, requests.length);
    return { requests, ahead: undefined };
  }

  /** The requests for one record: all of one kind, so that a move is never behind a change that it has not seen. */
  #nextRequests(): Request[] {
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
    return taken;
  }
}
