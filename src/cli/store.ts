import type { CacheChoice } from '../cache/cache-directory.ts';
import type { Log } from '../core/log.ts';
import type { Progress } from '../core/progress.ts';
import { resolveStore } from '../kloset/plakar-config.ts';
import type { KeySource } from '../kloset/repository.ts';
import type { KlosetStore } from '../kloset/store.ts';
import { openResolvedStore } from '../kloset/store-location.ts';
import { createLog } from '../observability/log.ts';
import type { GlobalArguments } from './arguments.ts';
import { chooseCache } from './cache-options.ts';
import { keySource } from './passphrase.ts';
import { openProgress } from './progress.ts';

/** The store a command is to read, found as plakar finds it. */
export interface ChosenStore {
  /** Not yet read; whoever opens it closes it. */
  readonly store: KlosetStore;
  readonly keys: KeySource;
  /** What follows plakar's `at`, for a plakar that is to read the same store. */
  readonly plakarLocation: string;
  /** Where its index and its snapshots' metadata are cached. */
  readonly cache: CacheChoice | undefined;
  readonly log: Log;
  /** Of opening it, and of what else the command does. */
  readonly progress: Progress;
}

/**
 * `--store` or `at`, else PLAKAR_REPOSITORY, else the default store of plakar's configuration, else `~/.plakar`; `@NAME`
 * is looked up in that configuration. `log`: of a command that has one, which progress then goes to. Throws UserError for a name it has not, or a kind of location that is not read.
 */
export function chooseStore(given: GlobalArguments, log?: Log): ChosenStore {
  const resolved = resolveStore(given.store, process.env);
  return {
    store: openResolvedStore(resolved, { environment: process.env }),
    keys: keySource({ keyfile: given.keyfile, configured: resolved }),
    // plakar looks the name up itself, and what belongs to it.
    plakarLocation: given.store?.startsWith('@') ? given.store : resolved.location,
    cache: chooseCache(given, process.env),
    log: log ?? createLog(given.logLevel),
    progress: openProgress(given.logLevel, log),
  };
}

/** The passphrase of that store, looked for now. */
export function passphraseOf({ store, keyfile }: Pick<GlobalArguments, 'store' | 'keyfile'>): Promise<Uint8Array> {
  return keySource({ keyfile, configured: resolveStore(store, process.env) }).passphrase();
}
