/** Cached chunks: where they lie, what they are called, and the keys they are sealed with. */
import { createHmac, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { deriveFileKey } from '../core/derived-key.ts';
import { toHex } from '../core/mac.ts';
import { RECENT_NAMES_MAX } from './limits.ts';
import { protections, type SealKeys } from './sealed-format.ts';

/** All that reading and writing a store's chunks takes. It can cross to another thread. */
export interface ChunkFileSettings {
  /** That of all stores' chunks, below the cache directory; there, and ours. */
  readonly directory: string;
  /** For chunks of all stores together, counted as `chunkFileCost` counts. */
  readonly bytesMax: number;
  /** Made from the store's key, for its cached chunks. */
  readonly key: KeyObject;
  /** Encrypted stores' chunks are encrypted, others' authenticated only. */
  readonly isEncrypted: boolean;
}

/** A chunk as the cache knows it. Another length is another chunk: an object may claim what it likes. */
export interface ChunkId {
  readonly mac: Uint8Array;
  readonly lengthBytes: number;
}

/** A chunk's file, or files: it may be there as it was decoded, sealed, and in the form in which the store has it. */
export interface ChunkFile {
  /** In one of 256 directories, which may have to be made. */
  readonly path: string;
  /** Where it lies in the form in which the store has it. */
  readonly storedPath: string;
  /** What it is sealed as: in another one's place it opens nothing. */
  readonly sealName: string;
  /**
   * Of its key. Not random, so that a reader knows it and need not read the header first: a name stands for the same bytes
   * for ever, so no key and nonce ever seal two.
   */
  readonly salt: Uint8Array;
}

/** With another number files of former versions are never found, and go when room is made. */
const NAMES_SALT = Buffer.from('kloset-nbd chunk names 2');

export class ChunkNames {
  readonly seal: SealKeys;
  readonly #directory: string;
  readonly #names: KeyObject;
  /** By name: a chunk is looked for several times while it comes in, and a keyed hash takes as long as copying it. */
  readonly #recent = new LRUCache<string, ChunkFile>({ max: RECENT_NAMES_MAX });

  constructor({ directory, key, isEncrypted }: ChunkFileSettings) {
    this.#directory = directory;
    // Keyed: whoever sees the directory learns neither what is cached nor of which store.
    this.#names = deriveFileKey(key, 'chunk names', NAMES_SALT);
    this.seal = {
      protection: isEncrypted ? protections.encrypted : protections.authenticated,
      derive: (purpose, salt) => deriveFileKey(key, purpose, salt),
    };
  }

  fileOf({ mac, lengthBytes }: ChunkId): ChunkFile {
    const sealName = `chunk ${toHex(mac)} ${lengthBytes}`;
    const known = this.#recent.get(sealName);
    if (known !== undefined) return known;
    const file = this.#makeFile(sealName);
    this.#recent.set(sealName, file);
    return file;
  }

  #makeFile(sealName: string): ChunkFile {
    const salt = createHmac('sha256', this.#names).update(sealName).digest();
    const hidden = salt.toString('hex');
    const path = join(this.#directory, hidden.slice(0, 2), hidden.slice(2, 40));
    return { path, storedPath: `${path}.stored`, sealName, salt };
  }
}
