/**
 * Leaves out of a write the blocks that the overlay has already, so that writing the same again costs nothing.
 *
 * Only blocks of the log are compared. Their checksums are in memory and a write computes its own anyway, so a block that
 * differs, as nearly all do, costs a look-up; one with an equal checksum is read and compared, because a checksum proves
 * nothing. Clean blocks are compared where the base has them in memory, as it has what a client has just read and writes
 * back (PostgreSQL: the half of a page that did not change). Elsewhere a comparison would fetch a chunk of the backup,
 * megabytes for 4 KiB.
 */
import type { ReadableDevice } from '../core/device.ts';
import { OverlayError } from '../core/errors.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { type BlockMap, isZeroValue } from './block-map.ts';
import type { Change } from './block-store.ts';
import type { LogIndex } from './log-index.ts';
import type { BatchEntry } from './log-tables.ts';

/** Blocks of the base compared at a time: all of them are in memory, or none counts. */
const COMPARED_BLOCKS = 16;
/** Where they are read to; small enough to stay in the processor's cache. Nothing is in it between two comparisons. */
const comparedBytes = Buffer.allocUnsafeSlow(COMPARED_BLOCKS * BLOCK_SIZE);
const comparedBlock = comparedBytes.subarray(0, BLOCK_SIZE);

/** Fills `target` with the block at a place of the log, checked. Rejects with OverlayError. */
export type ReadBlock = (block: number, value: number, target: Uint8Array) => Promise<void>;
/** The same at once; false if that cannot be. */
export type ReadBlockNow = (block: number, value: number, target: Uint8Array) => boolean;

/** A block of an entry, counted from its first, whose checksum equals that of the block at `value` in the log. */
interface Candidate {
  readonly at: number;
  readonly value: number;
}

/**
 * The changes that change something, with the checksums of their data where they had to be known. Borrows the data as
 * `changes` does.
 */
export async function withoutUnchanged(
  changes: readonly Change[],
  index: LogIndex,
  read: ReadBlock,
): Promise<readonly BatchEntry[]> {
  const news: BatchEntry[] = [];
  for (const change of changes) {
    const entry = withChecksums(change, index);
    const candidates = candidatesOf(entry, index);
    if (candidates.length === 0) {
      news.push(entry);
      continue;
    }
    // All begin in this turn of the event loop, as long as the places are sure to be the blocks'.
    const compared = candidates.map(async ({ at, value }) => {
      const there = Buffer.allocUnsafe(BLOCK_SIZE);
      const isThere = (await isReadable(read(entry.block + at, value, there))) && isBlockOf(entry, at, there);
      return isThere ? at : undefined;
    });
    const same = new Set((await Promise.all(compared)).filter((at) => at !== undefined));
    news.push(...partsWithout(entry, same));
  }
  return news;
}

/** As `withoutUnchanged`, at once; undefined where a block cannot be read so. */
export function withoutUnchangedNow(
  changes: readonly Change[],
  index: LogIndex,
  readNow: ReadBlockNow,
): readonly BatchEntry[] | undefined {
  const news: BatchEntry[] = [];
  for (const change of changes) {
    const entry = withChecksums(change, index);
    const same = new Set<number>();
    for (const { at, value } of candidatesOf(entry, index)) {
      if (!readNow(entry.block + at, value, comparedBlock)) return undefined;
      if (isBlockOf(entry, at, comparedBlock)) same.add(at);
    }
    news.push(...partsWithout(entry, same));
  }
  return news;
}

/** The change with its checksums, if any of its blocks may be there already. */
function withChecksums(change: Change, index: LogIndex): BatchEntry {
  const { block, count, data } = change;
  if (data === undefined || !hasData(index.map, change)) return change;
  return { block, count, data, checksums: index.checksumsOf(block, data) };
}

/** Whether the overlay has data of any of these blocks. */
function hasData(map: BlockMap, { block, count }: Change): boolean {
  for (let at = block; at < block + count; ) {
    const run = map.runAt(at, block + count);
    if (run.value !== undefined && !isZeroValue(run.value)) return true;
    at += run.count;
  }
  return false;
}

/** The changes without the blocks that are clean in `map` and equal what `base` has in memory. */
export function withoutBaseBlocks(
  changes: readonly Change[],
  map: BlockMap,
  base: Pick<ReadableDevice, 'readNow'>,
): readonly Change[] {
  if (base.readNow === undefined) return changes;
  return changes.flatMap((change) => {
    const { data } = change;
    if (data === undefined) return change;
    const same = new Set<number>();
    for (let at = 0; at < change.count; ) {
      const run = map.runAt(
        change.block + at,
        Math.min(change.block + change.count, change.block + at + COMPARED_BLOCKS),
      );
      const written = data.subarray(at * BLOCK_SIZE, (at + run.count) * BLOCK_SIZE);
      const there = run.value === undefined ? comparedBytes.subarray(0, written.length) : undefined;
      if (there !== undefined && base.readNow?.((change.block + at) * BLOCK_SIZE, there, 'unseen') === true) {
        for (const index of equalBlocks(there, written)) same.add(at + index);
      }
      at += run.count;
    }
    return partsWithout(change, same);
  });
}

function equalBlocks(one: Buffer, other: Uint8Array): number[] {
  const equal: number[] = [];
  for (let at = 0; at < one.length; at += BLOCK_SIZE) {
    // Most blocks differ in their first or last byte: a look costs less than a call.
    if (one[at] !== other[at] || one[at + BLOCK_SIZE - 1] !== other[at + BLOCK_SIZE - 1]) continue;
    if (one.compare(other, at, at + BLOCK_SIZE, at, at + BLOCK_SIZE) === 0) equal.push(at / BLOCK_SIZE);
  }
  return equal;
}

/** Which blocks of the entry may be there already; none of one without checksums. */
function candidatesOf({ block, count, checksums }: BatchEntry, index: LogIndex): readonly Candidate[] {
  const candidates: Candidate[] = [];
  if (checksums === undefined) return candidates;
  for (let at = 0; at < count; ) {
    const run = index.map.runAt(block + at, block + count);
    if (run.value !== undefined && !isZeroValue(run.value)) {
      const { segment, ordinal } = index.locate(run.value);
      for (let i = 0; i < run.count; i++) {
        if (segment.checksums.at(ordinal + i) === checksums[at + i])
          candidates.push({ at: at + i, value: run.value + i });
      }
    }
    at += run.count;
  }
  return candidates;
}

function isBlockOf({ data }: BatchEntry, at: number, there: Buffer): boolean {
  return there.compare(data!, at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE) === 0;
}

/** A block that cannot be read is written again: that heals it. */
async function isReadable(reading: Promise<void>): Promise<boolean> {
  try {
    await reading;
    return true;
  } catch (error) {
    if (error instanceof OverlayError) return false;
    throw error;
  }
}

/** An entry with data in parts, without the blocks in `same`, counted from its first. */
export function partsWithout(entry: BatchEntry, same: ReadonlySet<number>): readonly BatchEntry[] {
  if (same.size === 0) return [entry];
  const { block, count, data, checksums } = entry;
  const parts: BatchEntry[] = [];
  for (let at = 0; at < count; ) {
    let end = at + 1;
    while (end < count && same.has(end) === same.has(at)) end++;
    if (!same.has(at)) {
      const part = { block: block + at, count: end - at, data: data?.subarray(at * BLOCK_SIZE, end * BLOCK_SIZE) };
      parts.push(checksums === undefined ? part : { ...part, checksums: checksums.subarray(at, end) });
    }
    at = end;
  }
  return parts;
}
