import type { ReadCounters } from './counters.ts';

/** What reading a file has cost since it was opened; plain fields, counted up by whoever causes them. */
export interface FileCost {
  /** Reads of the disk that touched the file, and the bytes of it that they asked for. */
  requests: number;
  bytes: number;
  /** Milliseconds that those reads waited, added up: reads that wait side by side count each. */
  waitMs: number;
  /** Chunks fetched for the file, their stored bytes, and their plain ones. A chunk that files share is the first one's who asks. */
  chunks: number;
  storeBytes: number;
  decodedBytes: number;
  /** Plain bytes of those chunks that nobody had fetched before. */
  newBytes: number;
  /** Milliseconds that fetching and decoding took, added up. */
  fetchMs: number;
}

/** Files told apart, about 300 bytes each: more than a big database cluster has, and 15 MB at most. */
const FILES_COUNTED_MAX = 50_000;

export function newFileCost(): FileCost {
  return { requests: 0, bytes: 0, waitMs: 0, chunks: 0, storeBytes: 0, decodedBytes: 0, newBytes: 0, fetchMs: 0 };
}

/** Adds `cost` to `sum`. */
export function addCost(sum: FileCost, cost: FileCost): void {
  for (const key of Object.keys(sum) as (keyof FileCost)[]) sum[key] += cost[key];
}

/** Counts a chunk that was fetched and decoded for a file's content; metadata is not counted here. */
export function countContent(
  counters: ReadCounters,
  { file, lengthBytes }: { readonly file: { readonly cost?: FileCost | undefined }; readonly lengthBytes: number },
  { storedBytes, isNew, ms }: { readonly storedBytes: number; readonly isNew: boolean; readonly ms: number },
): void {
  const { cost } = file;
  if (cost === undefined) return;
  counters.contentStoreBytes += storedBytes;
  counters.contentDecodedBytes += lengthBytes;
  cost.chunks++;
  cost.storeBytes += storedBytes;
  cost.decodedBytes += lengthBytes;
  if (isNew) cost.newBytes += lengthBytes;
  cost.fetchMs += ms;
}

/** Costs by file, for those files that were touched. */
export class FileCosts {
  readonly #byEntry = new Map<number, FileCost>();
  /** What files cost that came when there was no place any more. */
  readonly others: FileCost = newFileCost();

  /** The cost of a file to count up; that of all `others` once too many files are told apart. */
  of(entry: number): FileCost {
    const known = this.#byEntry.get(entry);
    if (known !== undefined) return known;
    if (this.#byEntry.size >= FILES_COUNTED_MAX) return this.others;
    const cost = newFileCost();
    this.#byEntry.set(entry, cost);
    return cost;
  }

  /** Every file that was touched, by its entry in the tree. */
  entries(): Iterable<readonly [entry: number, cost: FileCost]> {
    return this.#byEntry;
  }

  /** All files together, as a new object. */
  total(): FileCost {
    const sum = { ...this.others };
    for (const cost of this.#byEntry.values()) addCost(sum, cost);
    return sum;
  }
}
