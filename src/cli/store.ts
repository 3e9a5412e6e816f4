import type { CacheChoice } from '../cache/cache-directory.ts';
import { UserError } from '../core/errors.ts';
import { CACHE_MEMORY_BYTES_DEFAULT, INFLIGHT_MEMORY_BYTES_DEFAULT } from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import type { Progress } from '../core/progress.ts';
import { OpenStore } from '../exports/open-store.ts';
import { FETCH_CONCURRENCY_MAX } from '../kloset/fetch-limits.ts';
import { resolveStore } from '../kloset/plakar-config.ts';
import type { KeySource } from '../kloset/repository.ts';
import type { KlosetStore } from '../kloset/store.ts';
import { openResolvedStore } from '../kloset/store-location.ts';
import { createLog } from '../observability/log.ts';
import { countOption, type GlobalArguments, sizeOption, timerOption } from './arguments.ts';
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
  readonly ignoreDamaged: boolean;
  /** Where its index and its snapshots' metadata are cached. */
  readonly cache: CacheChoice | undefined;
  /** Decoded chunks cached there. */
  readonly cacheDiskBytesMax: number;
  readonly log: Log;
  /** Of opening it, and of what else the command does. */
  readonly progress: Progress;
}

/**
 * `--store` or `at`, else PLAKAR_REPOSITORY, else the default store of plakar's configuration, else `~/.plakar`; `@NAME`
 * is looked up in that configuration. `ownLog`: of a command that has one, which progress then goes to. Throws UserError
 * for a name it has not, and for options that make no sense.
 */
export function chooseStore(given: GlobalArguments, ownLog?: Log): ChosenStore {
  const log = ownLog ?? createLog(given.logLevel);
  const fetchTimeoutMs = timerOption('fetch-timeout', given.fetchTimeout);
  if (fetchTimeoutMs === 0)
    throw new UserError('--fetch-timeout 0: no read would ever succeed; write a time such as 60s.');
  const bounds = { min: 1, max: FETCH_CONCURRENCY_MAX };
  const resolved = resolveStore(given.store, process.env);
  // plakar looks a name up itself, and what belongs to it.
  const plakarLocation = given.store?.startsWith('@') ? given.store : resolved.location;
  const store = openResolvedStore(resolved, {
    environment: process.env,
    fetchTimeoutMs,
    fetchConcurrency: countOption('fetch-concurrency', given.fetchConcurrency, bounds),
    log,
    plakar: {
      command: given.plakar,
      location: plakarLocation,
      allowOpenLoopback: given.allowOpenLoopback,
      always: given.throughPlakar,
    },
  });
  const keys = keySource({ keyfile: given.keyfile, configured: resolved });
  return {
    store,
    keys,
    plakarLocation,
    ignoreDamaged: given.ignoreDamagedStates,
    cache: chooseCache(given, process.env),
    cacheDiskBytesMax: sizeOption('cache-disk', given.cacheDisk),
    log,
    progress: openProgress(given.logLevel, ownLog),
  };
}

/** The passphrase of that store, looked for now. */
export function passphraseOf({ store, keyfile }: Pick<GlobalArguments, 'store' | 'keyfile'>): Promise<Uint8Array> {
  return keySource({ keyfile, configured: resolveStore(store, process.env) }).passphrase();
}

/** Opens a store with the memory that commands take which have no options for it. */
export function openChosen(chosen: ChosenStore): Promise<OpenStore> {
  return OpenStore.open({
    ...chosen,
    cacheBytesMax: CACHE_MEMORY_BYTES_DEFAULT,
    inflightBytesMax: INFLIGHT_MEMORY_BYTES_DEFAULT,
  });
}
