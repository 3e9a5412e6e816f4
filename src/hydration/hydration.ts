/**
 * Copies what snapshots need from the store into a hydrated directory, one snapshot behind the other, beside the clients that
 * are served. Each is walked first, which brings its metadata and says how much is to come; then its chunks are fetched,
 * checked and written as stored. What is there already is left alone, so stopping at any moment costs little.
 *
 *   walking ─► copying ─► complete
 *      │          │
 *      └──────────┴─ disk full, store away ─► waiting ─► walking
 */
import { statfs } from 'node:fs/promises';
import type { Activity } from '../core/activity.ts';
import type { ChunkRef } from '../core/chunk-store.ts';
import { ByteBudget } from '../core/concurrency.ts';
import { newReadCounters } from '../core/counters.ts';
import type { Decoder } from '../core/decoder.ts';
import { AssertionError, StoreUnavailableError } from '../core/errors.ts';
import type { Health } from '../core/health.ts';
import type { Log } from '../core/log.ts';
import { StoppedError } from '../core/stop.ts';
import { formatBytes } from '../core/units.ts';
import { type Clock, systemClock } from '../kloset/clock.ts';
import { resourceTypes } from '../kloset/format.ts';
import type { Repository } from '../kloset/repository.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { KlosetChunkStore } from '../source/kloset-chunk-store.ts';
import { requireDamage } from '../verify/problems.ts';
import type { BlobWriter } from './blob-writer.ts';
import type { HydratedBlobs } from './hydrated-blobs.ts';
import {
  CHUNKS_AT_ONCE_MAX,
  DAMAGE_NAMED_MAX,
  FREE_BYTES_MIN,
  FREE_SHARE_MIN,
  IN_FLIGHT_BYTES_MAX,
  PROGRESS_MS,
  RETRY_MS,
} from './limits.ts';
import { Pace, pause } from './pace.ts';
import { forEachChunk, makePlan, type Plan, type PlannedChunk } from './plan.ts';

export interface HydrationOptions {
  /** All stay the caller's. */
  readonly repository: Repository;
  readonly decoder: Decoder;
  readonly blobs: HydratedBlobs;
  readonly writer: BlobWriter;
  readonly snapshots: readonly SnapshotHeader[];
  readonly activity: Activity;
  readonly bytesPerSecond: number | undefined;
  readonly health: Health;
  readonly log: Log;
  readonly clock?: Clock;
  /** Bytes free where the directory lies; by default what statfs(2) says. */
  readonly freeBytes?: (directory: string) => Promise<number>;
}

/** Where it stands; bytes are stored bytes of the current snapshot's chunks. */
export interface HydrationStatus {
  readonly state: 'walking' | 'copying' | 'waiting' | 'complete' | 'stopped';
  /** 64 hex digits; undefined once all are complete. */
  readonly snapshot: string | undefined;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Seconds, from the pace so far; undefined before there is one. */
  readonly remainingSeconds: number | undefined;
  /** Why it waits. */
  readonly reason: string | undefined;
}

const IDLE: HydrationStatus = {
  state: 'walking',
  snapshot: undefined,
  doneBytes: 0,
  totalBytes: 0,
  remainingSeconds: undefined,
  reason: undefined,
};

/** The health's subject. */
const SUBJECT = 'hydration';

export class Hydration {
  readonly #options: HydrationOptions;
  readonly #clock: Clock;
  readonly #repository: Repository;
  readonly #chunks: KlosetChunkStore;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #status = IDLE;
  #copyingSinceMs = 0;
  #bytesBefore = 0;
  #toldAtMs = 0;

  /** Starts at once. */
  constructor(options: HydrationOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const { activity, bytesPerSecond, writer, decoder } = options;
    const pace = new Pace({ activity, bytesPerSecond, clock: this.#clock });
    const { signal } = this.#stopping;
    // Counters of its own: none of it is what clients cost.
    const counters = newReadCounters();
    this.#repository = options.repository.withHooks({
      ...{ signal, counters },
      admit: (bytes) => pace.admit(bytes, signal),
      fetched: (id, stored) => writer.append(id, stored),
    });
    const budget = new ByteBudget(IN_FLIGHT_BYTES_MAX);
    this.#chunks = new KlosetChunkStore({ repository: this.#repository, decoder, budget, counters });
    this.#running = this.#run();
  }

  get status(): HydrationStatus {
    return { ...this.#status, remainingSeconds: this.#remainingSeconds() };
  }

  /** Settles when all snapshots are complete or it was stopped. Rejects with a broken invariant only. */
  get done(): Promise<void> {
    return this.#running;
  }

  /** Ends soon; what was fetched stays. */
  async stop(): Promise<void> {
    this.#stopping.abort(new StoppedError('hydration is stopped'));
    await this.#running.catch(() => undefined);
  }

  async #run(): Promise<void> {
    const { snapshots, writer } = this.#options;
    writer.takesOffers = true;
    try {
      for (const header of snapshots) await this.#completeSnapshot(header);
      this.#status = { ...IDLE, state: 'complete' };
    } catch (error) {
      this.#status = { ...this.#status, state: 'stopped' };
      if (!(error instanceof StoppedError)) throw error;
    } finally {
      writer.takesOffers = false;
    }
  }

  async #completeSnapshot(header: SnapshotHeader): Promise<void> {
    const { blobs, log, health } = this.#options;
    if (blobs.snapshot(header.id)?.isComplete && blobs.isSound) {
      log.info({ snapshot: header.id }, `Snapshot ${short(header)} is hydrated in ${blobs.directory} already`);
      return;
    }
    for (;;) {
      try {
        if (await this.#tryComplete(header)) break;
      } catch (error) {
        await this.#wait(header, error);
      }
    }
    if (health.recover(SUBJECT)) log.info({}, 'Hydrating goes on.');
  }

  /** False if not everything that was fetched became durable. */
  async #tryComplete(header: SnapshotHeader): Promise<boolean> {
    const { blobs, writer, log, health } = this.#options;
    const { failures } = writer;
    this.#status = { ...IDLE, snapshot: header.id };
    await this.#requireFree(header, 0);
    const has = (mac: Uint8Array) => writer.has({ type: resourceTypes.chunk, mac });
    const plan = await makePlan({ repository: this.#repository, chunks: this.#chunks, has }, header);
    await writer.commit();
    const toCome = plan.chunkBytes - plan.readyBytes;
    await this.#requireFree(header, toCome);
    this.#begin(plan);
    await writer.noteSnapshot(this.#record(header, plan, false));
    if (health.recover(SUBJECT)) log.info({}, 'Hydrating goes on.');
    log.info(
      { snapshot: header.id, directory: blobs.directory, bytes: toCome, chunks: plan.chunks },
      `Hydrating snapshot ${short(header)} into ${blobs.directory}: ${formatBytes(toCome)} of ${formatBytes(plan.chunkBytes)} are to be fetched`,
    );
    try {
      await forEachChunk(plan, this.#repository, CHUNKS_AT_ONCE_MAX, (chunk) => this.#fetch(plan, header, chunk));
    } finally {
      await writer.noteSnapshot(this.#record(header, plan, false));
    }
    if (writer.failures !== failures) return false;
    await writer.noteSnapshot(this.#record(header, plan, true));
    this.#tellComplete(header, plan);
    return true;
  }

  async #fetch(plan: Plan, header: SnapshotHeader, { mac, lengthBytes }: PlannedChunk): Promise<void> {
    this.#stopping.signal.throwIfAborted();
    const id = { type: resourceTypes.chunk, mac };
    if (!(await this.#options.writer.has(id))) {
      const file = { snapshotId: header.id, path: NO_PATH, chunks: [] };
      const chunk: ChunkRef = { mac, lengthBytes, file, indexInFile: 0 };
      try {
        // As little urgent as a warm-up: decoding lets clients' chunks pass.
        await this.#chunks.get(chunk, { signal: this.#stopping.signal, purpose: 'warm-up' });
      } catch (error) {
        const damage = requireDamage(error);
        plan.damaged.set(damage.message, damage);
        return;
      }
      const bytes = (await this.#repository.storedLength(id)) ?? 0;
      this.#status = { ...this.#status, doneBytes: this.#status.doneBytes + bytes };
    }
    if (this.#clock.now() - this.#toldAtMs >= PROGRESS_MS) await this.#tellProgress(header, plan);
  }

  #begin(plan: Plan): void {
    this.#copyingSinceMs = this.#clock.now();
    this.#toldAtMs = this.#copyingSinceMs;
    this.#bytesBefore = plan.readyBytes;
    this.#status = { ...this.#status, state: 'copying', doneBytes: plan.readyBytes, totalBytes: plan.chunkBytes };
  }

  async #tellProgress(header: SnapshotHeader, plan: Plan): Promise<void> {
    this.#toldAtMs = this.#clock.now();
    const { status } = this;
    const { doneBytes, totalBytes, remainingSeconds } = status;
    this.#options.log.info(
      { snapshot: header.id, doneBytes, totalBytes, remainingSeconds },
      `Hydrating snapshot ${short(header)}: ${describeProgress(status)}`,
    );
    await this.#options.writer.noteSnapshot(this.#record(header, plan, false));
  }

  #tellComplete(header: SnapshotHeader, { chunkBytes, damaged }: Plan): void {
    const { log, blobs } = this.#options;
    const but = damaged.size === 0 ? '' : `, but for ${damaged.size} damaged or missing blobs of the store`;
    for (const error of [...damaged.values()].slice(0, DAMAGE_NAMED_MAX)) {
      log.error({ snapshot: header.id }, `Not hydrated: ${error.message}`);
    }
    log.info(
      { snapshot: header.id, directory: blobs.directory, bytes: chunkBytes, damaged: damaged.size },
      `Snapshot ${short(header)} is hydrated: ${blobs.directory} holds all of it (${formatBytes(chunkBytes)} of chunks)${but}; it can be served without the store`,
    );
  }

  #record(header: SnapshotHeader, { chunkBytes, chunks, damaged }: Plan, isComplete: boolean) {
    return {
      isComplete,
      id: Buffer.from(header.id, 'hex'),
      chunkBytes,
      doneBytes: isComplete ? chunkBytes : Math.min(chunkBytes, this.#status.doneBytes),
      chunks,
      damaged: damaged.size,
      timeMs: Date.now(),
    };
  }

  #remainingSeconds(): number | undefined {
    const { state, doneBytes, totalBytes } = this.#status;
    const fetched = doneBytes - this.#bytesBefore;
    if (state !== 'copying' || fetched <= 0) return undefined;
    const elapsedMs = this.#clock.now() - this.#copyingSinceMs;
    return Math.ceil(((totalBytes - doneBytes) * elapsedMs) / fetched / 1000);
  }

  async #requireFree(header: SnapshotHeader, toCome: number): Promise<void> {
    const { blobs, freeBytes = freeOnDisk } = this.#options;
    const needed = toCome + Math.max(FREE_BYTES_MIN, toCome * FREE_SHARE_MIN);
    const free = await freeBytes(blobs.directory);
    if (free >= needed) return;
    throw new NoRoomError(
      `${blobs.directory} has ${formatBytes(free)} free, hydrating snapshot ${short(header)} needs ${formatBytes(needed)}`,
    );
  }

  /** After a failure that can pass; passes on one that cannot. */
  async #wait(header: SnapshotHeader, error: unknown): Promise<void> {
    if (error instanceof StoppedError || error instanceof AssertionError || !canPass(error)) throw error;
    const { health, log } = this.#options;
    const reason = `snapshot ${short(header)} is not being hydrated: ${(error as Error).message}`;
    this.#status = { ...this.#status, state: 'waiting', reason };
    if (health.degrade(SUBJECT, reason)) {
      log.error({ snapshot: header.id }, `${reason}. It is tried again every ${RETRY_MS / 1000} s.`);
    }
    await pause(RETRY_MS, this.#clock, this.#stopping.signal);
  }
}

/** How far the snapshot is, for people. */
export function describeProgress({ doneBytes, totalBytes, remainingSeconds }: HydrationStatus): string {
  const percent = totalBytes === 0 ? 0 : Math.floor((100 * doneBytes) / totalBytes);
  const remaining = remainingSeconds === undefined ? '' : `, about ${remainingSeconds} s to go`;
  return `${percent} % (${formatBytes(doneBytes)} of ${formatBytes(totalBytes)})${remaining}`;
}

const NO_PATH = new Uint8Array(0);

/** The disk has too little room for what is to come. */
class NoRoomError extends Error {}

/** Errors of the store that is away and of the file system, full or out of order; anything else is a bug. */
function canPass(error: unknown): boolean {
  return (
    error instanceof NoRoomError ||
    error instanceof StoreUnavailableError ||
    (error instanceof Error && 'code' in error && 'syscall' in error)
  );
}

async function freeOnDisk(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

function short({ id }: SnapshotHeader): string {
  return id.slice(0, 8);
}
