/**
 * All guesses go through here: chunks that nobody waits for yet, in the order they are given, some at a time for all who
 * guess together. Below it guesses stand behind clients' reads wherever there is a queue (the budget of bytes in flight,
 * the decoding threads), so clients that keep those busy hold guesses back without being asked.
 */
import type { ChunkRef, ChunkStore, FetchPurpose } from '../core/chunk-store.ts';
import type { ReadCounters } from '../core/counters.ts';
import { StoreUnavailableError } from '../core/errors.ts';
import { type StopOptions, StoppedError } from '../core/stop.ts';
import { AheadLedger } from './ahead-ledger.ts';
import { GUESSED_BYTES_IN_FLIGHT_MAX, GUESSES_IN_FLIGHT_MAX } from './limits.ts';

/** Why a chunk may be fetched that nobody waits for. */
export type GuessPurpose = Exclude<FetchPurpose, 'read'>;

/** What goes first: a reader is likely there soon, then what was asked for by name, then what was seen before. */
const ranks: Readonly<Record<GuessPurpose, number>> = { 'read-ahead': 0, prefetch: 1, profile: 2, 'warm-up': 3 };

export interface PrefetchOptions extends StopOptions {
  readonly purpose: GuessPurpose;
  /** Plain bytes fetched after which it ends; what is there already does not count. Default: no limit. */
  readonly bytesMax?: number | undefined;
  /** Told of each chunk that was fetched, and then not read while it was kept. */
  readonly onDropped?: ((chunk: ChunkRef) => void) | undefined;
}

/** What came of it; chunks that were not reached are in none of them. */
export interface PrefetchOutcome {
  fetched: number;
  alreadyThere: number;
  /** Damaged, or the store was away: the client that reads it will hear why. */
  failed: number;
  /** Plain bytes of those fetched. */
  bytes: number;
}

export interface PrefetcherParts {
  /** Where the chunks are to be; stays the caller's. */
  readonly chunks: ChunkStore;
  readonly counters: ReadCounters;
  /** Plain bytes that `chunks` keeps: what was fetched before the last so many counts as dropped. */
  readonly keptBytesMax: number;
  readonly chunksInFlightMax?: number;
  readonly bytesInFlightMax?: number;
}

/** One call of `fetch`. */
interface Job {
  readonly purpose: GuessPurpose;
  readonly source: Iterator<ChunkRef> | AsyncIterator<ChunkRef>;
  readonly stop: AbortController;
  readonly bytesMax: number;
  readonly onDropped: ((chunk: ChunkRef) => void) | undefined;
  readonly outcome: PrefetchOutcome;
  /** Plain bytes under way. */
  bytesUnderWay: number;
  stepsUnderWay: number;
  /** The next chunk is being asked for. */
  isPulling: boolean;
  /** No further chunks are to be fetched. */
  isOver: boolean;
  failure: { readonly cause: unknown } | undefined;
  readonly settle: () => void;
}

export class Prefetcher {
  readonly ledger: AheadLedger;
  /** As PrefetcherParts has it: more than that is fetched in vain. */
  readonly keptBytesMax: number;
  readonly #chunks: ChunkStore;
  readonly #counters: ReadCounters;
  readonly #chunksInFlightMax: number;
  readonly #bytesInFlightMax: number;
  /** In the order of their turns among those of one rank. */
  readonly #jobs: Job[] = [];
  readonly #running = new Set<Promise<unknown>>();
  #chunksInFlight = 0;
  #bytesInFlight = 0;
  #isClosed = false;

  constructor(parts: PrefetcherParts) {
    this.ledger = new AheadLedger(parts.counters, { bytesMax: parts.keptBytesMax });
    this.keptBytesMax = parts.keptBytesMax;
    this.#chunks = parts.chunks;
    this.#counters = parts.counters;
    this.#chunksInFlightMax = parts.chunksInFlightMax ?? GUESSES_IN_FLIGHT_MAX;
    this.#bytesInFlightMax = parts.bytesInFlightMax ?? GUESSED_BYTES_IN_FLIGHT_MAX;
  }

  /**
   * Fetches `chunks` in order until they end, `bytesMax` is reached, the signal comes or the store is away; settles when
   * nothing of it is under way any more. What cannot be fetched is only counted. Rejects as `chunks` does.
   */
  fetch(chunks: Iterable<ChunkRef> | AsyncIterable<ChunkRef>, options: PrefetchOptions): Promise<PrefetchOutcome> {
    const { signal } = options;
    const done = new Promise<PrefetchOutcome>((resolve, reject) => {
      const job = newJob(chunks, options, () => {
        signal?.removeEventListener('abort', stop);
        if (job.failure === undefined) resolve(job.outcome);
        else reject(job.failure.cause);
      });
      const stop = () => this.#stop(job);
      this.#jobs.push(job);
      signal?.addEventListener('abort', stop, { once: true });
      if (this.#isClosed || signal?.aborted) stop();
    });
    this.#running.add(done);
    const forget = () => void this.#running.delete(done);
    done.then(forget, forget);
    this.#pump();
    return done;
  }

  /** Stops everything; settles when nothing is under way any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const job of [...this.#jobs]) this.#stop(job);
    await Promise.allSettled(this.#running);
  }

  #pump(): void {
    while (this.#chunksInFlight < this.#chunksInFlightMax && this.#bytesInFlight < this.#bytesInFlightMax) {
      const job = this.#choose();
      if (job === undefined) return;
      this.#chunksInFlight++;
      job.stepsUnderWay++;
      void this.#step(job).finally(() => {
        this.#chunksInFlight--;
        job.stepsUnderWay--;
        this.#endIfOver(job);
        this.#pump();
      });
    }
  }

  /** The job whose turn it is; those of one rank take turns chunk by chunk. */
  #choose(): Job | undefined {
    let best: Job | undefined;
    for (const job of this.#jobs) {
      if (job.isPulling || job.isOver || job.outcome.bytes + job.bytesUnderWay >= job.bytesMax) continue;
      if (best === undefined || ranks[job.purpose] < ranks[best.purpose]) best = job;
    }
    if (best !== undefined) {
      this.#jobs.splice(this.#jobs.indexOf(best), 1);
      this.#jobs.push(best);
    }
    return best;
  }

  /** Takes the job's next chunk and fetches it. Never rejects. */
  async #step(job: Job): Promise<void> {
    const chunk = await this.#pull(job);
    if (chunk === undefined) return;
    this.#bytesInFlight += chunk.lengthBytes;
    job.bytesUnderWay += chunk.lengthBytes;
    this.#pump();
    try {
      if (await this.#fetchOne(chunk, job)) this.#countFetched(chunk, job);
      else job.outcome.alreadyThere++;
    } catch (error) {
      this.#countFailed(error, job);
    } finally {
      this.#bytesInFlight -= chunk.lengthBytes;
      job.bytesUnderWay -= chunk.lengthBytes;
      // What was there already leaves room for others; what was fetched may have been the last.
      if (job.outcome.bytes >= job.bytesMax) this.#endSource(job);
    }
  }

  async #pull(job: Job): Promise<ChunkRef | undefined> {
    job.isPulling = true;
    try {
      const { done, value } = await job.source.next();
      if (done) job.isOver = true;
      return done || job.isOver ? undefined : value;
    } catch (cause) {
      if (!job.isOver) job.failure = { cause };
      job.isOver = true;
      return undefined;
    } finally {
      job.isPulling = false;
    }
  }

  /** False if it was there. */
  async #fetchOne(chunk: ChunkRef, { purpose, stop: { signal } }: Job): Promise<boolean> {
    if (this.#chunks.prefetch !== undefined) return this.#chunks.prefetch(chunk, { purpose, signal });
    await this.#chunks.get(chunk, { purpose, signal });
    return true;
  }

  #countFetched(chunk: ChunkRef, { outcome, onDropped }: Job): void {
    outcome.fetched++;
    outcome.bytes += chunk.lengthBytes;
    this.ledger.add(chunk, onDropped);
  }

  #countFailed(error: unknown, job: Job): void {
    if (job.stop.signal.aborted) return;
    job.outcome.failed++;
    this.#counters.aheadFailed++;
    // Each of the following would wait for the store as long as this one did.
    if (error instanceof StoreUnavailableError) this.#endSource(job);
  }

  #stop(job: Job): void {
    job.stop.abort(new StoppedError('the chunk is not to be fetched ahead any more'));
    this.#endSource(job);
    this.#endIfOver(job);
  }

  #endSource(job: Job): void {
    if (job.isOver) return;
    job.isOver = true;
    // Lets a generator leave; whatever it says by now is of no interest.
    void Promise.resolve(job.source.return?.()).catch(() => undefined);
  }

  #endIfOver(job: Job): void {
    if (!job.isOver || job.stepsUnderWay > 0) return;
    const at = this.#jobs.indexOf(job);
    if (at === -1) return;
    this.#jobs.splice(at, 1);
    job.settle();
  }
}

function newJob(
  chunks: Iterable<ChunkRef> | AsyncIterable<ChunkRef>,
  { purpose, bytesMax = Number.POSITIVE_INFINITY, onDropped }: PrefetchOptions,
  settle: () => void,
): Job {
  return {
    purpose,
    source: Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator](),
    stop: new AbortController(),
    bytesMax,
    onDropped,
    outcome: { fetched: 0, alreadyThere: 0, failed: 0, bytes: 0 },
    bytesUnderWay: 0,
    stepsUnderWay: 0,
    isPulling: false,
    isOver: bytesMax <= 0,
    failure: undefined,
    settle,
  };
}
