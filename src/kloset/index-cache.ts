/** The merged index in the disk cache: one file a store, whatever states it was made from. */
import type { StoreCache } from '../cache/store-cache.ts';
import type { BlobIndex } from './blob-index.ts';
import { LocationIndex } from './location-index.ts';

/** To be raised with every change of the columns, or of what merging gives. */
const INDEX_VERSION = 1;
const NAME = `index ${INDEX_VERSION}`;

/** Undefined if it is not cached. */
export async function readIndex(cache: StoreCache | undefined): Promise<BlobIndex | undefined> {
  return cache?.read(NAME, (reader) => LocationIndex.readFrom(reader));
}

export async function writeIndex(cache: StoreCache, index: BlobIndex): Promise<void> {
  if (index instanceof LocationIndex) await cache.write(NAME, (writer) => index.writeTo(writer));
}

/** Removes an index that was found damaged. */
export async function discardIndex(cache: StoreCache | undefined, why: unknown): Promise<void> {
  await cache?.discard(NAME, why);
}
