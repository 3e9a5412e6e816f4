/** `--no-warm`, and what it turns off. */
import type { OpenStore } from '../exports/open-store.ts';
import { WarmUps, type WarmUpsOptions } from '../warmup/warm-ups.ts';

export interface WarmArguments {
  /** False with `--no-warm`. */
  readonly warm: boolean;
}

export const warmOption = {
  describe: 'Fetch in the background what PostgreSQL will ask for first, and what a profile has; --no-warm does not',
  type: 'boolean',
  default: true,
} as const;

/** Watches from here on what is opened of the store. To be closed before the store is. */
export function startWarmUps(
  store: OpenStore,
  options: Pick<WarmUpsOptions, 'isOn' | 'needsTemplate1' | 'log'>,
): WarmUps {
  const { prefetcher, repository } = store;
  const warmUps = new WarmUps({ prefetcher, cache: repository.cache, ...options });
  store.watcher = warmUps;
  return warmUps;
}
