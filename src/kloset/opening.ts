/** Steps of opening a store: its key, its part of the disk cache. */
import { createSecretKey, type KeyObject } from 'node:crypto';
import { StoreCache } from '../cache/store-cache.ts';
import { deriveFileKey } from '../core/derived-key.ts';
import { exitCodes, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { StoppedError } from '../core/stop.ts';
import { type CodecParameters, plainHash } from './codec/codec.ts';
import { type KdfParameters, keyOpensCanary } from './codec/key-derivation.ts';
import type { StoreConfig } from './config.ts';
import type { KlosetStore } from './store.ts';

/** Where the key of an encrypted store comes from; not asked for a plaintext one. */
export interface KeySource {
  /** The passphrase's bytes. Rejects with UserError (exit 77) if there is none. */
  passphrase(): Promise<Uint8Array>;
  /** As codec/key-derivation.ts has it, here or in another thread. */
  deriveKey(passphrase: Uint8Array, parameters: KdfParameters): Promise<KeyObject>;
}

/** The states of a store, asked for while CONFIG is still on its way: a round trip less. */
export class EarlyListing {
  readonly #stop = new AbortController();
  #ids: Promise<string[]> | undefined;

  constructor(store: Pick<KlosetStore, 'list'>) {
    this.#ids = store.list('states', { signal: this.#stop.signal });
    // Where CONFIG is what is wrong, nobody asks for it.
    this.#ids.catch(() => undefined);
  }

  /** The listing, for the first who takes it: it is not the newest for long. Rejects as the store's `list` does. */
  take(): Promise<string[]> | undefined {
    const ids = this.#ids;
    this.#ids = undefined;
    return ids;
  }

  /** It is not needed any more. */
  drop(): void {
    if (this.#ids !== undefined) this.#stop.abort(new StoppedError('the listing is not needed'));
  }
}

/** The store's key and how to decode with it. */
export async function unlock(config: StoreConfig, keys: KeySource): Promise<CodecParameters> {
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

/** Undefined, with a warning, where it cannot be used. */
export function openStoreCache(
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
