/** What one process has read from a store since it started; plain fields, so that counting costs nothing. */
export interface ReadCounters {
  /** Bytes fetched from the store, or received from plakar: stored form, metadata included. */
  storeBytes: number;
  /** Requests made to the store. */
  storeRequests: number;
  /** Plain bytes that decoding gave, metadata included. */
  decodedBytes: number;
  /** File chunks fetched, and those among them fetched before. */
  chunksFetched: number;
  chunksFetchedTwice: number;
  /** Of the above, what files' contents took: stored bytes that were decoded, and plain ones. */
  contentStoreBytes: number;
  contentDecodedBytes: number;
  /** Milliseconds during which at least one of them was being fetched or decoded. */
  contentBusyMs: number;
  /** Whole blocks of disks that clients asked for at least once since the disk was opened, bytes. */
  distinctBytesAsked: number;
  /** Chunks fetched before anybody asked for them, and their plain bytes. */
  aheadChunks: number;
  aheadBytes: number;
  /** Of those, what a client has read since, and what none did before its place was needed or its reader was gone. */
  aheadUsedChunks: number;
  aheadUsedBytes: number;
  aheadDroppedChunks: number;
  aheadDroppedBytes: number;
  /** Chunks that could not be fetched ahead. */
  aheadFailed: number;
  /** Blobs read from the hydrated directory instead of the store, and their stored bytes. */
  replicaBlobs: number;
  replicaBytes: number;
  /** Blobs written to the hydrated directory, and their stored bytes. */
  hydratedBlobs: number;
  hydratedBytes: number;
}

export function newReadCounters(): ReadCounters {
  return {
    storeBytes: 0,
    storeRequests: 0,
    decodedBytes: 0,
    chunksFetched: 0,
    chunksFetchedTwice: 0,
    contentStoreBytes: 0,
    contentDecodedBytes: 0,
    contentBusyMs: 0,
    distinctBytesAsked: 0,
    aheadChunks: 0,
    aheadBytes: 0,
    aheadUsedChunks: 0,
    aheadUsedBytes: 0,
    aheadDroppedChunks: 0,
    aheadDroppedBytes: 0,
    aheadFailed: 0,
    replicaBlobs: 0,
    replicaBytes: 0,
    hydratedBlobs: 0,
    hydratedBytes: 0,
  };
}

/** What the caches of decoded chunks have done, one store's contents; plain fields. */
export interface CacheCounters {
  /** Reads answered from memory, those answered from disk, and chunks that had to be fetched. */
  hits: number;
  diskHits: number;
  misses: number;
  /** Segments dropped from memory to make room. */
  evictions: number;
  /** Bytes of the disk cache: plain ones read, sealed ones written, and both of chunks as the store has them. */
  diskBytesRead: number;
  diskBytesWritten: number;
  /** Files that this process removed to make room, and files that were not what had been written. */
  diskEvictions: number;
  diskDamaged: number;
  /** Chunks not written: the disk was too slow, full or failing. */
  diskWritesDropped: number;
}

export function newCacheCounters(): CacheCounters {
  return {
    hits: 0,
    diskHits: 0,
    misses: 0,
    evictions: 0,
    diskBytesRead: 0,
    diskBytesWritten: 0,
    diskEvictions: 0,
    diskDamaged: 0,
    diskWritesDropped: 0,
  };
}
