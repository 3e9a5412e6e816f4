/**
 * The merged index in the disk cache, one file a store: columns that are read into memory, or for a big store a sorted
 * file that is looked up where it lies.
 */
import { CacheDamagedError } from '../cache/errors.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import type { BlobIndex } from './blob-index.ts';
import { LOCATIONS_IN_MEMORY_MAX } from './limits.ts';
import { LocationIndex } from './location-index.ts';
import { SORTED_SEGMENT_BYTES, SortedIndex } from './sorted-index.ts';

/** To be raised with every change of the columns, or of what merging gives. */
const INDEX_VERSION = 1;
const NAME = `index ${INDEX_VERSION}`;
const SORTED_NAME = `sorted index ${INDEX_VERSION}`;

/** Undefined if it is not cached. */
export async function readIndex(cache: StoreCache | undefined): Promise<BlobIndex | undefined> {
  const inMemory = await cache?.read(NAME, (reader) => LocationIndex.readFrom(reader));
  return inMemory ?? (cache && openSorted(cache));
}

/**
 * Writes an index, and gives what is to be used from now on: a big one lies in the cache only. `inMemoryMax` counts
 * locations.
 */
export async function writeIndex(
  cache: StoreCache,
  index: BlobIndex,
  inMemoryMax = LOCATIONS_IN_MEMORY_MAX,
): Promise<BlobIndex> {
  if (!(index instanceof LocationIndex)) return index;
  if (index.locationCount <= inMemoryMax) {
    await cache.write(NAME, (writer) => index.writeTo(writer));
    await cache.remove(SORTED_NAME);
    return index;
  }
  const options = { segmentBytes: SORTED_SEGMENT_BYTES };
  await cache.remove(NAME);
  if (!(await cache.write(SORTED_NAME, (writer) => index.writeSortedTo(writer), options))) return index;
  return (await openSorted(cache)) ?? index;
}

async function openSorted(cache: StoreCache): Promise<SortedIndex | undefined> {
  const reader = await cache.open(SORTED_NAME);
  if (reader === undefined) return undefined;
  try {
    return await SortedIndex.open(reader);
  } catch (error) {
    await reader.close();
    if (!(error instanceof CacheDamagedError)) throw error;
    await cache.discard(SORTED_NAME, error);
    return undefined;
  }
}

/** Removes an index that was found damaged while it was in use: such a one lies on disk. */
export async function discardIndex(cache: StoreCache | undefined, why: unknown): Promise<void> {
  await cache?.discard(SORTED_NAME, why);
}
