import { createHmac, type KeyObject, randomBytes } from 'node:crypto';
import { type FileHandle, rename, unlink } from 'node:fs/promises';
import { endianness } from 'node:os';
import { join } from 'node:path';
import type { Log } from '../core/log.ts';
import {
  createTemporary,
  evict,
  makeOwnDirectory,
  openIfThere,
  removeIfThere,
  systemReason,
} from './cache-directory.ts';
import type { ChunkFileSettings } from './chunk-names.ts';
import { CacheDamagedError, CacheWriteError } from './errors.ts';
import { CACHE_BYTES_MAX, SEGMENT_BYTES } from './limits.ts';
import { protections, type SealKeys } from './sealed-format.ts';
import { SealedReader } from './sealed-reader.ts';
import { SealedWriter } from './sealed-writer.ts';

/** What the names of a store's directory and files are made with: fixed, since they must be found again. */
const NAMES_SALT = Buffer.from('kloset-nbd cache names');
/** Where all stores' chunks lie, below the cache directory: in directories of their own, which `evict` does not look into. */
const CHUNKS_DIRECTORY = 'chunks';

export interface StoreCacheOptions {
  /** As openCacheDirectory checked it. */
  readonly directory: string;
  /** A key of the store's for a purpose and a salt of 16 bytes or more, as core/derived-key makes them. */
  readonly deriveKey: (purpose: string, salt: Uint8Array) => KeyObject;
  /** Encrypted stores' files are encrypted, others' authenticated only. */
  readonly isEncrypted: boolean;
  readonly log: Log;
  /** All stores together; default CACHE_BYTES_MAX. */
  readonly bytesMax?: number;
}

/**
 * The cached files of one store: each written whole, found again by its name, or made anew. Any number of processes may
 * use one directory. Nothing here fails an opening: what cannot be read is removed and said to be missing, what cannot
 * be written is not cached.
 */
export class StoreCache {
  readonly #root: string;
  readonly #directory: string;
  readonly #names: KeyObject;
  readonly #keys: SealKeys;
  readonly #bytesMax: number;
  readonly #log: Log;
  /** A cache that cannot be written says so once. */
  #hasComplained = false;

  private constructor(options: StoreCacheOptions, names: KeyObject) {
    this.#root = options.directory;
    this.#names = names;
    // A keyed hash: whoever sees the directory learns neither which store it is of nor what is cached.
    this.#directory = join(options.directory, hiddenName(names, 'store'));
    this.#bytesMax = options.bytesMax ?? CACHE_BYTES_MAX;
    this.#keys = {
      protection: options.isEncrypted ? protections.encrypted : protections.authenticated,
      derive: options.deriveKey,
    };
    this.#log = options.log;
  }

  /** The store's part of the directory, or undefined, with a warning, if it cannot be used. */
  static async open(options: StoreCacheOptions): Promise<StoreCache | undefined> {
    const cache = new StoreCache(options, options.deriveKey('cache names', NAMES_SALT));
    try {
      await makeOwnDirectory(cache.#directory);
      return cache;
    } catch (error) {
      cache.#complain(error);
      return undefined;
    }
  }

  /** The file of that name, or undefined if it is not there; a damaged one is removed, and the log says so. The caller closes it. */
  async open(name: string): Promise<SealedReader | undefined> {
    const path = this.#pathOf(name);
    try {
      const file = await openIfThere(path);
      if (file === undefined) return undefined;
      await touch(file);
      return await SealedReader.open(file, { name: fullName(name), keys: this.#keys });
    } catch (error) {
      await this.discard(name, error);
      return undefined;
    }
  }

  /** Opens a file and hands it to `use`; undefined if it is not there or is found damaged on the way. */
  async read<T>(name: string, use: (reader: SealedReader) => Promise<T>): Promise<T | undefined> {
    const reader = await this.open(name);
    if (reader === undefined) return undefined;
    try {
      return await use(reader);
    } catch (error) {
      if (!(error instanceof CacheDamagedError)) throw error;
      await this.discard(name, error);
      return undefined;
    } finally {
      await reader.close();
    }
  }

  /** Removes a file that turned out to be damaged, and says so. */
  async discard(name: string, why: unknown): Promise<void> {
    const path = this.#pathOf(name);
    this.#log.warn(
      { file: path, reason: systemReason(why) },
      `A file of the cache is damaged and is made anew: ${path} (${systemReason(why)})`,
    );
    await this.remove(name);
  }

  /** Removes a file that is of no more use, if it is there. */
  async remove(name: string): Promise<void> {
    try {
      await removeIfThere(this.#pathOf(name));
    } catch (error) {
      this.#complain(error);
    }
  }

  /**
   * Writes a file by `fill`, under its name once it is complete and on disk: readers see the old one or the new one.
   * False, with a warning, if the cache cannot take it; rejects with what `fill` rejects with otherwise.
   */
  async write(
    name: string,
    fill: (writer: Pick<SealedWriter, 'write'>) => Promise<void>,
    { segmentBytes = SEGMENT_BYTES }: { segmentBytes?: number } = {},
  ): Promise<boolean> {
    try {
      const temporary = await asWriteError(createTemporary(this.#directory, randomBytes(8).toString('hex')));
      try {
        const { file } = temporary;
        const seal = { name: fullName(name), segmentBytes, keys: this.#keys };
        const writer = await asWriteError(SealedWriter.create(file, seal));
        await fill({ write: (data) => asWriteError(writer.write(data)) });
        await asWriteError(this.#publish(temporary.path, writer, this.#pathOf(name)));
        return true;
      } catch (error) {
        await asWriteError(removeIfThere(temporary.path));
        throw error;
      } finally {
        await temporary.file.close();
      }
    } catch (error) {
      if (!(error instanceof CacheWriteError)) throw error;
      this.#complain(error.cause);
      return false;
    }
  }

  /** Where and how the store's chunks are cached, beside these files: they have a share of their own. */
  chunkSettings(bytesMax: number): ChunkFileSettings {
    return {
      directory: join(this.#root, CHUNKS_DIRECTORY),
      bytesMax,
      key: this.#keys.derive('cached chunks', NAMES_SALT),
      isEncrypted: this.#keys.protection === protections.encrypted,
    };
  }

  /** A file without a name for what is needed only meanwhile: its space is free again when it is closed, however that happens. */
  async scratchFile(): Promise<FileHandle> {
    return makeScratchFile(this.#directory);
  }

  async #publish(path: string, writer: SealedWriter, to: string): Promise<void> {
    await writer.finish();
    // Not synced: a start would wait for it, and what a crash leaves of a file is found damaged and made anew.
    await rename(path, to);
    await evict(this.#root, to, this.#bytesMax);
  }

  #pathOf(name: string): string {
    return join(this.#directory, hiddenName(this.#names, fullName(name)));
  }

  #complain(error: unknown): void {
    const reason = error instanceof CacheWriteError ? systemReason(error.cause) : systemReason(error);
    const message = `The cache in ${this.#root} cannot be used: ${reason}; opening this store takes longer than it could.`;
    if (this.#hasComplained) this.#log.debug({ directory: this.#directory }, message);
    else this.#log.warn({ directory: this.#directory }, message);
    this.#hasComplained = true;
  }
}

/** A new file in `directory` that has lost its name already. */
export async function makeScratchFile(directory: string): Promise<FileHandle> {
  const { file, path } = await createTemporary(directory, randomBytes(8).toString('hex'));
  try {
    await unlink(path);
  } catch (error) {
    await file.close();
    throw error;
  }
  return file;
}

/** Columns are cached as they are in memory: another machine's order of bytes is another file. */
function fullName(name: string): string {
  return `${endianness()} ${name}`;
}

function hiddenName(names: KeyObject, name: string): string {
  return createHmac('sha256', names).update(name).digest('hex').slice(0, 40);
}

/** Marks a file as used, for whoever looks for the least recently used one. A file system that cannot is no reason to fail. */
async function touch(file: FileHandle): Promise<void> {
  const now = new Date();
  await file.utimes(now, now).catch(() => undefined);
}

async function asWriteError<T>(done: Promise<T>): Promise<T> {
  try {
    return await done;
  } catch (cause) {
    throw new CacheWriteError('the cache cannot take a file', { cause });
  }
}
