import { createSecretKey, type KeyObject } from 'node:crypto';
import { type CacheChoice, openCacheDirectory } from '../cache/cache-directory.ts';
import { StoreCache } from '../cache/store-cache.ts';
import type { ReadCounters } from '../core/counters.ts';
import { CorruptStoreError, exitCodes, type KlosetNbdError, StoreUnavailableError, UserError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { equalBytes, toHex } from '../core/mac.ts';
import type { Progress } from '../core/progress.ts';
import type { BlobLocation } from './blob-index.ts';
import { blake3, type Codec, type CodecParameters, createCodec, plainHash } from './codec/codec.ts';
import { type KdfParameters, keyOpensCanary } from './codec/key-derivation.ts';
import { parseConfig, type StoreConfig } from './config.ts';
import { deriveFileKey } from './derived-key.ts';
import { checkEnvelope } from './envelope.ts';
import { envelopeHeader, type ResourceType, resourceTypeName, resourceTypes } from './format.ts';
import { CHECKED_PACKFILE_BYTES_MAX, METADATA_BLOB_BYTES_MAX, storedBytesMax } from './limits.ts';
import { PackfileCheck } from './packfile-check.ts';
import { MissingResourceError, TransientStoreError } from './remote-store.ts';
import { StateIndex, type StateIndexOptions } from './state-index.ts';
import type { KlosetStore, ReadOptions } from './store.ts';
import { StoredBuffers } from './stored-buffers.ts';

/** A blob's identity: the pair, never the MAC alone (kloset-format 0.2). */
export interface BlobId {
  readonly type: ResourceType;
  readonly mac: Uint8Array;
}

/** Where the key of an encrypted store comes from; not asked for a plaintext one. */
export interface KeySource {
  /** The passphrase's bytes. Rejects with UserError (exit 77) if there is none. */
  passphrase(): Promise<Uint8Array>;
  /** As codec/key-derivation.ts has it, here or in another thread. */
  deriveKey(passphrase: Uint8Array, parameters: KdfParameters): Promise<KeyObject>;
}

export interface RepositoryOptions extends Omit<StateIndexOptions, 'cache'> {
  readonly counters: ReadCounters;
  readonly keys: KeySource;
  /** Where what is read at opening is kept for the next time; undefined: nowhere. */
  readonly cache?: CacheChoice | undefined;
  readonly log?: Log;
  readonly progress?: Progress;
}

/** Blobs whose name is the snapshot's random identifier: there is no MAC of the content to compare with. */
const NAMED_AT_RANDOM: readonly number[] = [resourceTypes.snapshot, resourceTypes.signature];

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
  readonly #buffers = new StoredBuffers();
  readonly #packfiles: PackfileCheck;

  private constructor(parts: {
    store: KlosetStore;
    config: StoreConfig;
    codecParameters: CodecParameters;
    codec: Codec;
    states: StateIndex;
    counters: ReadCounters;
    cache: StoreCache | undefined;
  }) {
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
   */
  static async open(store: KlosetStore, { counters, keys, ...options }: RepositoryOptions): Promise<Repository> {
    const { log = silentLog } = options;
    const directory = options.cache === undefined ? undefined : await openCacheDirectory(options.cache, log);
    const config = parseConfig(await store.readConfig());
    const codecParameters = await unlock(config, keys);
    const footerKey = config.encryption === undefined ? undefined : codecParameters.macKey;
    // CONFIG's footer is BLAKE3 whatever the store's hashing is (4.1).
    checkEnvelope(config.envelope, await blake3(config.envelope.covered, footerKey), 'CONFIG');
    const codec = await createCodec(codecParameters);
    const cache =
      directory === undefined ? undefined : await openStoreCache(directory, { config, codecParameters, log });
    const states = await StateIndex.open({ store, codec, counters }, { ...options, cache });
    return new Repository({ store, config, codecParameters, codec, states, counters, cache });
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
      decode: async (stored, { packfile }) => {
        const plain = this.#codec.decode(stored, METADATA_BLOB_BYTES_MAX);
        this.#counters.decodedBytes += plain.byteLength;
        if (!NAMED_AT_RANDOM.includes(id.type)) this.requireMac(plain, id.mac);
        else await this.#requireCovered(packfile, id);
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
    if (!equalBytes(this.#codec.mac(plain), mac)) throw new CorruptStoreError('its MAC does not match its content');
  }

  /** Stored bytes of a blob at its first location: for budgets. Undefined if the store does not hold it. */
  async storedLength(id: BlobId): Promise<number | undefined> {
    return (await this.#locate(id))[0]?.length;
  }

  /**
   * Fetches a blob's stored bytes and hands them to `decode`, which checks them and keeps no view of them. What is damaged is fetched once more
   * (the fault may lie on the way), then from the blob's other locations; when a packfile is missing the states are
   * listed again, as maintenance may have moved the blob. Rejects with the first location's error, naming type, MAC,
   * packfile and offset in its details, or with the signal's reason.
   */
  async fetchBlob(id: BlobId, request: BlobRequest): Promise<Uint8Array> {
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
        const plain = await request.decode(stored, location);
        // Not after a failure: a read that was given up may still write into it.
        this.#buffers.give(stored);
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
  #takeFor({ length }: BlobLocation, { plainBytesMax }: BlobRequest): Uint8Array<SharedArrayBuffer> {
    if (length > storedBytesMax(plainBytesMax)) {
      throw new CorruptStoreError(`the index says it takes ${length} bytes, more than it can`);
    }
    return this.#buffers.take(length);
  }

  async #readStored(location: BlobLocation, stored: Uint8Array, { signal }: BlobRequest): Promise<void> {
    signal?.throwIfAborted();
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
  /** Decodes stored bytes and checks them. */
  readonly decode: (stored: Uint8Array, location: BlobLocation) => Promise<Uint8Array>;
}

interface Failures {
  first: KlosetNbdError | undefined;
  /** A packfile that the index names is not there. */
  isMissing: boolean;
  /** The store did not answer for as long as a read may wait. */
  isAway: boolean;
}

/** The store's key and how to decode with it. */
async function unlock(config: StoreConfig, keys: KeySource): Promise<CodecParameters> {
  const { hashing, compression, encryption } = config;
  if (encryption === undefined) {
    const macKey = createSecretKey(await plainHash(hashing, config.repositoryId));
    return { hashing, macKey, compression, encryption: undefined };
  }
  const passphrase = await keys.passphrase();
  const key = await keys.deriveKey(passphrase, encryption.kdf);
  const { subKeyAlgorithm, dataAlgorithm, segmentBytes } = encryption;
  const parameters = { subKeyAlgorithm, dataAlgorithm, segmentBytes, key };
  if (!keyOpensCanary(encryption.canary, parameters)) {
    throw new UserError('The passphrase does not open this store.', { exitCode: exitCodes.passphrase });
  }
  return { hashing, macKey: key, compression, encryption: parameters };
}

function openStoreCache(
  directory: string,
  { config, codecParameters, log }: { config: StoreConfig; codecParameters: CodecParameters; log: Log },
): Promise<StoreCache | undefined> {
  return StoreCache.open({
    directory,
    deriveKey: (purpose, salt) => deriveFileKey(codecParameters.macKey, purpose, salt),
    isEncrypted: config.encryption !== undefined,
    log,
  });
}

function notHeld(id: BlobId): CorruptStoreError {
  const blobType = resourceTypeName(id.type);
  const mac = toHex(id.mac);
  return new CorruptStoreError(`The store holds no ${blobType} ${mac}, which something in it refers to`, {
    details: { blobType, mac },
  });
}

function located(error: CorruptStoreError | StoreUnavailableError, id: BlobId, location: BlobLocation): KlosetNbdError {
  const details = {
    blobType: resourceTypeName(id.type),
    mac: toHex(id.mac),
    packfile: location.packfile,
    offset: envelopeHeader.sizeBytes + location.offset,
    length: location.length,
  };
  const message = `${details.blobType} ${details.mac} in packfile ${location.packfile} at byte ${details.offset}: ${error.message}`;
  return error instanceof CorruptStoreError
    ? new CorruptStoreError(message, { details, cause: error })
    : new StoreUnavailableError(message, { details, cause: error });
}
