/**
 * Which file is streamed next. No processes here: the store starts a stream for a Run it is given, asks `mayRead`
 * before every chunk and says `finished` at the end.
 *
 *   Job (a file somebody waits for)          Run (one stream of one file, or of several short ones)
 *
 *   queued ──> in a run ──> gone             running <──> parked ──> finished
 *     ^            │ waiters left
 *     └────────────┘
 *
 * - At most `concurrency` runs are running; they start in the order in which somebody began to wait.
 * - A long file (LONG_FILE_BYTES_MIN) never takes the last free place: with two or more, one is for short files only.
 * - A run nobody waits for (the rest of a file, read ahead) steps aside for a file somebody waits for: it is parked,
 *   which means its output is not read, and goes on later where it stood. Nothing is killed to make room, so nothing is
 *   streamed twice. At most `parkedMax` step aside; beyond that a newcomer waits for a stream to end.
 * - Short files that are queued together share a process.
 * - Once nothing is kept any more (spool full), reading ahead is useless: a run nobody waits for is parked right away,
 *   so that a sequential reader finds it where it left it. Then a read behind that place ends it and starts anew, a
 *   further such run replaces the one parked longest, and `idleTimeoutMs` without a reader ends it.
 */
import type { ChunkRef, FileRef } from '../core/chunk-store.ts';
import {
  BATCH_FILE_BYTES_MAX,
  BATCH_FILES_MAX,
  BATCH_NAME_BYTES_MAX,
  LONG_FILE_BYTES_MIN,
} from './plakar-cat-options.ts';
import type { MacKey } from './spool.ts';

/** Somebody waits for one chunk; everybody who wants the same chunk shares the promise. */
export interface Waiter {
  readonly chunk: ChunkRef;
  readonly job: Job;
  readonly promise: Promise<Uint8Array>;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** A file that somebody waits for, or that is being streamed. */
export class Job {
  readonly file: FileRef;
  readonly sizeBytes: number;
  readonly waiting = new Map<MacKey, Waiter>();
  /** Failed streams since somebody began to wait. */
  failedCount = 0;
  /** Set once a shared process failed at or before this file: streamed alone, a failure is certainly its own. */
  alone = false;
  run: Run | undefined;

  constructor(file: FileRef) {
    this.file = file;
    this.sizeBytes = file.chunks.reduce((sum, chunk) => sum + chunk.lengthBytes, 0);
  }

  get long(): boolean {
    return this.sizeBytes >= LONG_FILE_BYTES_MIN;
  }

  get mayShare(): boolean {
    return this.sizeBytes <= BATCH_FILE_BYTES_MAX && !this.alone;
  }
}

export class Run {
  readonly jobs: readonly Job[];
  readonly long: boolean;
  /** The next chunk to pass. */
  fileIndex = 0;
  chunkIndex = 0;
  parked = false;
  /** Set to end the stream at the next chunk. */
  abandoned = false;
  /** Ends a parked run that nobody comes back to. */
  parkTimer: NodeJS.Timeout | undefined;
  #wake: () => void = () => {};

  constructor(jobs: readonly Job[]) {
    this.jobs = jobs;
    this.long = jobs.some((job) => job.long);
  }

  get hasWaiters(): boolean {
    return this.jobs.some((job) => job.waiting.size > 0);
  }

  /** Whether somebody waits for a chunk that is still to come. */
  get wanted(): boolean {
    return this.jobs.some((job, fileIndex) => {
      const firstToCome =
        fileIndex < this.fileIndex ? Number.POSITIVE_INFINITY : fileIndex > this.fileIndex ? 0 : this.chunkIndex;
      return [...job.waiting.values()].some(({ chunk }) => chunk.indexInFile >= firstToCome);
    });
  }

  /** Settles at the next `wake`: a parked stream waits here. */
  sleep(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  wake(): void {
    this.#wake();
  }
}

export interface ScheduleOptions {
  readonly concurrency: number;
  readonly parkedMax: number;
  /** How long a run may stay parked with nobody waiting once nothing is kept. */
  readonly idleTimeoutMs: number;
  /** Whether chunks that pass are kept. Once false, it stays so. */
  readonly keeping: () => boolean;
  /** Starts the stream of a run. */
  readonly start: (run: Run) => void;
}

export class Schedule {
  readonly #options: ScheduleOptions;
  /** Jobs without a run, and parked runs somebody waits for, longest waiting first. */
  readonly #queue = new Set<Job | Run>();
  readonly #running = new Set<Run>();
  readonly #parked = new Set<Run>();
  #pumpPlanned = false;
  #closed = false;

  constructor(options: ScheduleOptions) {
    this.#options = options;
  }

  /** Somebody waits for a chunk of the job. */
  want(job: Job): void {
    if (job.run === undefined) this.#queue.add(job);
    else if (job.run.parked) this.#queue.add(job.run);
    this.#planPump();
  }

  /** Nobody waits for the job any more; a run it has goes on. */
  unwant(job: Job): void {
    this.#queue.delete(job);
  }

  /** Whether the run may read its next chunk: settles when it may, `false` ends it. */
  async mayRead(run: Run): Promise<boolean> {
    for (;;) {
      if (this.#closed || run.abandoned) return false;
      if (!run.parked) {
        if (run.wanted || this.#options.keeping()) return true;
        // Somebody waits for what has passed and was not kept: only a stream from the start brings it back.
        if (run.hasWaiters) return false;
        this.#parkUseless(run);
      }
      await run.sleep();
    }
  }

  /** The run's process is gone. The caller wants again those of its jobs that still have waiters. */
  finished(run: Run): void {
    this.#running.delete(run);
    this.#parked.delete(run);
    this.#queue.delete(run);
    clearTimeout(run.parkTimer);
    for (const job of run.jobs) job.run = undefined;
    this.#planPump();
  }

  /** Starts nothing more and lets `mayRead` end what runs. */
  close(): void {
    this.#closed = true;
    this.#queue.clear();
    for (const run of [...this.#running, ...this.#parked]) run.wake();
  }

  /** Not at once: a device read wants the chunks of many files in one go, and those of short ones can share a process. */
  #planPump(): void {
    if (this.#pumpPlanned) return;
    this.#pumpPlanned = true;
    setImmediate(() => {
      this.#pumpPlanned = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#closed) return;
    for (const next of this.#queue) {
      if (!this.#makeRoom(next.long)) continue;
      this.#queue.delete(next);
      if (next instanceof Run) this.#resume(next);
      else this.#start(next);
    }
    for (const run of this.#parked) {
      if (!this.#options.keeping()) this.#limitParking(run);
      else if (this.#hasRoom(run.long)) this.#resume(run);
    }
  }

  #hasRoom(long: boolean): boolean {
    return this.#running.size < this.#options.concurrency && (!long || this.#longCount() < this.#longMax);
  }

  #makeRoom(long: boolean): boolean {
    if (this.#hasRoom(long)) return true;
    if (this.#parked.size >= this.#options.parkedMax) return false;
    const mustBeLong = long && this.#longCount() >= this.#longMax;
    for (const run of this.#running) {
      if (run.hasWaiters || (mustBeLong && !run.long)) continue;
      this.#park(run);
      return true;
    }
    return false;
  }

  get #longMax(): number {
    return Math.max(1, this.#options.concurrency - 1);
  }

  #longCount(): number {
    let count = 0;
    for (const run of this.#running) if (run.long) count++;
    return count;
  }

  #start(job: Job): void {
    const run = new Run(job.mayShare ? this.#batch(job) : [job]);
    for (const member of run.jobs) member.run = run;
    this.#running.add(run);
    this.#options.start(run);
  }

  /** The job and those behind it in the queue that may share its process. Takes them from the queue. */
  #batch(first: Job): Job[] {
    const batch = [first];
    let nameBytes = first.file.path.byteLength;
    for (const other of this.#queue) {
      if (batch.length >= BATCH_FILES_MAX) break;
      if (other instanceof Run || !other.mayShare) continue;
      nameBytes += other.file.path.byteLength;
      if (nameBytes > BATCH_NAME_BYTES_MAX) break;
      this.#queue.delete(other);
      batch.push(other);
    }
    return batch;
  }

  #park(run: Run): void {
    run.parked = true;
    this.#running.delete(run);
    this.#parked.add(run);
  }

  #resume(run: Run): void {
    run.parked = false;
    this.#parked.delete(run);
    this.#running.add(run);
    clearTimeout(run.parkTimer);
    run.parkTimer = undefined;
    run.wake();
  }

  #parkUseless(run: Run): void {
    if (this.#parked.size >= this.#options.parkedMax) {
      const longest = [...this.#parked].find((other) => !other.abandoned && !other.hasWaiters);
      if (longest !== undefined) this.#abandon(longest);
    }
    this.#park(run);
    this.#limitParking(run);
    this.#planPump();
  }

  #limitParking(run: Run): void {
    run.parkTimer ??= setTimeout(() => {
      if (run.parked && !run.hasWaiters) this.#abandon(run);
    }, this.#options.idleTimeoutMs).unref();
  }

  #abandon(run: Run): void {
    run.abandoned = true;
    run.wake();
  }
}
