/** The options for where writes go. */
import type { Argv } from 'yargs';
import { OVERLAY_MEMORY_BYTES_DEFAULT } from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import { KeptOverlays } from '../exports/directory-overlays.ts';
import { MemoryOverlays } from '../exports/memory-overlays.ts';
import type { Overlays } from '../exports/overlays.ts';
import { defaultSize, sizeOption } from './arguments.ts';

export interface OverlayArguments {
  readonly overlay: string;
  readonly overlayMemoryLimit: string;
  readonly overlayLimit: string | undefined;
  readonly onFull: 'pause' | 'fail';
  readonly tempDir: string | undefined;
}

/** The value of `--overlay` that is not a directory. */
const MEMORY = 'memory';

/** Adds the options to a command. */
export function overlayOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('overlay', {
      describe: `Where writes go: "${MEMORY}" (lost at exit) or a directory (kept)`,
      type: 'string',
      requiresArg: true,
      default: MEMORY,
    })
    .option('overlay-memory-limit', {
      describe: 'Memory for writes of all memory overlays together; more goes to a file in --temp-dir',
      type: 'string',
      requiresArg: true,
      default: defaultSize(OVERLAY_MEMORY_BYTES_DEFAULT),
    })
    .option('overlay-limit', {
      describe: 'Space that the writes of one export may take; unlimited by default',
      type: 'string',
      requiresArg: true,
    })
    .option('on-full', {
      describe: 'What writes do that find no room: wait until there is some, or fail',
      choices: ['pause', 'fail'] as const,
      default: 'fail' as const,
    })
    .option('temp-dir', {
      describe: 'Directory for temporary files; a tmpfs is passed over unless named here',
      type: 'string',
      requiresArg: true,
      defaultDescription: 'TMPDIR, or /var/tmp where that is a tmpfs',
    });
}

/** Whether what is written is gone with the process. */
export function isVolatile({ overlay }: OverlayArguments): boolean {
  return overlay === MEMORY;
}

export function whereWritesGo(given: OverlayArguments): string {
  return isVolatile(given)
    ? 'Serving. Writes are kept in memory and are lost when this process ends; --overlay DIR keeps them.'
    : `Serving. Writes are kept in ${given.overlay}.`;
}

/** Rejects with UserError for a directory that cannot be used, or that another server uses. */
export async function openOverlays(given: OverlayArguments, log: Log): Promise<Overlays> {
  const space = {
    onFull: given.onFull,
    ...(given.overlayLimit === undefined ? {} : { overlayLimitBytes: sizeOption('overlay-limit', given.overlayLimit) }),
  };
  if (!isVolatile(given)) return KeptOverlays.open(given.overlay, space, log);
  return new MemoryOverlays({
    memoryBytesMax: sizeOption('overlay-memory-limit', given.overlayMemoryLimit),
    tempDir: given.tempDir,
    space,
    log,
  });
}
