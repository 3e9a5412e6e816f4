/** Cache directories for tests, and stores' caches in them. */
import { createSecretKey } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ChunkWriter } from '../../src/cache/chunk-disk.ts';
import { ChunkFiles } from '../../src/cache/chunk-files.ts';
import type { ChunkFileSettings } from '../../src/cache/chunk-names.ts';
import { StoreCache, type StoreCacheOptions } from '../../src/cache/store-cache.ts';
import { deriveFileKey } from '../../src/core/derived-key.ts';
import type { Log } from '../../src/core/log.ts';

/** The cache of a store whose key is `key` 32 times. */
export async function storeCache(
  directory: string,
  { key = 1, ...options }: Partial<StoreCacheOptions> & { key?: number } = {},
): Promise<StoreCache> {
  const storeKey = createSecretKey(Buffer.alloc(32, key));
  const cache = await StoreCache.open({
    directory,
    deriveKey: (purpose, salt) => deriveFileKey(storeKey, purpose, salt),
    isEncrypted: false,
    log: new LogLines(),
    ...options,
  });
  if (cache === undefined) throw new Error('the cache cannot be used');
  return cache;
}

/** ChunkFiles' work in this thread. */
export function writerHere(settings: ChunkFileSettings): ChunkWriter {
  const files = new ChunkFiles(settings);
  return {
    write: async (...task) => files.write(...task),
    writeStored: async (...task) => files.writeStored(...task),
    read: async (...task) => files.read(...task),
    close: async () => {},
  };
}

/** All files below a cache directory, those that are not finished included. */
export function cachedFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile())
    .sort();
}

/** Everything in a file, or undefined. */
export function readAll(cache: StoreCache, name: string): Promise<Uint8Array | undefined> {
  return cache.read(name, async (reader) => {
    const all = new Uint8Array(reader.plainBytes);
    await reader.read(0, all);
    return all;
  });
}

/** A log that keeps its lines. */
export class LogLines implements Log {
  readonly warnings: string[] = [];
  debug(): void {}
  info(): void {}
  warn(_fields: object, message: string): void {
    this.warnings.push(message);
  }
  error(): void {}
}
