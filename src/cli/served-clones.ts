import { cloneCommands } from '../clones/clone-commands.ts';
import { CloneExports } from '../clones/clone-exports.ts';
import { isCloneName } from '../clones/clone-record.ts';
import { LocalClones } from '../clones/local-clones.ts';
import { controlPathOf } from '../clones/remote-clones.ts';
import { ControlServer } from '../control/control-server.ts';
import { UserError } from '../core/errors.ts';
import type { ExportCatalog } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import type { OverlaySettings } from '../exports/directory-overlays.ts';
import { BASE_SUFFIX } from '../exports/export-name.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { SnapshotDevice } from '../exports/snapshot-device.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { NbdServer } from '../nbd/server.ts';
import type { TracedPart } from '../warmup/warm-ups.ts';
import { type ClonesArguments, clonesDirectory, isDirectory } from './clones-options.ts';

/** How often clones whose time is over are looked for, in milliseconds. */
const EXPIRY_EVERY_MS = 30_000;

/** The clones of a server: as exports, and for the commands that ask it. */
export interface ServedClones {
  /** Bytes of open clones that differ from their snapshots. */
  readonly dirtyBytes: number;
  /** Snapshots of the clones that were opened. */
  readonly served: readonly SnapshotHeader[];
  readonly openDevices: readonly SnapshotDevice[];
  /** The directories of snapshots that a clone is of; undefined if there is no clone of the name. */
  partsOf(name: string): Promise<readonly TracedPart[] | undefined>;
  /** The clones as exports, and behind them `others`. */
  before(others: ExportCatalog): ExportCatalog;
  /** Answers commands, and removes clones whose time is over. Resolves to what ends that; `onBug` is told of broken invariants. */
  serve(nbd: NbdServer, onBug: (bug: unknown) => void): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

/**
 * The clones of `--clones`, else those of the usual directory if it is there and no other server has it. Rejects with
 * UserError if the directory that was named cannot be had.
 */
export async function openServedClones(
  given: ClonesArguments,
  { store, settings, log }: { readonly store: OpenStore; readonly settings: OverlaySettings; readonly log: Log },
): Promise<ServedClones | undefined> {
  const directory = clonesDirectory(given);
  if (given.clones === undefined && !(await isDirectory(directory))) return undefined;
  let server: NbdServer | undefined;
  const disconnect = (deviceId: string) =>
    server?.disconnect(
      (attached) => attached === deviceId || attached === `${deviceId}${BASE_SUFFIX}`,
      'its clone is being reset or removed',
    );
  let clones: LocalClones;
  try {
    clones = await LocalClones.open({
      directory,
      settings,
      store: () => Promise.resolve(store),
      disconnect,
      log,
    });
  } catch (error) {
    if (given.clones !== undefined || !(error instanceof UserError)) throw error;
    log.warn({ directory }, `The clones in ${directory} are not served here: ${error.message}`);
    return undefined;
  }
  return {
    get dirtyBytes() {
      return clones.devices.dirtyBytes;
    },
    get served() {
      return clones.devices.served;
    },
    get openDevices() {
      return clones.devices.open;
    },
    async partsOf(name) {
      const record = isCloneName(name) ? await clones.registry.read(name) : undefined;
      return record?.parts.map(({ snapshot, path }) => ({ snapshotId: snapshot, path }));
    },
    before: (others) => new CloneExports(clones, others),
    async serve(nbd, onBug) {
      server = nbd;
      const path = controlPathOf(directory);
      const control = await ControlServer.listen({ path, commands: cloneCommands(clones), log, onBug });
      const expire = () =>
        clones.expire().catch((error) => log.warn({ error }, 'Clones whose time is over could not be removed.'));
      const timer = setInterval(expire, EXPIRY_EVERY_MS);
      timer.unref();
      return async () => {
        clearInterval(timer);
        await control.close();
      };
    },
    close: () => clones.close(),
  };
}
