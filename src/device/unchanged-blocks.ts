/**
 * Leaves out of a write the blocks that the overlay has already, so that writing the same again costs nothing.
 *
 * Only blocks of the log are compared. Their checksums are in memory and a write computes its own anyway, so a block that
 * differs, as nearly all do, costs a look-up; one with an equal checksum is read and compared, because a checksum proves
 * nothing. Clean blocks are not compared here: that would fetch a chunk of the backup for each, megabytes for 4 KiB.
 */
import { OverlayError } from '../core/errors.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { isZeroValue } from './block-map.ts';
import type { Change } from './block-store.ts';
import type { LogIndex } from './log-index.ts';
import { type BatchEntry, blockChecksums } from './log-tables.ts';

/** Fills `target` with the block at a place of the log, checked. Rejects with OverlayError. */
export type ReadBlock = (block: number, value: number, target: Uint8Array) => Promise<void>;

/** The changes that change something, with the checksums of their data. Borrows the data as `changes` does. */
export async function withoutUnchanged(
  changes: readonly Change[],
  index: LogIndex,
  read: ReadBlock,
): Promise<readonly BatchEntry[]> {
  const news: BatchEntry[] = [];
  for (const change of changes) {
    const { block, data } = change;
    if (data === undefined) {
      news.push(change);
      continue;
    }
    const checksums = blockChecksums(block, data);
    const entry = { ...change, data, checksums };
    const same = await unchangedBlocks(entry, index, read);
    if (same.size === 0) news.push(entry);
    else news.push(...partsWithout(entry, same));
  }
  return news;
}

type DataEntry = BatchEntry & { readonly data: Uint8Array; readonly checksums: Uint32Array };

/** Which of the entry's blocks, counted from its first, are there already. */
async function unchangedBlocks(
  { block, count, data, checksums }: DataEntry,
  index: LogIndex,
  read: ReadBlock,
): Promise<Set<number>> {
  const candidates: { readonly at: number; readonly value: number }[] = [];
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
  // All begin in this turn of the event loop, as long as the places are sure to be the blocks'.
  const compared = candidates.map(async ({ at, value }) => {
    const there = Buffer.allocUnsafe(BLOCK_SIZE);
    return (
      (await isReadable(read(block + at, value, there))) &&
      there.compare(data, at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE) === 0
    );
  });
  const same = await Promise.all(compared);
  return new Set(candidates.filter((_, which) => same[which]).map(({ at }) => at));
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

function partsWithout({ block, count, data, checksums }: DataEntry, same: ReadonlySet<number>): BatchEntry[] {
  const parts: BatchEntry[] = [];
  for (let at = 0; at < count; ) {
    let end = at + 1;
    while (end < count && same.has(end) === same.has(at)) end++;
    if (!same.has(at)) {
      const part = { data: data.subarray(at * BLOCK_SIZE, end * BLOCK_SIZE), checksums: checksums.subarray(at, end) };
      parts.push({ block: block + at, count: end - at, ...part });
    }
    at = end;
  }
  return parts;
}
