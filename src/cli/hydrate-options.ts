/** The options for hydrating: a copy of snapshots' stored bytes that outlives the store. */
import { resolve } from 'node:path';
import type { Argv } from 'yargs';
import { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import type { Health } from '../core/health.ts';
import type { Log } from '../core/log.ts';
import type { OpenStore } from '../exports/open-store.ts';
import { BlobWriter } from '../hydration/blob-writer.ts';
import { HydrateDirectory } from '../hydration/hydrate-directory.ts';
import { Hydration } from '../hydration/hydration.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { sizeOption } from './arguments.ts';

export interface HydrateArguments {
  readonly hydrate: boolean;
  readonly hydrateDir: string | undefined;
  readonly hydrateRate: string | undefined;
}

/** Adds the options to a command. */
export function hydrateOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('hydrate', {
      describe:
        'Copy all that the served snapshots need into --hydrate-dir, as stored, while they are served: afterwards the store may be away',
      type: 'boolean',
      default: false,
    })
    .option('hydrate-dir', {
      describe: 'Directory of that copy; also without --hydrate it is read first, and alone when the store is away',
      type: 'string',
      requiresArg: true,
    })
    .option('hydrate-rate', {
      describe: 'Bytes a second that --hydrate fetches at most, such as 20M',
      type: 'string',
      requiresArg: true,
      defaultDescription: 'no limit but clients, who come first',
    });
}

/** The directory to read from, and with `--hydrate` to write to; undefined without one. Throws UserError for options that make no sense. */
export function chooseHydrateDirectory(
  { hydrate, hydrateDir, hydrateRate, snapshots }: HydrateArguments & { readonly snapshots: readonly string[] },
  log: Log,
): HydrateDirectory | undefined {
  if (hydrate && hydrateDir === undefined) {
    throw new UserError('--hydrate needs a place for the copy: --hydrate-dir DIR.');
  }
  if (hydrate && snapshots.length === 0) {
    throw new UserError('--hydrate copies the snapshots that are named: serve latest --hydrate, for example.');
  }
  if (hydrateRate !== undefined && !hydrate) throw new UserError('--hydrate-rate means nothing without --hydrate.');
  rateOf(hydrateRate);
  if (hydrateDir === undefined) return undefined;
  return new HydrateDirectory(resolve(hydrateDir), { isWriter: hydrate, log });
}

/** Bytes a second; undefined: no limit. Throws UserError. */
function rateOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = sizeOption('hydrate-rate', text);
  if (bytes === 0) throw new UserError('--hydrate-rate 0: nothing would ever be fetched; write a size such as 20M.');
  return bytes;
}

/** Hydration under way, with what it has opened. */
export interface RunningHydration {
  readonly hydration: Hydration;
  /** Stops it; what was fetched stays. */
  close(): Promise<void>;
}

/** Starts hydrating what is served. Undefined without `--hydrate`, and while the store is away: then there is nothing to copy from. */
export async function startHydration(
  { hydrate, hydrateRate }: HydrateArguments,
  parts: {
    readonly directory: HydrateDirectory | undefined;
    readonly store: OpenStore;
    readonly snapshots: readonly SnapshotHeader[];
    readonly health: Health;
    readonly log: Log;
    readonly onBug: (error: unknown) => void;
  },
): Promise<RunningHydration | undefined> {
  const { directory, store, health, log, onBug } = parts;
  const { repository, counters, decoder, activity } = store;
  const blobs = await directory?.blobs;
  if (!hydrate || directory === undefined || blobs === undefined || repository.isStoreAway) return undefined;
  const closers = new Closers();
  const writer = await BlobWriter.open({ blobs, fileSystem: directory.fileSystem, counters });
  closers.add(() => writer.close());
  const snapshots = [...new Map(parts.snapshots.map((header) => [header.id, header])).values()];
  const bytesPerSecond = rateOf(hydrateRate);
  const hydration = new Hydration({
    ...{ repository, decoder, blobs, writer, snapshots, activity, bytesPerSecond, health, log },
  });
  hydration.done.catch(onBug);
  closers.add(() => hydration.stop());
  return { hydration, close: () => closers.close() };
}
