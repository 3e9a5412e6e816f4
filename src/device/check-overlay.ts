/**
 * Looks an overlay through without changing anything: every record of its log, and every block that the device would
 * read from it. What only reading would find out, and what makes an overlay open read-only, is found before.
 */
import { KlosetNbdError, OverlayError, UserError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { BLOCK_SIZE, MiB } from '../core/units.ts';
import { isZeroValue } from './block-map.ts';
import { nodeFileSystem, type OverlayFileSystem } from './file-system.ts';
import { type FoundLog, findLog } from './find-log.ts';
import { LogStore } from './log-store.ts';
import { type OverlayMetadata, readMetadata } from './overlay-metadata.ts';
import type { OverlayKeySource } from './segment-cipher.ts';

/** Blocks read at a time. */
const READ_BLOCKS = (1 * MiB) / BLOCK_SIZE;
/** Damaged blocks that are named; the others are counted. */
const NAMED_BLOCKS_MAX = 1000;

/** A block that cannot be read: its number on the device, and where its bytes lie. */
export interface DamagedBlock {
  readonly block: number;
  readonly message: string;
}

export interface OverlayCheck {
  readonly metadata: OverlayMetadata;
  /** Why the overlay opens read-only: records that cannot be read. Undefined if it takes writes. */
  readonly readOnlyReason: string | undefined;
  /** Records that cannot be read though a copy of what they say can: nothing is lost. One line each. */
  readonly remarks: readonly string[];
  /** The first of them, in the order of their numbers. */
  readonly damagedBlocks: readonly DamagedBlock[];
  readonly damagedBlockCount: number;
  /** Blocks of data that were read and compared with their checksums. */
  readonly checkedBlocks: number;
  /** The log was not closed, and has an end that no FLUSH had confirmed: the next opening cuts it off. */
  readonly tornTail: boolean;
  /** Neither damaged blocks nor a reason to be read-only. */
  readonly isSound: boolean;
}

export interface CheckOverlayOptions {
  readonly fileSystem?: OverlayFileSystem;
  /** Where the key of an encrypted overlay comes from. */
  readonly keyFor?: OverlayKeySource | undefined;
  readonly log?: Log;
}

/**
 * Checks the overlay in `directory`, the sub-directory of one export. No server may have it open meanwhile (hold the
 * lock). Rejects with UserError if there is none, or its overlay.json is damaged; UnsupportedError for another version.
 */
export async function checkOverlay(directory: string, options: CheckOverlayOptions = {}): Promise<OverlayCheck> {
  const { fileSystem = nodeFileSystem, keyFor, log = silentLog } = options;
  const metadata = await readMetadata(fileSystem, directory);
  if (metadata === undefined) throw new UserError(`${directory} has no overlay.json: there is no overlay`);
  const found = await findLog(directory, metadata, { fileSystem, keyFor, log });
  try {
    const { recovered } = found;
    const remarks = await unreadableRecords(found);
    const blocks = await checkBlocks(storeOf(found, log));
    return {
      metadata,
      readOnlyReason: recovered.readOnlyReason,
      remarks: recovered.readOnlyReason === undefined ? remarks : [],
      ...blocks,
      tornTail: recovered.cut?.torn === true,
      isSound: recovered.readOnlyReason === undefined && blocks.damagedBlockCount === 0,
    };
  } finally {
    await found.files.closeAll();
  }
}

/** A store that is only read from, and never closed: closing would leave a mark. */
function storeOf({ recovered, ...found }: FoundLog, log: Log): LogStore {
  const refuse = () => Promise.reject(new OverlayError('a check writes nothing', { reason: 'io' }));
  const hooks = { syncDirectory: refuse, markOpen: refuse, markClosed: refuse };
  const sizes = { segmentBytes: Number.POSITIVE_INFINITY, dataFirstBytes: Number.POSITIVE_INFINITY, aheadBytes: 0 };
  return new LogStore({ recovered, ...found, ...sizes, ...hooks, log });
}

/** Opening takes complete segments from their INDEX and does not look at the records behind it: here they are. */
async function unreadableRecords({ recovered, files, readerOf }: FoundLog): Promise<string[]> {
  const remarks: string[] = [];
  for (const { number, endBytes } of recovered.index.segments) {
    const steps = await files.use(number, async (file) => (await readerOf(file, number)).walk(endBytes));
    for (const step of steps) {
      if (step.kind === 'gap') remarks.push(`a record at byte ${step.position} of ${files.pathOf(number)} is damaged`);
    }
  }
  return remarks;
}

async function checkBlocks(
  store: LogStore,
): Promise<Pick<OverlayCheck, 'damagedBlocks' | 'damagedBlockCount' | 'checkedBlocks'>> {
  const damagedBlocks: DamagedBlock[] = [];
  let damagedBlockCount = 0;
  let checkedBlocks = 0;
  const runs: { first: number; count: number; value: number }[] = [];
  store.map.forEach((first, count, value) => {
    if (!isZeroValue(value)) runs.push({ first, count, value });
  });
  const target = Buffer.allocUnsafe(READ_BLOCKS * BLOCK_SIZE);
  const problem = (first: number, value: number, count: number) =>
    store.read({ first, value }, 0, target.subarray(0, count * BLOCK_SIZE)).then(
      () => undefined,
      (error: unknown) => {
        if (error instanceof KlosetNbdError) return error.message;
        throw error;
      },
    );
  for (const { first, count, value } of runs) {
    for (let done = 0; done < count; done += READ_BLOCKS) {
      const length = Math.min(READ_BLOCKS, count - done);
      checkedBlocks += length;
      if ((await problem(first + done, value + done, length)) === undefined) continue;
      for (let at = done; at < done + length; at++) {
        const message = await problem(first + at, value + at, 1);
        if (message === undefined) continue;
        damagedBlockCount++;
        if (damagedBlocks.length < NAMED_BLOCKS_MAX) damagedBlocks.push({ block: first + at, message });
      }
    }
  }
  return { damagedBlocks, damagedBlockCount, checkedBlocks };
}
