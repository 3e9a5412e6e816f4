/** Whether what recovery writes finds room. */
import { statfs } from 'node:fs/promises';
import { UserError } from '../core/errors.ts';
import { formatBytes, MiB } from '../core/units.ts';

/** What is written to a clone goes there, beyond what memory takes. */
export interface WrittenTo {
  readonly directory: string;
  readonly memoryBytes: number;
  /** What else an operator can do than make room. */
  readonly advice: string;
}

/** What a start writes besides what it replays: a checkpoint, statistics, new WAL, bytes. */
const START_BYTES = 64 * MiB;

/**
 * Replaying writes each page that WAL names, and a full image of it is in the WAL: so never more than that, in practice.
 * Resolves to a warning where there is less room, undefined where there is enough. Rejects with UserError instead, unless `force`.
 */
export async function checkSpace(
  { directory, memoryBytes, advice }: WrittenTo,
  { walBytes, force }: { readonly walBytes: number; readonly force: boolean },
): Promise<string | undefined> {
  const neededBytes = START_BYTES + walBytes - memoryBytes;
  if (neededBytes <= 0) return undefined;
  const { bavail, bsize } = await statfs(directory);
  const freeBytes = bavail * bsize;
  if (freeBytes >= neededBytes) return undefined;
  const message = `${directory} has ${formatBytes(freeBytes)} free; recovery and temporary files of queries may write ${formatBytes(neededBytes)} there`;
  if (force) return `${message}; going on because of --force.`;
  throw new UserError(`${message}. Make room, ${advice}, or go on with --force.`);
}
