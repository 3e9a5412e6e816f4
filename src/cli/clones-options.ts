/** Where clones are, and who has them: a running server, or else this command. */
import { stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { CloneService } from '../clones/clone-service.ts';
import { LocalClones } from '../clones/local-clones.ts';
import { RemoteClones } from '../clones/remote-clones.ts';
import { Closers } from '../core/closers.ts';
import { assert, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { OverlaySettings } from '../exports/directory-overlays.ts';
import type { OpenStore } from '../exports/open-store.ts';
import { createLog } from '../observability/log.ts';
import { durationOption, type GlobalArguments } from './arguments.ts';
import { chooseStore, openChosen } from './store.ts';

export interface ClonesArguments extends GlobalArguments {
  readonly clones: string | undefined;
}

/** The option, for every command that has to do with clones. */
export const clonesOption = {
  describe: 'Directory of the clones',
  type: 'string',
  requiresArg: true,
  defaultDescription: '$XDG_STATE_HOME/kloset-nbd/clones, or ~/.local/state/kloset-nbd/clones',
} as const;

/** How long a command waits for another one that has the directory, and looks again, in milliseconds. */
const PATIENCE_MS = 10_000;
const LOOK_AGAIN_MS = 50;

export function clonesDirectory({ clones }: Pick<ClonesArguments, 'clones'>, environment = process.env): string {
  if (clones !== undefined) return clones;
  // A relative XDG_STATE_HOME is invalid and to be ignored (XDG Base Directory Specification).
  const { XDG_STATE_HOME: state } = environment;
  return join(state?.startsWith('/') ? state : join(homedir(), '.local/state'), 'kloset-nbd/clones');
}

export async function isDirectory(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined); // What cannot be looked at is as good as not there.
  return found?.isDirectory() ?? false;
}

/** What a command that is not a server logs: errors, unless more is asked for; its answers are on standard output. */
export function commandLog({ logLevel }: Pick<GlobalArguments, 'logLevel'>): Log {
  return createLog(logLevel === 'info' ? 'error' : logLevel);
}

/** What was read of a disk that is in use is what a crash would leave: said wherever it is. */
export function tellConnected(name: string, connections: number): void {
  if (connections === 0) return;
  process.stderr.write(
    `"${name}" has ${connections} ${connections === 1 ? 'connection' : 'connections'}: taken is what it was at one moment, after a flush, as a crash of its client would leave it.\n`,
  );
}

/** Longest life, in milliseconds: a hundred years. */
const TTL_MS_MAX = 100 * 365 * 86_400_000;

/** `--ttl`, in milliseconds. Throws UserError. */
export function ttlOption(text: string): number {
  const ms = durationOption('ttl', text);
  if (ms > 0 && ms <= TTL_MS_MAX) return ms;
  throw new UserError(`--ttl ${text}: write how long the clone lives, up to a hundred years.`);
}

/**
 * Calls `action` with the clones, by way of the server that has them if one is running; else this process takes them,
 * and opens the store if the command `reads` what is on a clone's disk, or checks what an encrypted one has stored.
 * Rejects with UserError if another process has the directory and goes on having it.
 */
export async function withClones<T>(
  given: ClonesArguments,
  { reads }: { readonly reads: boolean },
  action: (clones: CloneService) => Promise<T>,
): Promise<T> {
  const closers = new Closers();
  try {
    const result = await action(await openClones(given, { reads, closers }));
    await closers.close();
    return result;
  } catch (error) {
    return closers.closeBecause(error);
  }
}

async function openClones(
  given: ClonesArguments,
  { reads, closers }: { readonly reads: boolean; readonly closers: Closers },
): Promise<CloneService> {
  const directory = clonesDirectory(given);
  if (!(await isDirectory(directory))) throw new UserError(`There are no clones: ${directory} is no directory.`);
  const remote = await RemoteClones.connect(directory);
  if (remote !== undefined) {
    closers.add(() => remote.close());
    return remote;
  }
  const log = commandLog(given);
  const store = reads ? await openStore(given, log) : undefined;
  if (store !== undefined) closers.add(() => store.close());
  const clones = await whenFree(directory, () =>
    LocalClones.open({ directory, settings: settingsOf(store), store: () => required(store), log }),
  );
  closers.add(() => clones.close());
  return clones;
}

/** A server may have begun, or another command be about to end. */
async function whenFree(directory: string, open: () => Promise<CloneService>): Promise<CloneService> {
  for (const untilMs = performance.now() + PATIENCE_MS; ; ) {
    try {
      return await open();
    } catch (error) {
      const isTaken = error instanceof UserError && 'holder' in error.details;
      if (!isTaken || performance.now() > untilMs) throw error;
      const remote = await RemoteClones.connect(directory);
      if (remote !== undefined) return remote;
      await delay(LOOK_AGAIN_MS);
    }
  }
}

function openStore(given: ClonesArguments, log: Log): Promise<OpenStore> {
  return openChosen(chooseStore(given, log));
}

/** Commands write nothing to clones: they need no more than the keys. */
function settingsOf(store: OpenStore | undefined): OverlaySettings {
  if (store === undefined || !store.repository.isEncrypted) return {};
  return { keyFor: (salt) => store.repository.fileKey('overlay', salt) };
}

async function required(store: OpenStore | undefined): Promise<OpenStore> {
  assert(store !== undefined, 'a command that opens a clone has opened the store');
  return store;
}
