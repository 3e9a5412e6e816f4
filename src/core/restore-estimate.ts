/**
 * Whether reading on demand was still worth it. A restore reads a snapshot from front to back with many requests under way; reads
 * on demand wait for each other, and fetch whole chunks for small reads. The rule taken here is that a restore moves three times
 * the bytes in a second: past about a third of the data it would have been faster.
 */
export const RESTORE_ADVANTAGE = 3;

export interface RestoreEstimate {
  /** Bytes of all files of the snapshot, and plain bytes of chunks that were fetched for them: all, and those not fetched before. */
  readonly contentBytes: number;
  readonly fetchedBytes: number;
  readonly distinctFetchedBytes: number;
  /** Of the content, how much was fetched at least once: 0 to 1. */
  readonly share: number;
  /** How long fetching has taken so far, and how long a restore would at three times that rate; null before anything was fetched. */
  readonly fetchSeconds: number | null;
  readonly restoreSeconds: number | null;
  readonly restoreIsFaster: boolean;
}

export function estimateRestore({
  contentBytes,
  fetchedBytes,
  distinctFetchedBytes,
  bytesPerSecond,
}: {
  readonly contentBytes: number;
  readonly fetchedBytes: number;
  readonly distinctFetchedBytes: number;
  /** Plain bytes that fetching has given for each second in which anything was being fetched; 0: not known. */
  readonly bytesPerSecond: number;
}): RestoreEstimate {
  const isKnown = bytesPerSecond > 0;
  return {
    contentBytes,
    fetchedBytes,
    distinctFetchedBytes,
    share: contentBytes === 0 ? 0 : Math.min(1, distinctFetchedBytes / contentBytes),
    fetchSeconds: isKnown ? fetchedBytes / bytesPerSecond : null,
    restoreSeconds: isKnown ? contentBytes / (RESTORE_ADVANTAGE * bytesPerSecond) : null,
    // What was fetched twice counts twice: that is what it took.
    restoreIsFaster: fetchedBytes * RESTORE_ADVANTAGE > contentBytes,
  };
}
