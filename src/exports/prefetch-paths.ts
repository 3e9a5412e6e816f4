/** Files that an operator names to be fetched before anybody reads them. */
import { forEachConcurrently } from '../core/concurrency.ts';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import type { StopOptions } from '../core/stop.ts';
import { formatBytes, MiB } from '../core/units.ts';
import type { Ext4Image } from '../ext4/image.ts';
import { findPath } from '../source/find-child.ts';

/** Bytes asked for at once: so often can progress be told. */
const STEP_BYTES = 64 * MiB;

/** Steps under way at once, for directories of small files. */
const STEPS_MAX = 8;

/** Between two lines that tell how far it is, milliseconds. */
const TELL_MS = 10_000;

/** The files at `paths` of the disk and below them, each once. Throws UserError for a path that is not there. */
export function filesAt(tree: SnapshotTree, paths: readonly string[]): number[] {
  const files = new Set<number>();
  for (const path of paths) {
    const entry = findPath(tree, path);
    if (entry === undefined) {
      throw new UserError(
        `--prefetch ${path}: there is no such file or directory on the disk. Paths begin at its root.`,
      );
    }
    for (const file of filesBelow(tree, entry)) files.add(file);
  }
  return [...files];
}

/** Fetches files of a disk; settles when they are there, the signal came or no more can be kept. Tells the log how far it is. */
export async function prefetchFiles(
  image: Ext4Image,
  files: readonly number[],
  { signal, log, keptBytesMax }: StopOptions & { readonly log: Log; readonly keptBytesMax: number },
): Promise<void> {
  const { tree } = image.layout;
  const total = files.reduce((sum, entry) => sum + tree.sizeBytes[entry]!, 0);
  if (total > keptBytesMax) {
    log.warn(
      { bytes: total, keptBytesMax },
      `--prefetch names ${formatBytes(total)}, the cache keeps ${formatBytes(keptBytesMax)}: fetching ends there. A larger --cache-memory keeps more.`,
    );
  }
  let looked = 0;
  let fetched = 0;
  let toldMs = performance.now();
  const tell = (what: string) =>
    log.info({ bytes: looked, total, fetched }, `${what} ${formatBytes(looked)} of ${formatBytes(total)} (--prefetch)`);
  await forEachConcurrently(steps(tree, files), STEPS_MAX, async ({ entry, offset, length }) => {
    if (signal?.aborted || fetched >= keptBytesMax) return;
    fetched += (await image.content.prefetch?.(entry, { offset, length }, { signal })) ?? 0;
    looked += length;
    if (performance.now() - toldMs < TELL_MS) return;
    toldMs = performance.now();
    tell('Fetched');
  });
  tell(signal?.aborted ? 'Stopped fetching at' : 'Done fetching:');
}

async function* steps(tree: SnapshotTree, files: readonly number[]) {
  for (const entry of files) {
    const end = tree.sizeBytes[entry]!;
    for (let offset = 0; offset < end; offset += STEP_BYTES) {
      yield { entry, offset, length: Math.min(STEP_BYTES, end - offset) };
    }
  }
}

function* filesBelow(tree: SnapshotTree, top: number): Generator<number> {
  const waiting = [top];
  for (let entry = waiting.pop(); entry !== undefined; entry = waiting.pop()) {
    if (tree.type[entry] === entryTypes.file) yield tree.sameInodeAs.get(entry) ?? entry;
    const first = tree.firstChild[entry]!;
    for (let child = first + tree.childCount[entry]! - 1; child >= first; child--) waiting.push(child);
  }
}
