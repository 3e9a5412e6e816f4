/**
 * File contents from `plakar cat` (`--source plakar`). Metadata and chunk tables come from our own reader; this store
 * turns "the chunk with this MAC, number n of that file" into bytes that plakar has read.
 *
 * The trouble: `cat` has no offset. The n-th chunk costs all chunks before it, and starting a process costs 0.03 to
 * 1.5 s. So a process is worth a whole file:
 *
 *   get(chunk) ── in the spool? ─────────────────────────> read, verify again, done
 *      │ no
 *      └── wait ── file streaming? ── yes ──> handed over when it passes
 *                     │ no
 *                     └── queued ──> one stream, from the first byte to the last (schedule: plakar-cat-schedule.ts)
 *                                      each chunk: MAC verified, handed to who waits, kept in the spool
 *
 * A random read in a 1 GiB file waits until its chunk passes (2 to 6 s for the last one, by what else the machine does);
 * the stream goes on to the end by itself, paced by our verifying and by the spool's disk. From then on every read of
 * the file is a read of the spool. Never does a block start a process of its own, never is a stream restarted while
 * chunks are kept.
 *
 * What is kept: every chunk that passed, by MAC, in an unlinked file (spool.ts). A chunk that passed in one file serves
 * all files and snapshots of the store; a read of it wakes waiters of another file too. Chunks of length 0 need no
 * process. Decoded chunks in memory are the business of the cache above.
 *
 * When a stream fails, what passed before stays good. The file is streamed once more, alone, without the waiters
 * noticing (a wrong MAC, a child that died, missing or surplus bytes; not a time-out, nor what would befall any file:
 * no program, no store, no passphrase). The second failure is theirs, for the chunk it happened at and all behind it.
 * New reads of these get the same error without a process for a pause of 1 s, doubled with each failure up to a minute.
 * In a shared process (`cat ID:P1 ID:P2 …`) plakar goes on after a file it cannot read, without leaving a gap in its
 * output; the next file's bytes then stand in the place of the missing ones, and fail its MAC. All files from there on
 * are streamed again one by one: who is at fault shows by itself.
 *
 * Deliberately not done:
 * - Skipping bytes that do not belong there (welcome text, error lines) until a MAC fits again.
 * - Restarting at the wanted file of a batch, or stopping a stream that nobody waits for: see the schedule.
 * - Evicting from the spool: it grows to the size of what was read, at most that of the snapshots' distinct chunks. Set
 *   its limit if the disk is smaller; reads then go on, at the price of streams that start over.
 * - Guessing which file is read next: small files that are read one after another cost a process each, 0.03 to 0.07 s
 *   (1.5 s in an encrypted store); those wanted at once share one, up to 32 of them.
 * - Finding another way to files that plakar itself cannot open (format notes, 10.3): its words are passed on.
 * - plakar's HTTP server, which has ranges: 0.3 s a request, and it loses names that are not UTF-8 (format notes, 16.6).
 */
import { performance } from 'node:perf_hooks';
import type { ChunkRef, ChunkStore } from '../core/chunk-store.ts';
import { newReadCounters, type ReadCounters } from '../core/counters.ts';
import type { Decoder } from '../core/decoder.ts';
import { assert, CorruptStoreError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { equalBytes } from '../core/mac.ts';
import { closingError, describeFailure, describeFile, FailureMemory, fileKey } from './plakar-cat-failures.ts';
import {
  CONCURRENCY_DEFAULT,
  IDLE_TIMEOUT_MS_DEFAULT,
  KILL_GRACE_MS_DEFAULT,
  PARKED_STREAMS_MAX,
  type PlakarCatOptions,
  type PlakarOptions,
  RETRY_PAUSE_MS_DEFAULT,
} from './plakar-cat-options.ts';
import { checkPlakar, type ProcessLimits } from './plakar-cat-process.ts';
import { Job, type Run, Schedule, type Waiter } from './plakar-cat-schedule.ts';
import { type CatFailure, CatStream } from './plakar-cat-stream.ts';
import { type MacKey, macKey, Spool } from './spool.ts';

/** Streams of a file before its waiters learn that it fails. */
const FAILED_STREAMS_MAX = 2;

export class PlakarCatChunkStore implements ChunkStore {
  readonly counters: ReadCounters;
  /** Chunks answered from the spool. */
  chunksFromSpool = 0;
  readonly #plakar: PlakarOptions;
  readonly #decoder: Decoder;
  readonly #log: Log;
  readonly #limits: ProcessLimits;
  readonly #spool: Spool;
  readonly #schedule: Schedule;
  readonly #failures: FailureMemory;
  readonly #waiters = new Map<MacKey, Waiter>();
  /** Files with waiters or a stream, by `fileKey`. */
  readonly #jobs = new Map<string, Job>();
  readonly #streams = new Map<CatStream, Promise<void>>();
  #closing: Promise<void> | undefined;

  /** Touches nothing yet; see `open` and `check`. */
  constructor(options: PlakarCatOptions) {
    const { plakar, decoder, log, spool, counters = newReadCounters() } = options;
    const { concurrency = CONCURRENCY_DEFAULT, idleTimeoutMs = IDLE_TIMEOUT_MS_DEFAULT } = options;
    const { killGraceMs = KILL_GRACE_MS_DEFAULT, retryPauseMs = RETRY_PAUSE_MS_DEFAULT } = options;
    assert(Number.isInteger(concurrency) && concurrency > 0, 'plakar cat needs a concurrency of at least 1');
    this.counters = counters;
    this.#plakar = plakar;
    this.#decoder = decoder;
    this.#log = log;
    this.#limits = { idleTimeoutMs, killGraceMs };
    this.#spool = new Spool({ ...spool, log });
    this.#failures = new FailureMemory({ pauseMs: retryPauseMs, now: options.now ?? (() => performance.now()) });
    this.#schedule = new Schedule({
      concurrency,
      parkedMax: PARKED_STREAMS_MAX,
      idleTimeoutMs,
      keeping: () => this.#spool.keeping,
      start: (run) => this.#start(run),
    });
  }

  /** A store whose program and temporary directory have been found to work. Rejects with UserError. */
  static async open(options: PlakarCatOptions): Promise<PlakarCatChunkStore> {
    const store = new PlakarCatChunkStore(options);
    try {
      await store.check();
      await store.#spool.open();
      return store;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  /** Runs plakar once, without opening the store; returns its version line. Rejects with UserError. */
  check(): Promise<string> {
    return checkPlakar(this.#plakar, this.#limits, this.#log);
  }

  async get(chunk: ChunkRef): Promise<Uint8Array> {
    assertOwnTable(chunk);
    if (chunk.lengthBytes === 0) {
      const empty = new Uint8Array();
      await this.#decoder.verify(empty, chunk.mac);
      return empty;
    }
    const key = macKey(chunk.mac);
    // Looked up again after each wait: the chunk may have passed in between, and a stream does not bring it twice.
    while (this.#spool.has(key)) {
      const kept = await this.#getKept(key, chunk);
      if (kept !== undefined) return kept;
    }
    return this.#wait(key, chunk);
  }

  /** Idempotent. Ends the children; settles once they are gone and the spool is. Reads still waiting are rejected. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#schedule.close();
    for (const key of [...this.#waiters.keys()]) this.#takeWaiter(key)?.reject(closingError());
    for (const stream of this.#streams.keys()) stream.stop();
    await Promise.all(this.#streams.values());
    await this.#spool.close();
  }

  async #getKept(key: MacKey, { mac }: ChunkRef): Promise<Uint8Array | undefined> {
    const kept = await this.#spool.read(key);
    if (kept === undefined) return undefined;
    try {
      await this.#decoder.verify(kept, mac);
    } catch (error) {
      if (!(error instanceof CorruptStoreError)) throw error;
      this.#spool.forget(key, 'its bytes do not match their MAC');
      return undefined;
    }
    this.chunksFromSpool++;
    return kept;
  }

  #wait(key: MacKey, chunk: ChunkRef): Promise<Uint8Array> {
    const present = this.#waiters.get(key);
    if (present !== undefined) return present.promise;
    if (this.#closing !== undefined) return Promise.reject(closingError());
    const name = fileKey(chunk.file);
    const failure = this.#failures.find(name, chunk.indexInFile);
    if (failure !== undefined) return Promise.reject(failure);

    const job = this.#jobs.get(name) ?? new Job(chunk.file);
    this.#jobs.set(name, job);
    const waiter = newWaiter(chunk, job);
    this.#waiters.set(key, waiter);
    job.waiting.set(key, waiter);
    this.#schedule.want(job);
    return waiter.promise;
  }

  /** Removes a waiter, to be settled by the caller. Its file need not be streamed for its sake any more. */
  #takeWaiter(key: MacKey): Waiter | undefined {
    const waiter = this.#waiters.get(key);
    if (waiter === undefined) return undefined;
    const { job } = waiter;
    this.#waiters.delete(key);
    job.waiting.delete(key);
    if (job.waiting.size === 0) this.#schedule.unwant(job);
    this.#forgetIdle(job);
    return waiter;
  }

  #forgetIdle(job: Job): void {
    if (job.waiting.size === 0 && job.run === undefined) this.#jobs.delete(fileKey(job.file));
  }

  #start(run: Run): void {
    const files = run.jobs.map(({ file }) => file);
    const stream = new CatStream({
      plakar: this.#plakar,
      limits: this.#limits,
      files,
      decoder: this.#decoder,
      counters: this.counters,
      mayOverlap: () => this.#spool.keeping,
      mayRead: () => this.#schedule.mayRead(run),
      passed: (fileIndex, chunkIndex, bytes) => this.#passed(run, { fileIndex, chunkIndex }, bytes),
    });
    const fileCount = files.length;
    this.#log.debug({ file: describeFile(files[0]!), fileCount }, 'plakar cat starts');
    const finished = stream.run().then((failure) => {
      this.#streams.delete(stream);
      this.#finished(run, failure);
    });
    this.#streams.set(stream, finished);
  }

  async #passed(run: Run, place: { fileIndex: number; chunkIndex: number }, bytes: Uint8Array): Promise<void> {
    const { chunks } = run.jobs[place.fileIndex]!.file;
    const atFileEnd = place.chunkIndex + 1 === chunks.length;
    run.fileIndex = place.fileIndex + (atFileEnd ? 1 : 0);
    run.chunkIndex = atFileEnd ? 0 : place.chunkIndex + 1;
    const key = macKey(chunks[place.chunkIndex]!.mac);
    if (this.#spool.has(key)) this.counters.chunksFetchedTwice++;
    // Offered to the spool before anything else can run: from here on a `get` finds the chunk there.
    const kept = this.#spool.keep(key, bytes);
    this.#takeWaiter(key)?.resolve(bytes);
    await kept;
  }

  #finished(run: Run, failure: CatFailure | undefined): void {
    this.#schedule.finished(run);
    // `fileIndex` names the first file that did not pass whole.
    for (const job of run.jobs.slice(0, run.fileIndex)) this.#failures.forget(fileKey(job.file));
    if (failure !== undefined) this.#fail(run, failure);
    for (const job of run.jobs) {
      // What is left waits for a chunk that passed too early and was not kept, for the second try, or behind a failure in a batch.
      if (job.waiting.size > 0 && this.#closing === undefined) this.#schedule.want(job);
      this.#forgetIdle(job);
    }
  }

  #fail(run: Run, failure: CatFailure): void {
    const job = run.jobs[failure.fileIndex]!;
    job.failedCount++;
    for (const unfinished of run.jobs.slice(failure.fileIndex)) unfinished.alone = true;
    const error = describeFailure(job.file, failure);
    if (failure.retriable && job.failedCount < FAILED_STREAMS_MAX) {
      this.#log.warn({ ...error.details, reason: failure.reason }, `${error.message}; trying once more`);
      return;
    }
    this.#failures.remember(failure.storeWide ? undefined : fileKey(job.file), failure.chunkIndex, error);
    for (const [key, { chunk, job: concerned }] of [...this.#waiters]) {
      const hit =
        concerned === job ? chunk.indexInFile >= failure.chunkIndex : failure.storeWide && concerned.run === undefined;
      if (hit) this.#takeWaiter(key)?.reject(error);
    }
  }
}

function newWaiter(chunk: ChunkRef, job: Job): Waiter {
  let settle: Pick<Waiter, 'resolve' | 'reject'> | undefined;
  const promise = new Promise<Uint8Array>((resolve, reject) => {
    settle = { resolve, reject };
  });
  assert(settle, 'a promise runs its executor at once');
  return { chunk, job, promise, ...settle };
}

/** A chunk that its file's table lacks would be waited for without end. */
function assertOwnTable({ mac, file, indexInFile }: ChunkRef): void {
  const own = file.chunks[indexInFile];
  assert(own !== undefined && equalBytes(own.mac, mac), 'a chunk stands in the table of its file');
}
