/**
 * Fetches what PostgreSQL will ask of a snapshot before it asks, in the background, from the moment the snapshot is
 * opened: first what the profile of its source has, then what every start reads. Behind a slow store a start is a
 * thousand round trips one after another; here they are made side by side. Guesses never fail anything, and never take
 * all of the store's places.
 */
import type { StoreCache } from '../cache/store-cache.ts';
import type { ChunkRef, ChunkStore } from '../core/chunk-store.ts';
import { mapAhead } from '../core/concurrency.ts';
import { CorruptStoreError, KlosetNbdError, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import type { SourceWatcher } from '../exports/open-store.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { GuessPurpose, Prefetcher, PrefetchOutcome } from '../source/prefetcher.ts';
import { PROFILE_BYTES_MAX, TABLES_AHEAD_MAX, TRACES_MAX, WARM_UP_BYTES_MAX } from './limits.ts';
import { type PlannedSource, planWarmUp } from './plan.ts';
import { profileBytes, readProfile, sourceName, writeProfile } from './profile.ts';
import { ReadTrace, type TracedChunk, traced } from './read-trace.ts';
import { type ChunkedSource, chunksOfProfile } from './replay.ts';
import type { WorkingSet } from './working-set.ts';

export interface WarmUpsOptions {
  /** Stays the caller's, as the cache does. */
  readonly prefetcher: Pick<Prefetcher, 'fetch'>;
  /** Where profiles are kept; undefined: nowhere. */
  readonly cache: StoreCache | undefined;
  /** Taken over. Undefined: nothing is recalled, and nothing is kept for the next server. */
  readonly workingSet?: WorkingSet | undefined;
  /** False: nothing is fetched; what is read can be recorded all the same. */
  readonly isOn: boolean;
  /** As PlanOptions has it. */
  readonly needsTemplate1?: boolean;
  readonly log: Log;
}

/** What is warmed up: a KlosetSource. */
export type WarmSource = PlannedSource & ChunkedSource & { readonly snapshotId: string };

/** A directory of a snapshot that is, or was, open. */
export interface TracedPart {
  /** 64 hex digits. */
  readonly snapshotId: string;
  /** Absolute. */
  readonly path: string;
}

/** A profile that was written; plain JSON. */
export interface RecordedProfile {
  readonly source: string;
  readonly snapshot: string;
  readonly chunkCount: number;
  /** Plain bytes of its chunks. */
  readonly bytes: number;
}

interface Traced {
  readonly header: SnapshotHeader;
  readonly trace: ReadTrace;
  /** The log says that it is warm. */
  isTold: boolean;
}

export class WarmUps implements SourceWatcher {
  readonly #options: WarmUpsOptions;
  readonly #stop = new AbortController();
  /** By part; the one that was opened last comes last. */
  readonly #traces = new Map<string, Traced>();
  /** Those under way, by part. */
  readonly #running = new Map<string, Promise<void>>();

  constructor(options: WarmUpsOptions) {
    this.#options = options;
  }

  reading(header: SnapshotHeader, root: string, chunks: ChunkStore): ChunkStore {
    const key = keyOf({ snapshotId: header.id, path: root });
    const known = this.#traces.get(key) ?? { header, trace: new ReadTrace(), isTold: false };
    this.#traces.delete(key);
    this.#traces.set(key, known);
    const [oldest] = this.#traces.keys();
    if (this.#traces.size > TRACES_MAX) this.#traces.delete(oldest!);
    return traced(chunks, known.trace);
  }

  opened(header: SnapshotHeader, source: WarmSource): void {
    const key = keyOf({ snapshotId: header.id, path: source.root });
    if (!this.#options.isOn || this.#stop.signal.aborted || this.#running.has(key)) return;
    const done = this.#warmUp(header, source)
      .catch((error: unknown) => this.#tellFailure(header, error))
      .then(() => this.#recall())
      .finally(() => this.#running.delete(key));
    this.#running.set(key, done);
  }

  /** Resolves when none is under way. */
  async untilDone(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  /**
   * Keeps what was read of these directories since they were opened, or since `begin`, as the profiles of their sources.
   * Rejects with UserError if nothing was, or there is no place for profiles.
   */
  async record(parts: readonly TracedPart[]): Promise<RecordedProfile[]> {
    const { cache } = this.#options;
    if (cache === undefined) throw new UserError('Profiles are kept with the cache, and the server runs without one.');
    const bySource = new Map<string, { readonly header: SnapshotHeader; readonly chunks: TracedChunk[] }>();
    for (const { header, trace } of this.#tracesOf(parts)) {
      const name = sourceName(header);
      const { chunks } = bySource.get(name) ?? { chunks: [] };
      bySource.set(name, { header, chunks: [...chunks, ...trace.list()] });
    }
    const recorded: RecordedProfile[] = [];
    for (const [source, { header, chunks }] of bySource) {
      if (chunks.length === 0) continue;
      const profile = { snapshotId: header.id, recordedMs: Date.now(), chunks };
      if (!(await writeProfile(cache, header, profile))) {
        throw new UserError('The cache did not take the profile; the log of the server says why.');
      }
      recorded.push({ source, snapshot: header.id, chunkCount: chunks.length, bytes: profileBytes(profile) });
    }
    if (recorded.length === 0)
      throw new UserError('Nothing has been read of its files yet: there is nothing to record.');
    return recorded;
  }

  /** Forgets what was read of these directories so far. Throws UserError if none of them was open. */
  begin(parts: readonly TracedPart[]): void {
    for (const { trace } of this.#tracesOf(parts)) trace.clear();
  }

  /** Stops what is under way, waits for it, and writes the working set down. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('the store is being closed'));
    await this.untilDone();
    await this.#options.workingSet?.close();
  }

  #tracesOf(parts: readonly TracedPart[]): Traced[] {
    const found = parts.flatMap((part) => this.#traces.get(keyOf(part)) ?? []);
    if (found.length === 0) throw new UserError('It has not been opened yet: there is nothing to record.');
    return found;
  }

  async #warmUp(header: SnapshotHeader, source: WarmSource): Promise<void> {
    const { cache } = this.#options;
    const startedMs = performance.now();
    const damaged = (error: unknown) => this.#passOver(header, error);
    const profile = cache && (await readProfile(cache, header));
    const replayed =
      profile && (await this.#fetch(chunksOfProfile(source, profile, damaged), 'profile', PROFILE_BYTES_MAX));
    const replayedMs = performance.now();
    const known = this.#traces.get(keyOf({ snapshotId: header.id, path: source.root }));
    // An opening that finds all there is of interest once.
    const isNew = known?.isTold === false;
    this.#tell(header, 'its profile has', replayed, { isNew, elapsedMs: replayedMs - startedMs });
    const warmed = await this.#fetch(this.#planned(source, damaged), 'warm-up', WARM_UP_BYTES_MAX);
    this.#tell(header, 'PostgreSQL reads when it starts', warmed, { isNew, elapsedMs: performance.now() - replayedMs });
    if (known !== undefined) known.isTold = true;
  }

  /** Last: it saves a read of the disk cache, what comes before it saves one of the store. */
  async #recall(): Promise<void> {
    const { workingSet, log } = this.#options;
    const startedMs = performance.now();
    const { signal } = this.#stop;
    const bytes = await workingSet?.recall({ signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    if (!bytes) return;
    const milliseconds = Math.round(performance.now() - startedMs);
    log.info(
      { bytes, milliseconds },
      `What was read of this store last time is in memory again: ${formatBytes(bytes)} of the disk cache, in ${milliseconds} ms`,
    );
  }

  #fetch(chunks: AsyncIterable<ChunkRef>, purpose: GuessPurpose, bytesMax: number): Promise<PrefetchOutcome> {
    return this.#options.prefetcher.fetch(chunks, { purpose, signal: this.#stop.signal, bytesMax });
  }

  async *#planned(source: WarmSource, damaged: (error: unknown) => void): AsyncGenerator<ChunkRef> {
    const options = { signal: this.#stop.signal, purpose: 'warm-up' as const };
    const { needsTemplate1 = false } = this.#options;
    const plan = planWarmUp(source, { ...options, needsTemplate1 });
    const stretches = mapAhead(plan, TABLES_AHEAD_MAX, ({ entry, from, to }) =>
      source.chunksOf(entry, from, to).catch((error: unknown) => {
        damaged(error);
        return [];
      }),
    );
    for await (const chunks of stretches) yield* chunks;
  }

  /** Damage is for whoever reads the file; a store that is away ends the warm-up. */
  #passOver({ id }: SnapshotHeader, error: unknown): void {
    if (!(error instanceof CorruptStoreError)) throw error;
    this.#options.log.debug({ snapshot: id, ...error.details }, `Not warmed up: ${error.message}`);
  }

  #tell(
    { id }: SnapshotHeader,
    what: string,
    outcome: PrefetchOutcome | undefined,
    { isNew, elapsedMs }: { readonly isNew: boolean; readonly elapsedMs: number },
  ): void {
    if (outcome === undefined || outcome.fetched + outcome.alreadyThere === 0) return;
    const { fetched, alreadyThere, failed, bytes } = outcome;
    const milliseconds = Math.round(elapsedMs);
    const { log } = this.#options;
    const fields = { snapshot: id, chunks: fetched, alreadyThere, failed, bytes, milliseconds };
    const message =
      `Snapshot ${id.slice(0, 8)} is warm: fetched what ${what}, ${fetched} chunks of ${formatBytes(bytes)} in ` +
      `${milliseconds} ms; ${alreadyThere} were there`;
    if (isNew || fetched > 0) log.info(fields, message);
    else log.debug(fields, message);
  }

  #tellFailure({ id }: SnapshotHeader, error: unknown): void {
    if (this.#stop.signal.aborted) return;
    const message = `Snapshot ${id.slice(0, 8)} is not warmed up any further: ${(error as Error).message}`;
    if (error instanceof KlosetNbdError) this.#options.log.info({ snapshot: id }, message);
    else this.#options.log.warn({ snapshot: id, err: error }, message);
  }
}

function keyOf({ snapshotId, path }: TracedPart): string {
  return `${snapshotId}:${path}`;
}
