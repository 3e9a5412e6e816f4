import type { CacheChoice } from '../cache/cache-directory.ts';
import { ChunkDisk } from '../cache/chunk-disk.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import { Activity } from '../core/activity.ts';
import type { ChunkStore } from '../core/chunk-store.ts';
import { Closers } from '../core/closers.ts';
import { ByteBudget } from '../core/concurrency.ts';
import { type CacheCounters, newCacheCounters, newReadCounters, type ReadCounters } from '../core/counters.ts';
import type { Decoder } from '../core/decoder.ts';
import { type Log, silentLog } from '../core/log.ts';
import { type Progress, silentProgress } from '../core/progress.ts';
import { SharedArena } from '../core/shared-arena.ts';
import { MiB } from '../core/units.ts';
import type { ReplicaPlace } from '../kloset/blob-replica.ts';
import { type KeySource, Repository } from '../kloset/repository.ts';
import { type DamagedSnapshot, listSnapshots, type SnapshotHeader, type SnapshotListing } from '../kloset/snapshot.ts';
import type { KlosetStore } from '../kloset/store.ts';
import { ChunkCache, type RecallableChunks } from '../source/chunk-cache.ts';
import { ChunkTables } from '../source/chunk-tables.ts';
import { fromBytePath } from '../source/directory-lister.ts';
import { KlosetChunkStore } from '../source/kloset-chunk-store.ts';
import { KlosetSource, resolveRoot } from '../source/kloset-source.ts';
import { Prefetcher } from '../source/prefetcher.ts';
import { ReadAhead } from '../source/read-ahead.ts';
import type { WalkOptions } from '../source/snapshot-walk.ts';
import { ThreadedChunkWriter } from '../workers/cache-writer.ts';
import { PooledDecoder } from '../workers/pool.ts';

/** Makes the store of file contents. It counts what it reads in `counters`. */
export type ContentSource = (parts: {
  readonly decoder: Decoder;
  readonly counters: ReadCounters;
  /** What it writes to disks must be encrypted, too. */
  readonly isEncrypted: boolean;
}) => Promise<ChunkStore>;

export interface StoreOptions {
  /** Taken over: closed with what is opened here, also after a failure. */
  readonly store: KlosetStore;
  /** Decoded chunks kept, bytes. */
  readonly cacheBytesMax: number;
  /** Decoded chunks kept on disk where there is a cache, of all stores together, bytes; 0: none. Default 0. */
  readonly cacheDiskBytesMax?: number;
  /** Bytes being fetched and decoded at once. */
  readonly inflightBytesMax: number;
  readonly keys: KeySource;
  /** Opens a store without those of its states that are damaged. */
  readonly ignoreDamaged?: boolean | undefined;
  readonly log?: Log;
  /** Who fetches files' contents instead of our own reader, if anyone; the store closes it. */
  readonly contentSource?: ContentSource | undefined;
  /** Where what is read of the store at opening is kept for the next time; undefined: nowhere. */
  readonly cache?: CacheChoice | undefined;
  /** A copy of what is needed of the store, which is nearer or outlives it; stays the caller's. */
  readonly replica?: ReplicaPlace | undefined;
  readonly progress?: Progress;
}

/** Told of snapshots that are opened, and put between them and the chunks of their files. */
export interface SourceWatcher {
  /** The directory `root`, an absolute path, of a snapshot is being opened; its files are read from what this returns. */
  reading(header: SnapshotHeader, root: string, chunks: ChunkStore): ChunkStore;
  /** It is open. */
  opened(header: SnapshotHeader, source: KlosetSource): void;
}

/** Cache of decoded metadata, bytes. */
const METADATA_CACHE_BYTES_MAX = 16 * MiB;

/**
 * The parts of the cache's memory for chunks on their way, bytes: as they are stored, and while they are decoded or written to
 * disk.
 */
const STORED_BYTES_MAX = 16 * MiB;
const DECODING_BYTES_MAX = 64 * MiB;

/** The share of memory for decoded chunks that may hold what nobody has read yet: half of what new ones pass through. */
const READ_AHEAD_SHARE = 1 / 8;

/** The share that keeps what was fetched ahead where there is no disk: that which new chunks pass through. */
const KEPT_SHARE = 1 / 4;

/** What waits inside an opened store, and what its cache of contents has found. */
export interface StoreFigures {
  /** Bytes of chunks being fetched and decoded, and chunks that wait for room among them. */
  readonly fetchBytes: number;
  readonly fetchesWaiting: number;
  /** Chunks that wait for a decoding thread. */
  readonly decodesWaiting: number;
  readonly contentCache: Readonly<CacheCounters>;
}

/** An opened store with everything that snapshots of it share: index, decoder, caches, counters. */
export class OpenStore {
  readonly repository: Repository;
  /** Decodes in threads. */
  readonly decoder: PooledDecoder;
  /** Fetches that clients wait for. */
  readonly activity: Activity;
  readonly counters: ReadCounters;
  /** Fetches chunks of files' contents that nobody waits for yet. */
  readonly prefetcher: Prefetcher;
  readonly #readAhead: ReadAhead | undefined;
  /** Whoever wants to know what is opened from here on. */
  watcher: SourceWatcher | undefined;
  #listing: SnapshotListing;
  readonly #closers: Closers;
  readonly #metadataChunks: ChunkCache;
  readonly #contentChunks: ChunkCache;
  readonly #budget: ByteBudget;
  readonly #progress: Progress;
  readonly #tables: ChunkTables;

  private constructor(parts: {
    repository: Repository;
    activity: Activity;
    counters: ReadCounters;
    listing: SnapshotListing;
    closers: Closers;
    metadataChunks: ChunkCache;
    contentChunks: ChunkCache;
    prefetcher: Prefetcher;
    readAhead: ReadAhead | undefined;
    budget: ByteBudget;
    decoder: PooledDecoder;
    progress: Progress;
  }) {
    this.repository = parts.repository;
    this.decoder = parts.decoder;
    this.activity = parts.activity;
    this.counters = parts.counters;
    this.#listing = parts.listing;
    this.#closers = parts.closers;
    this.#metadataChunks = parts.metadataChunks;
    this.#contentChunks = parts.contentChunks;
    this.prefetcher = parts.prefetcher;
    this.#readAhead = parts.readAhead;
    this.#budget = parts.budget;
    this.#progress = parts.progress;
    this.#tables = new ChunkTables(parts.repository);
  }

  /** Rejects with UserError (66: no store, 77: passphrase), UnsupportedError, CorruptStoreError or StoreUnavailableError. */
  static async open(options: StoreOptions): Promise<OpenStore> {
    const { store } = options;
    const closers = new Closers();
    closers.add(() => store.close());
    try {
      return await OpenStore.#open(store, closers, options);
    } catch (error) {
      return closers.closeBecause(error);
    }
  }

  static async #open(store: KlosetStore, closers: Closers, options: StoreOptions): Promise<OpenStore> {
    const counters = newReadCounters();
    const { progress = silentProgress } = options;
    const repository = await Repository.open(store, { ...options, counters });
    closers.add(() => repository.close());
    const listing = await listSnapshots(repository);
    const arenaBytes = options.cacheBytesMax - Math.min(STORED_BYTES_MAX, options.cacheBytesMax / 16);
    const decodingBytes = Math.min(DECODING_BYTES_MAX, options.cacheBytesMax / 4);
    const arena = new SharedArena(arenaBytes);
    const decoder = await PooledDecoder.start(repository.codecParameters, { arena });
    closers.add(() => decoder.close());
    const budget = new ByteBudget(options.inflightBytesMax);
    const activity = new Activity();
    const native = new KlosetChunkStore({ repository, decoder, budget, counters, activity });
    const foreign = await options.contentSource?.({ decoder, counters, isEncrypted: repository.isEncrypted });
    // Metadata is read once, while a snapshot is opened: it would only push contents out of their cache.
    const metadataChunks = new ChunkCache(native, { bytesMax: METADATA_CACHE_BYTES_MAX });
    closers.add(() => metadataChunks.close());
    const cacheCounters = newCacheCounters();
    const disk = await openChunkDisk(repository.cache, cacheCounters, options);
    const tiers = { bytesMax: arenaBytes - decodingBytes, disk, counters: cacheCounters, arena };
    const contentChunks = new ChunkCache(foreign ?? native, tiers);
    closers.add(() => contentChunks.close());
    const keptBytesMax = disk === undefined ? options.cacheBytesMax * KEPT_SHARE : options.cacheDiskBytesMax!;
    const prefetcher = new Prefetcher({ chunks: contentChunks, counters, keptBytesMax });
    closers.add(() => prefetcher.close());
    // What plakar's cat gives comes in the order of the file anyhow.
    const readAhead =
      foreign === undefined
        ? new ReadAhead({ prefetcher, bytesMax: options.cacheBytesMax * READ_AHEAD_SHARE })
        : undefined;
    const caches = { metadataChunks, contentChunks, prefetcher, readAhead };
    return new OpenStore({ repository, activity, counters, listing, closers, ...caches, budget, decoder, progress });
  }

  /** As of now. */
  get figures(): StoreFigures {
    return {
      fetchBytes: this.#budget.bytesInUse,
      fetchesWaiting: this.#budget.waiting,
      decodesWaiting: this.decoder.waiting,
      contentCache: this.#contentChunks.counters,
    };
  }

  /** What clients read again and again, and what brings that back into memory. */
  get recallable(): RecallableChunks {
    return this.#contentChunks;
  }

  /** Newest first, as of the last refresh. */
  get snapshots(): readonly SnapshotHeader[] {
    return this.#listing.snapshots;
  }

  /** Those that cannot be opened. */
  get damaged(): readonly DamagedSnapshot[] {
    return this.#listing.damaged;
  }

  /**
   * Lists the store's states again: snapshots that came since then are in `snapshots` afterwards, deleted ones no more.
   * Rejects as Repository.refresh and listSnapshots do.
   */
  async refresh(): Promise<void> {
    await this.repository.refresh();
    this.#listing = await listSnapshots(this.repository, this.#listing);
  }

  /** Opens a snapshot, or the directory `path` of it. */
  async openSource(header: SnapshotHeader, path: string, options: WalkOptions = {}): Promise<KlosetSource> {
    const { watcher } = this;
    const root = fromBytePath(resolveRoot(header, path)).toString();
    const contentChunks = watcher?.reading(header, root, this.#contentChunks) ?? this.#contentChunks;
    const metadata = { repository: this.repository, header, metadataChunks: this.#metadataChunks };
    const parts = {
      ...metadata,
      contentChunks,
      tables: this.#tables,
      readAhead: this.#readAhead,
      prefetcher: this.prefetcher,
    };
    const source = await KlosetSource.open(parts, path, { progress: this.#progress, ...options });
    watcher?.opened(header, source);
    return source;
  }

  close(): Promise<void> {
    return this.#closers.close();
  }
}

/** The disk tier of contents, if there is to be one and its directory can be used. */
async function openChunkDisk(
  cache: StoreCache | undefined,
  counters: CacheCounters,
  { cacheDiskBytesMax = 0, log = silentLog }: StoreOptions,
): Promise<ChunkDisk | undefined> {
  if (cache === undefined || cacheDiskBytesMax === 0) return undefined;
  const settings = cache.chunkSettings(cacheDiskBytesMax);
  return ChunkDisk.open({ settings, writer: new ThreadedChunkWriter(settings), counters, log });
}
