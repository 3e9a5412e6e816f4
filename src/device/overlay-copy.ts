/** Copies and removes whole overlays, file by file. */
import { dirname, join } from 'node:path';
import { errorCode, type OverlayFileSystem } from './file-system.ts';
import type { FrozenDevice } from './frozen-device.ts';
import { segmentFileName, segmentOfFileName } from './log-format.ts';
import { readClosed, readMetadata, writeClosed, writeMetadata } from './overlay-metadata.ts';

export interface CopyOptions {
  /** The directory of the overlay. */
  readonly from: string;
  /** The copy's, which is made. */
  readonly to: string;
  /** The export that the copy belongs to. */
  readonly exportKey: string;
  /** What to copy of an overlay that is open; undefined for a closed one, whose files nobody changes meanwhile. */
  readonly blocks?: FrozenDevice['blocks'] | undefined;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
}

/**
 * Copies an overlay, sharing blocks with it where the file system can. All is durable once it resolves; after a failure
 * part of the copy may be there. Resolves to false if there is nothing to copy: the overlay was never opened.
 */
export async function copyOverlay(
  fileSystem: OverlayFileSystem,
  { from, to, exportKey, blocks, nowMs }: CopyOptions,
): Promise<boolean> {
  const metadata = await readMetadata(fileSystem, from);
  if (metadata === undefined) return false;
  await fileSystem.makeDirectory(to);
  for (const { number, endBytes } of blocks === undefined
    ? await allSegments(fileSystem, from)
    : growingCutOff(blocks)) {
    const name = segmentFileName(number);
    await fileSystem.copy(join(from, name), join(to, name));
    const file = await fileSystem.open(join(to, name), 'write');
    try {
      if (endBytes !== undefined) await file.truncate(endBytes);
      await file.sync();
    } finally {
      await file.close();
    }
  }
  const last = blocks?.segments.at(-1);
  // Says of an open overlay's copy what its flush made true: all of it is durable, so that what is missing is damage.
  const closed =
    blocks === undefined
      ? await readClosed(fileSystem, from)
      : last && { segment: last.number, endBytes: last.endBytes, sequence: blocks.sequence };
  if (closed !== undefined) await writeClosed(fileSystem, to, closed);
  await writeMetadata(fileSystem, to, { ...metadata, exportKey, createdMs: nowMs });
  await fileSystem.syncDirectory(dirname(to));
  return true;
}

interface SegmentPart {
  readonly number: number;
  /** Where the copy ends; undefined: where the file does. */
  readonly endBytes: number | undefined;
}

/** What is behind the end of a complete segment is its INDEX; in one that grows it is what was written since. */
function growingCutOff({ segments }: FrozenDevice['blocks']): SegmentPart[] {
  return segments.map(({ number, endBytes, complete }) => ({ number, endBytes: complete ? undefined : endBytes }));
}

async function allSegments(fileSystem: OverlayFileSystem, directory: string): Promise<SegmentPart[]> {
  const numbers = (await fileSystem.list(directory)).flatMap((name) => segmentOfFileName(name) ?? []);
  return numbers.sort((a, b) => a - b).map((number) => ({ number, endBytes: undefined }));
}

/** Removes an overlay that nobody has open, whole or part. There may be none. */
export async function removeOverlay(fileSystem: OverlayFileSystem, directory: string): Promise<void> {
  try {
    for (const name of await fileSystem.list(directory)) await fileSystem.remove(join(directory, name));
    await fileSystem.removeDirectory(directory);
    await fileSystem.syncDirectory(dirname(directory));
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}
