import type { KeyObject } from 'node:crypto';
import { type CacheChoice, openCacheDirectory } from '../cache/cache-directory.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import type { ReadCounters } from '../core/counters.ts';
import { deriveFileKey } from '../core/derived-key.ts';
import { CorruptStoreError, exitCodes, type KlosetNbdError, StoreUnavailableError, UserError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { toHex } from '../core/mac.ts';
import type { Progress } from '../core/progress.ts';
import { SharedBuffers } from '../core/shared-buffers.ts';
import { orStopped } from '../core/stop.ts';
import { located, notHeld } from './blob-errors.ts';
import type { BlobLocation } from './blob-index.ts';
import type { BlobId, BlobReplica, ReplicaPlace } from './blob-replica.ts';
import { blake3, type Codec, type CodecParameters, createCodec, requireMac } from './codec/codec.ts';
import { parseConfig, type StoreConfig } from './config.ts';
import { checkEnvelope } from './envelope.ts';
import { envelopeHeader, NAMED_AT_RANDOM, resourceTypes } from './format.ts';
import { CHECKED_PACKFILE_BYTES_MAX, METADATA_BLOB_BYTES_MAX, storedBytesMax } from './limits.ts';
import { EarlyListing, type KeySource, openStoreCache, unlock } from './opening.ts';
import { PackfileCheck } from './packfile-check.ts';
import { MissingResourceError, TransientStoreError } from './remote-store.ts';
import { asAway, ReplicaStore, STORE_WITH_REPLICA_MS } from './replica-store.ts';
import { StateIndex, type StateIndexOptions } from './state-index.ts';
import type { KlosetStore, ReadOptions } from './store.ts';

export type { BlobId } from './blob-replica.ts';
export type { KeySource } from './opening.ts';

export interface RepositoryOptions extends Omit<StateIndexOptions, 'cache' | 'listing'> {
  readonly counters: ReadCounters;
  readonly keys: KeySource;
  /** Where what is read at opening is kept for the next time; undefined: nowhere. */
  readonly cache?: CacheChoice | undefined;
  /** Where blobs are looked for before the store, and everything when the store is away; undefined: nowhere. */
  readonly replica?: ReplicaPlace | undefined;
  readonly log?: Log;
  readonly progress?: Progress;
}

/** What somebody adds to all fetches from the store of a view of it. */
export interface FetchHooks {
  /** Before each fetch, with its bytes. What it rejects with, the fetch does. */
  admit(bytes: number): Promise<void>;
  /** With stored bytes that were fetched and checked; they are not its own once it has settled. What it rejects with, the fetch does. */
  fetched(id: BlobId, stored: Uint8Array): Promise<void>;
  /** Stops them all. */
  readonly signal: AbortSignal;
  /** Counts them instead of the repository's own. */
  readonly counters: ReadCounters;
}

/** An opened store: (type, MAC) -> checked bytes. */
export class Repository {
  readonly config: StoreConfig;
  /** What a decoder elsewhere, such as in a worker thread, needs to do the same. */
  readonly codecParameters: CodecParameters;
  /** Files of ours that hold what was read of this store, if there are any. */
  readonly cache: StoreCache | undefined;
  readonly #store: KlosetStore;
  readonly #codec: Codec;
  readonly #states: StateIndex;
  readonly #counters: ReadCounters;
  readonly #buffers = new SharedBuffers();
  readonly #packfiles: PackfileCheck;
  readonly #parts: RepositoryParts;
  readonly #hooks: FetchHooks | undefined;

  private constructor(parts: RepositoryParts, hooks?: FetchHooks) {
    this.#parts = parts;
    this.#hooks = hooks;
    this.config = parts.config;
    this.codecParameters = parts.codecParameters;
    this.#store = parts.store;
    this.#codec = parts.codec;
    this.#states = parts.states;
    this.#counters = parts.counters;
    this.cache = parts.cache;
    this.#packfiles = new PackfileCheck(parts, parts.codecParameters);
  }

  /**
   * Reads CONFIG and merges all states. Rejects with UserError (64: a cache directory that was asked for cannot be used, 66: no store,
   * 77: passphrase), UnsupportedError, CorruptStoreError or StoreUnavailableError. The store stays the caller's to close.
   * Where the store is away and `replica` has whole snapshots, those are all there are, and nothing else is read.
   */
  static async open(store: KlosetStore, options: RepositoryOptions): Promise<Repository> {
    const copy = await options.replica?.readConfig();
    if (copy === undefined) return Repository.#open(store, options);
    try {
      return await Repository.#open(store, options, AbortSignal.timeout(STORE_WITH_REPLICA_MS));
    } catch (error) {
      const why = asAway(error);
      if (why === undefined) throw error;
      try {
        return await Repository.#openReplica(store, { ...options, copy, why });
      } catch (refusal) {
        // The store was not given all its time; without whole snapshots there is nothing but to wait.
        if (why !== error && asAway(refusal) !== undefined) return Repository.#open(store, options);
        throw refusal;
      }
    }
  }

  static async #openReplica(
    store: KlosetStore,
    { copy, why, ...options }: RepositoryOptions & { readonly copy: Uint8Array; readonly why: KlosetNbdError },
  ): Promise<Repository> {
    const { log = silentLog } = options;
    const place = options.replica!;
    const repository = await Repository.#open(new ReplicaStore(store.location, { config: copy, why }), options);
    const { replica } = repository.#parts;
    const incomplete = replica!.describeIncomplete();
    const complete = replica!.completeSnapshots().length;
    if (complete === 0) {
      await repository.close();
      const found = incomplete.length === 0 ? 'no snapshot' : `no whole snapshot: ${incomplete.join('; ')}`;
      throw new UserError(
        `${why.message} ${place.location} holds ${found}. Once the store is back, serve it with --hydrate to go on.`,
        { exitCode: exitCodes.noStore, cause: why },
      );
    }
    log.warn(
      { store: store.location, directory: place.location, snapshots: complete, reason: why.message },
      `The store ${store.location} is away (${why.message}): serving from ${place.location} what was hydrated, ` +
        `${complete} ${complete === 1 ? 'snapshot' : 'snapshots'}`,
    );
    for (const text of incomplete) log.warn({}, `Not served: ${text}. With the store, --hydrate goes on with it.`);
    return repository;
  }

  static async #open(store: KlosetStore, options: RepositoryOptions, signal?: AbortSignal): Promise<Repository> {
    const { log = silentLog } = options;
    const directory = options.cache === undefined ? undefined : await openCacheDirectory(options.cache, log);
    const listing = new EarlyListing(store);
    try {
      return await Repository.#openListed(store, { ...options, log, directory, listing }, signal);
    } finally {
      listing.drop();
    }
  }

  static async #openListed(
    store: KlosetStore,
    {
      counters,
      keys,
      log,
      directory,
      listing,
      ...options
    }: RepositoryOptions & {
      readonly log: Log;
      readonly directory: string | undefined;
      readonly listing: EarlyListing;
    },
    signal: AbortSignal | undefined,
  ): Promise<Repository> {
    const configBytes = await orStopped(store.readConfig({ signal }), signal);
    const config = parseConfig(configBytes);
    const codecParameters = await unlock(config, keys);
    const footerKey = config.encryption === undefined ? undefined : codecParameters.macKey;
    // CONFIG's footer is BLAKE3 whatever the store's hashing is (4.1).
    checkEnvelope(config.envelope, await blake3(config.envelope.covered, footerKey), 'CONFIG');
    const codec = await createCodec(codecParameters);
    const fileKey = (purpose: string, salt: Uint8Array) => deriveFileKey(codecParameters.macKey, purpose, salt);
    const replica = await options.replica?.open({ config: configBytes, fileKey });
    const cache =
      directory === undefined ? undefined : await openStoreCache(directory, { config, codecParameters, log });
    const isAway = store instanceof ReplicaStore;
    // The index that is cached is of the store; of one that is away there is none to compare it with.
    const states = await StateIndex.open(
      { store, codec, counters },
      { ...options, log, listing, cache: isAway ? undefined : cache },
    );
    return new Repository({ store, config, codecParameters, codec, states, counters, cache, replica });
  }

  /** The same store, its fetches under `hooks`. What is opened stays this one's to close. */
  withHooks(hooks: FetchHooks): Repository {
    return new Repository({ ...this.#parts, counters: hooks.counters }, hooks);
  }

  /** The store was away at the start: what there is comes from the replica. */
  get isStoreAway(): boolean {
    return this.#store instanceof ReplicaStore;
  }

  get location(): string {
    return this.#store.location;
  }

  get isEncrypted(): boolean {
    return this.codecParameters.encryption !== undefined;
  }

  /** The key of one of our own files beside this store; see deriveFileKey. */
  fileKey(purpose: string, salt: Uint8Array): KeyObject {
    return deriveFileKey(this.codecParameters.macKey, purpose, salt);
  }

  /** 32-byte ids of all snapshots that are not deleted. */
  snapshots(): readonly Uint8Array[] {
    if (this.isStoreAway) return this.#parts.replica?.completeSnapshots() ?? [];
    return this.#states.locations.snapshots();
  }

  /** States that the index goes without, since they are damaged. */
  get damagedStates(): ReadonlyMap<string, CorruptStoreError> {
    return this.#states.damaged;
  }

  /** Lists the states again and merges what is new; resolves to whether anything was. After a rejection all is as before. */
  refresh(options?: ReadOptions): Promise<boolean> {
    return this.#states.refresh(options);
  }

  /** What is known of a snapshot's deletion; undefined for one that is not deleted. */
  async deletionOf(snapshotId: string): Promise<SnapshotDeletion | undefined> {
    const { locations } = this.#states;
    const deletedAtMs = locations.deletedAt(snapshotId);
    if (deletedAtMs === undefined) return undefined;
    const places = await this.#states.locate(resourceTypes.snapshot, Buffer.from(snapshotId, 'hex'));
    return {
      deletedAtMs,
      markedAtMs: locations.firstPackfileMarkedSince(deletedAtMs),
      isTakenAway: places.length === 0,
    };
  }

  /** `listener` is called whenever listing the states again brought something new. */
  onChange(listener: () => void): void {
    this.#states.onChange = listener;
  }

  /** Gives back what the index has open; the store stays the caller's. */
  close(): Promise<void> {
    return this.#states.close();
  }

  /** The checked bytes of a metadata blob. */
  readBlob(id: BlobId, options?: ReadOptions): Promise<Uint8Array> {
    return this.fetchBlob(id, {
      ...options,
      plainBytesMax: METADATA_BLOB_BYTES_MAX,
      decode: async (stored, packfile) => {
        const plain = this.#codec.decode(stored, METADATA_BLOB_BYTES_MAX);
        this.#counters.decodedBytes += plain.byteLength;
        if (!NAMED_AT_RANDOM.includes(id.type)) this.requireMac(plain, id.mac);
        else if (packfile !== undefined) await this.#requireCovered(packfile, id);
        return plain;
      },
    });
  }

  /** Ciphers and compressed frames notice a changed bit by themselves; where there is neither, the packfile's MAC has to. */
  async #requireCovered(packfile: string, id: BlobId): Promise<void> {
    if (this.config.encryption !== undefined || this.config.compression !== undefined) return;
    await this.#packfiles.requireSound(packfile, {
      likelyState: toHex(id.mac),
      bytesMax: CHECKED_PACKFILE_BYTES_MAX,
    });
  }

  /** Throws CorruptStoreError unless `plain` has that MAC. */
  requireMac(plain: Uint8Array, mac: Uint8Array): void {
    requireMac(this.#codec, plain, mac);
  }

  /** Stored bytes of a blob at its first location: for budgets. Undefined if the store does not hold it. */
  async storedLength(id: BlobId): Promise<number | undefined> {
    return (await this.#parts.replica?.lengthOf(id)) ?? (await this.#locate(id))[0]?.length;
  }

  /**
   * Fetches a blob's stored bytes and hands them to `decode`, which checks them and keeps no view of them. What is damaged is fetched once more
   * (the fault may lie on the way), then from the blob's other locations; when a packfile is missing the states are
   * listed again, as maintenance may have moved the blob. Rejects with the first location's error, naming type, MAC,
   * packfile and offset in its details, or with the signal's reason.
   */
  async fetchBlob(id: BlobId, request: BlobRequest): Promise<Uint8Array> {
    const near = await this.#fromReplica(id, request);
    if (near !== undefined) return near;
    const tried = new Set<string>();
    const failed: Failures = { first: undefined, isMissing: (await this.#locate(id)).length === 0, isAway: false };
    for (let round = 0; round < 2; round++) {
      for (const location of await this.#locate(id)) {
        if (tried.has(location.packfile) || failed.isAway) continue;
        tried.add(location.packfile);
        const plain = await this.#tryLocation(id, location, request, failed);
        if (plain !== undefined) return plain;
      }
      if (!failed.isMissing || !(await this.#refreshQuietly())) break;
    }
    throw failed.first ?? notHeld(id);
  }

  /** Undefined if the replica has it not, or not sound. */
  async #fromReplica(id: BlobId, request: BlobRequest): Promise<Uint8Array | undefined> {
    const { replica } = this.#parts;
    if (replica === undefined) return undefined;
    request.signal?.throwIfAborted();
    const take = (length: number) => this.#takeFor({ length }, request);
    try {
      const stored = await replica.read(id, take);
      if (stored === undefined) return undefined;
      const plain = await request.decode(stored, undefined);
      this.#buffers.give(stored);
      this.#counters.replicaBlobs++;
      this.#counters.replicaBytes += stored.byteLength;
      return plain;
    } catch (error) {
      if (!(error instanceof CorruptStoreError)) throw error;
      replica.reject(id, error);
      return undefined;
    }
  }

  /** Undefined after a failure, which is kept in `failed`. */
  async #tryLocation(
    id: BlobId,
    location: BlobLocation,
    request: BlobRequest,
    failed: Failures,
  ): Promise<Uint8Array | undefined> {
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        const stored = this.#takeFor(location, request);
        await this.#readStored(location, stored, request);
        const plain = await request.decode(stored, location.packfile);
        const kept = request.onSound?.(stored);
        await this.#fetched(id, stored);
        // Not after a failure: a read that was given up may still write into it.
        if (kept === undefined) this.#buffers.give(stored);
        else void kept.then(() => this.#buffers.give(stored));
        return plain;
      } catch (error) {
        if (!(error instanceof CorruptStoreError || error instanceof StoreUnavailableError)) throw error;
        failed.first ??= located(error, id, location);
        if (error instanceof CorruptStoreError) continue;
        if (error instanceof MissingResourceError) failed.isMissing = true;
        // The time that a read may take is spent: what else the store holds is as far away.
        else if (error instanceof TransientStoreError || error.cause instanceof TransientStoreError)
          failed.isAway = true;
        return undefined;
      }
    }
    return undefined;
  }

  #fetched(id: BlobId, stored: Uint8Array): Promise<void> | undefined {
    if (this.#hooks !== undefined) return this.#hooks.fetched(id, stored);
    this.#parts.replica?.offer(id, stored);
    return undefined;
  }

  /** False also if the states cannot be had: what is missing then says more than that. */
  #refreshQuietly(): Promise<boolean> {
    return this.#states.refreshBecauseMissing().catch((error: unknown) => {
      if (error instanceof CorruptStoreError || error instanceof StoreUnavailableError) return false;
      throw error;
    });
  }

  #locate(id: BlobId): Promise<readonly BlobLocation[]> {
    return this.#states.locate(id.type, id.mac);
  }

  /** Shared memory, so that a worker thread can decode it without a copy. */
  #takeFor({ length }: { length: number }, { plainBytesMax }: BlobRequest): Uint8Array<SharedArrayBuffer> {
    if (length > storedBytesMax(plainBytesMax)) {
      throw new CorruptStoreError(`the index says it takes ${length} bytes, more than it can`);
    }
    return this.#buffers.take(length);
  }

  async #readStored(location: BlobLocation, stored: Uint8Array, request: BlobRequest): Promise<void> {
    const { signal = this.#hooks?.signal } = request;
    signal?.throwIfAborted();
    await this.#hooks?.admit(location.length);
    if (location.length === 0) return;
    const offset = envelopeHeader.sizeBytes + location.offset;
    await this.#store.readPackfile(location.packfile, offset, stored, { signal });
    this.#counters.storeRequests++;
    this.#counters.storeBytes += location.length;
  }
}

/** A snapshot that was deleted: its blobs stay until maintenance has marked their packfiles and the grace period is over. */
export interface SnapshotDeletion {
  /** Milliseconds since 1970. */
  readonly deletedAtMs: number;
  /** When maintenance first marked a packfile after that, milliseconds since 1970; undefined if none has yet. */
  readonly markedAtMs: number | undefined;
  /** The index has no place for the snapshot's own header any more. */
  readonly isTakenAway: boolean;
}

/** How a blob is to be fetched. */
export interface BlobRequest extends ReadOptions {
  readonly plainBytesMax: number;
  /** Decodes stored bytes and checks them; `packfile` is undefined for what a replica gave, which has checked what a packfile's MAC would cover. */
  readonly decode: (stored: Uint8Array, packfile: string | undefined) => Promise<Uint8Array>;
  /** As ChunkOptions has it. */
  readonly onSound?: ((stored: Uint8Array) => Promise<void> | undefined) | undefined;
}

interface RepositoryParts {
  readonly store: KlosetStore;
  readonly config: StoreConfig;
  readonly codecParameters: CodecParameters;
  readonly codec: Codec;
  readonly states: StateIndex;
  readonly counters: ReadCounters;
  readonly cache: StoreCache | undefined;
  readonly replica: BlobReplica | undefined;
}

interface Failures {
  first: KlosetNbdError | undefined;
  /** A packfile that the index names is not there. */
  isMissing: boolean;
  /** The store did not answer for as long as a read may wait. */
  isAway: boolean;
}
