/** `--overlay-limit`: a size, or `@FILE` that has it and is read again at SIGHUP, so that it can be raised while writes wait. */
import { readFile } from 'node:fs/promises';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import { SpaceLimit } from '../device/space-limit.ts';
import { sizeOption } from './arguments.ts';

const OPTION = 'overlay-limit';

/** Whether the limit is in a file: then SIGHUP means to read it again, and ends no process. */
export function limitIsInFile(text: string | undefined): boolean {
  return text?.startsWith('@') === true;
}

/** The limit; with a file it follows that from now on. Rejects with UserError. */
export async function overlayLimit(text: string | undefined, log: Log): Promise<SpaceLimit> {
  if (text === undefined) return new SpaceLimit(undefined);
  if (!limitIsInFile(text)) return new SpaceLimit(sizeOption(OPTION, text));
  const path = text.slice(1);
  const limit = new SpaceLimit(await readLimit(path));
  process.on('SIGHUP', () => void readAgain(path, limit, log));
  return limit;
}

/** Never rejects: a file that cannot be used leaves the limit as it is. */
async function readAgain(path: string, limit: SpaceLimit, log: Log): Promise<void> {
  try {
    limit.change(await readLimit(path));
    log.info({ path, limitBytes: limit.bytes }, `The limit of overlays is now ${formatBytes(limit.bytes)}`);
  } catch (error) {
    log.error(
      { err: error, path },
      `The limit of overlays stays ${formatBytes(limit.bytes)}: ${(error as Error).message}`,
    );
  }
}

async function readLimit(path: string): Promise<number> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new UserError(`--${OPTION} @${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  return sizeOption(OPTION, text.trim());
}
