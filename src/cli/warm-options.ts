/** `--no-warm`, and what it turns off. */
import type { OpenStore } from '../exports/open-store.ts';
import { WarmUps, type WarmUpsOptions } from '../warmup/warm-ups.ts';
import { WorkingSet } from '../warmup/working-set.ts';

export interface WarmArguments {
  /** False with `--no-warm`. */
  readonly warm: boolean;
}

export const warmOption = {
  describe:
    'Fetch in the background what PostgreSQL will ask for first, what a profile has, and what was read last time; --no-warm does not',
  type: 'boolean',
  default: true,
} as const;

/** Watches from here on what is opened of the store. To be closed before the store is. */
export function startWarmUps(
  store: OpenStore,
  options: Pick<WarmUpsOptions, 'isOn' | 'needsTemplate1' | 'log'>,
): WarmUps {
  const { prefetcher, recallable, repository } = store;
  const { cache } = repository;
  const workingSet = cache && new WorkingSet(recallable, cache, { isRecalled: options.isOn });
  const warmUps = new WarmUps({ prefetcher, cache, workingSet, ...options });
  store.watcher = warmUps;
  return warmUps;
}
