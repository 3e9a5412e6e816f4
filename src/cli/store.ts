import { resolveStore } from '../kloset/plakar-config.ts';
import type { KeySource } from '../kloset/repository.ts';
import type { KlosetStore } from '../kloset/store.ts';
import { openResolvedStore } from '../kloset/store-location.ts';
import type { GlobalArguments } from './arguments.ts';
import { keySource } from './passphrase.ts';

/** The store a command is to read, found as plakar finds it. */
export interface ChosenStore {
  /** Not yet read; whoever opens it closes it. */
  readonly store: KlosetStore;
  readonly keys: KeySource;
  /** What follows plakar's `at`, for a plakar that is to read the same store. */
  readonly plakarLocation: string;
}

/**
 * `--store` or `at`, else PLAKAR_REPOSITORY, else the default store of plakar's configuration, else `~/.plakar`; `@NAME`
 * is looked up in that configuration. Throws UserError for a name it has not, or a kind of location that is not read.
 */
export function chooseStore({ store: given, keyfile }: Pick<GlobalArguments, 'store' | 'keyfile'>): ChosenStore {
  const resolved = resolveStore(given, process.env);
  return {
    store: openResolvedStore(resolved, { environment: process.env }),
    keys: keySource({ keyfile, configured: resolved }),
    // plakar looks the name up itself, and what belongs to it.
    plakarLocation: given?.startsWith('@') ? given : resolved.location,
  };
}
