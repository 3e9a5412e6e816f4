/** The options for where writes go. */
import type { Argv } from 'yargs';
import { UserError } from '../core/errors.ts';
import type { Health } from '../core/health.ts';
import { OVERLAY_MEMORY_BYTES_DEFAULT } from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import type { OverlayHealth } from '../device/space-gate.ts';
import type { SpaceLimit } from '../device/space-limit.ts';
import { KeptOverlays, type OverlaySettings } from '../exports/directory-overlays.ts';
import { MemoryOverlays } from '../exports/memory-overlays.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { Overlays } from '../exports/overlays.ts';
import { ReadOnlyOverlays } from '../exports/read-only-overlays.ts';
import { defaultSize, sizeOption } from './arguments.ts';
import { overlayLimit } from './overlay-limit.ts';

export interface OverlayArguments {
  readonly overlay: string;
  readonly readOnly: boolean;
  readonly overlayMemoryLimit: string;
  readonly overlayLimit: string | undefined;
  readonly onFull: 'pause' | 'fail';
  readonly overlayEncryption: 'auto' | 'off';
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
    .option('read-only', {
      describe: 'Serve the snapshots as they are: no client can write, and no overlay is made',
      type: 'boolean',
      default: false,
    })
    .option('overlay-memory-limit', {
      describe: 'Memory for writes of all memory overlays together; more goes to a file in --temp-dir',
      type: 'string',
      requiresArg: true,
      default: defaultSize(OVERLAY_MEMORY_BYTES_DEFAULT),
    })
    .option('overlay-limit', {
      describe: 'Space that the writes of one export may take, or @FILE with that size, read again at SIGHUP',
      type: 'string',
      requiresArg: true,
      defaultDescription: 'none',
    })
    .option('on-full', {
      describe: 'What writes do that find no room: wait until there is some, or fail',
      choices: ['pause', 'fail'] as const,
      default: 'pause' as const,
    })
    .option('overlay-encryption', {
      describe: 'Encrypt what is written beside an encrypted store: overlays, temporary files',
      choices: ['auto', 'off'] as const,
      default: 'auto' as const,
    })
    .option('temp-dir', {
      describe: 'Directory for temporary files; a tmpfs is passed over unless named here',
      type: 'string',
      requiresArg: true,
      defaultDescription: 'TMPDIR, or /var/tmp where that is a tmpfs',
    });
}

/** Whether what is written is gone with the process. */
export function isVolatile({ overlay, readOnly }: OverlayArguments): boolean {
  return overlay === MEMORY && !readOnly;
}

export function whereWritesGo(given: OverlayArguments): string {
  if (given.readOnly) return 'Serving read-only: nobody can write.';
  return isVolatile(given)
    ? 'Serving. Writes are kept in memory and are lost when this process ends; --overlay DIR keeps them.'
    : `Serving. Writes are kept in ${given.overlay}.`;
}

/** Whether what is written beside the store is encrypted. */
export function encrypts({ overlayEncryption }: Pick<OverlayArguments, 'overlayEncryption'>, isEncrypted: boolean) {
  return isEncrypted && overlayEncryption === 'auto';
}

/** What the options mean for every overlay over snapshots of `store`. Rejects with UserError. */
export async function overlaySettings(
  given: OverlayArguments,
  { store, health, log }: { store: OpenStore; health: Health; log: Log },
): Promise<OverlaySettings & { readonly overlayLimit: SpaceLimit }> {
  const { repository } = store;
  const onHealth = reportFullOverlays(health);
  const space = { onFull: given.onFull, overlayLimit: await overlayLimit(given.overlayLimit, log), onHealth };
  if (!repository.isEncrypted) return space;
  const keyFor = (salt: Uint8Array) => repository.fileKey('overlay', salt);
  return { ...space, keyFor, encryptNew: encrypts(given, true) };
}

/** Degraded as long as the writes of any overlay wait for space. */
function reportFullOverlays(health: Health): (state: OverlayHealth) => void {
  let full = 0;
  return (overlay) => {
    full += overlay.state === 'full' ? 1 : -1;
    if (overlay.state === 'full') health.degrade('space', `writes wait for space: ${overlay.reason}`);
    else if (full === 0) health.recover('space');
  };
}

/** Rejects with UserError for a directory that cannot be used, or that another server uses. */
export async function openOverlays(
  given: OverlayArguments,
  settings: OverlaySettings,
  { store, log }: { store: OpenStore; log: Log },
): Promise<Overlays> {
  if (given.readOnly) {
    if (given.overlay === MEMORY) return new ReadOnlyOverlays();
    throw new UserError('--read-only makes no overlay: leave out --overlay, or --read-only to see what it holds.');
  }
  if (!isVolatile(given)) return KeptOverlays.open(given.overlay, settings, log);
  return new MemoryOverlays({
    memoryBytesMax: sizeOption('overlay-memory-limit', given.overlayMemoryLimit),
    tempDir: given.tempDir,
    encryptSpill: encrypts(given, store.repository.isEncrypted),
    space: settings,
    log,
  });
}
