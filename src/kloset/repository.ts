import { createSecretKey, type KeyObject } from 'node:crypto';
import { mapConcurrently } from '../core/concurrency.ts';
import type { ReadCounters } from '../core/counters.ts';
import { CorruptStoreError, exitCodes, type KlosetNbdError, StoreUnavailableError, UserError } from '../core/errors.ts';
import { equalBytes, toHex } from '../core/mac.ts';
import { blake3, type Codec, type CodecParameters, createCodec, plainHash } from './codec/codec.ts';
import { type KdfParameters, keyOpensCanary } from './codec/key-derivation.ts';
import { parseConfig, type StoreConfig } from './config.ts';
import { checkEnvelope, openEnvelope } from './envelope.ts';
import { envelopeHeader, type ResourceType, resourceTypeName, resourceTypes, versions } from './format.ts';
import { METADATA_BLOB_BYTES_MAX, STATE_PLAIN_BYTES_MAX, STATES_IN_FLIGHT_MAX, storedBytesMax } from './limits.ts';
import { type BlobLocation, LocationIndex } from './location-index.ts';
import { damagedState, parseState, type State } from './state.ts';
import type { KlosetStore } from './store.ts';

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

/** Blobs whose name is the snapshot's random identifier: there is no MAC of the content to compare with. */
const NAMED_AT_RANDOM: readonly number[] = [resourceTypes.snapshot, resourceTypes.signature];

/** An opened store: (type, MAC) -> checked bytes. */
export class Repository {
  readonly config: StoreConfig;
  /** What a decoder elsewhere, such as in a worker thread, needs to do the same. */
  readonly codecParameters: CodecParameters;
  readonly #store: KlosetStore;
  readonly #codec: Codec;
  readonly #index: LocationIndex;
  readonly #counters: ReadCounters;

  private constructor(parts: {
    store: KlosetStore;
    config: StoreConfig;
    codecParameters: CodecParameters;
    codec: Codec;
    index: LocationIndex;
    counters: ReadCounters;
  }) {
    this.config = parts.config;
    this.codecParameters = parts.codecParameters;
    this.#store = parts.store;
    this.#codec = parts.codec;
    this.#index = parts.index;
    this.#counters = parts.counters;
  }

  /**
   * Reads CONFIG and merges all states. Rejects with UserError (66: no store, 77: passphrase), UnsupportedError, CorruptStoreError or
   * StoreUnavailableError. The store stays the caller's to close.
   */
  static async open(
    store: KlosetStore,
    { counters, keys }: { counters: ReadCounters; keys: KeySource },
  ): Promise<Repository> {
    const config = parseConfig(await store.readConfig());
    const codecParameters = await unlock(config, keys);
    const footerKey = config.encryption === undefined ? undefined : codecParameters.macKey;
    // CONFIG's footer is BLAKE3 whatever the store's hashing is (4.1).
    checkEnvelope(config.envelope, await blake3(config.envelope.covered, footerKey), 'CONFIG');
    const codec = await createCodec(codecParameters);
    const ids = await store.list('states');
    const states = await mapConcurrently(ids, STATES_IN_FLIGHT_MAX, (id) => readState(store, codec, id, counters));
    return new Repository({
      store,
      config,
      codecParameters,
      codec,
      index: LocationIndex.merge(states),
      counters,
    });
  }

  get location(): string {
    return this.#store.location;
  }

  /** 32-byte ids of all snapshots that are not deleted. */
  snapshots(): Uint8Array[] {
    return this.#index.snapshots();
  }

  /** The checked bytes of a metadata blob. */
  readBlob(id: BlobId): Promise<Uint8Array> {
    return this.fetchBlob(id, {
      plainBytesMax: METADATA_BLOB_BYTES_MAX,
      decode: async (stored) => {
        const plain = this.#codec.decode(stored, METADATA_BLOB_BYTES_MAX);
        this.#counters.decodedBytes += plain.byteLength;
        if (!NAMED_AT_RANDOM.includes(id.type)) this.requireMac(plain, id.mac);
        return plain;
      },
    });
  }

  /** Throws CorruptStoreError unless `plain` has that MAC. */
  requireMac(plain: Uint8Array, mac: Uint8Array): void {
    if (!equalBytes(this.#codec.mac(plain), mac)) throw new CorruptStoreError('its MAC does not match its content');
  }

  /** Stored bytes of a blob at its first location: for budgets. Undefined if the store does not hold it. */
  storedLength(id: BlobId): number | undefined {
    return this.#index.locate(id.type, id.mac)[0]?.length;
  }

  /**
   * Fetches a blob's stored bytes and hands them to `decode`, which checks them. A failure at one location is tried once
   * more there (the fault may lie on the way), then at the blob's other locations. Rejects with the first location's
   * error, naming type, MAC, packfile and offset in its details.
   */
  async fetchBlob(
    id: BlobId,
    options: { plainBytesMax: number; decode: (stored: Uint8Array) => Promise<Uint8Array> },
  ): Promise<Uint8Array> {
    const locations = this.#index.locate(id.type, id.mac);
    const name = `${resourceTypeName(id.type)} ${toHex(id.mac)}`;
    if (locations.length === 0) {
      throw new CorruptStoreError(`The store holds no ${name}, which something in it refers to`, {
        details: { blobType: resourceTypeName(id.type), mac: toHex(id.mac) },
      });
    }
    let first: unknown;
    for (const location of locations) {
      for (let attempt = 0; attempt < 2; attempt++) {
        try {
          return await options.decode(await this.#readStored(location, options.plainBytesMax));
        } catch (error) {
          if (!(error instanceof CorruptStoreError || error instanceof StoreUnavailableError)) throw error;
          first ??= located(error, name, id, location);
        }
      }
    }
    throw first;
  }

  async #readStored(location: BlobLocation, plainBytesMax: number): Promise<Uint8Array> {
    if (location.length > storedBytesMax(plainBytesMax)) {
      throw new CorruptStoreError(`the index says it takes ${location.length} bytes, more than it can`);
    }
    // Shared memory, so that a worker thread can decode it without a copy.
    const stored = new Uint8Array(new SharedArrayBuffer(location.length));
    if (location.length > 0) {
      await this.#store.readPackfile(location.packfile, envelopeHeader.sizeBytes + location.offset, stored);
      this.#counters.storeRequests++;
      this.#counters.storeBytes += location.length;
    }
    return stored;
  }
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

async function readState(store: KlosetStore, codec: Codec, id: string, counters: ReadCounters): Promise<State> {
  const name = `State ${id}`;
  const resource = await store.readState(id);
  counters.storeRequests++;
  counters.storeBytes += resource.byteLength;
  const envelope = openEnvelope(resource, { type: resourceTypes.state, versionMax: versions.v1_1_0, name });
  checkEnvelope(envelope, codec.mac(envelope.covered), name);
  const plain = decodeState(codec, envelope.payload, id);
  counters.decodedBytes += plain.byteLength;
  return parseState(id, envelope.version, plain);
}

function decodeState(codec: Codec, payload: Uint8Array, id: string): Uint8Array {
  try {
    return codec.decode(payload, STATE_PLAIN_BYTES_MAX);
  } catch (error) {
    if (!(error instanceof CorruptStoreError)) throw error;
    throw damagedState(id, error.message, error);
  }
}

function located(
  error: CorruptStoreError | StoreUnavailableError,
  name: string,
  id: BlobId,
  location: BlobLocation,
): KlosetNbdError {
  const details = {
    blobType: resourceTypeName(id.type),
    mac: toHex(id.mac),
    packfile: location.packfile,
    offset: envelopeHeader.sizeBytes + location.offset,
    length: location.length,
  };
  const message = `${name} in packfile ${location.packfile} at byte ${details.offset}: ${error.message}`;
  return error instanceof CorruptStoreError
    ? new CorruptStoreError(message, { details, cause: error })
    : new StoreUnavailableError(message, { details, cause: error });
}
