import type { Health } from '../core/health.ts';
import type { Log } from '../core/log.ts';
import { type Clock, systemClock } from '../kloset/clock.ts';
import type { Repository, SnapshotDeletion } from '../kloset/repository.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';

/** plakar's default, milliseconds: so long after it was marked, maintenance takes a packfile away (kloset-format 7.3). */
export const GRACE_MS = 7 * 24 * 3600 * 1000;

/** What is watched: an OpenStore. */
export interface WatchedStore {
  readonly repository: Pick<Repository, 'location' | 'damagedStates' | 'deletionOf' | 'onChange'>;
  /** Brings the list of snapshots up to date. */
  refresh(): Promise<void>;
}

export interface StoreWatchOptions {
  readonly store: WatchedStore;
  /** Snapshots that a client may be reading. */
  readonly served: () => readonly SnapshotHeader[];
  readonly health: Health;
  readonly log: Log;
  /** Milliseconds between two looks; 0: only when a packfile is missing. */
  readonly everyMs: number;
  readonly clock?: Clock;
}

/**
 * Looks after the store while it is served: new snapshots become visible, and what is to become of the snapshots that
 * clients read - deleted, or taken away by maintenance - is told while there is time to copy them.
 */
export class StoreWatch {
  readonly #options: StoreWatchOptions;
  readonly #clock: Clock;
  #cancel = () => {};
  #looking: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: StoreWatchOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    options.store.repository.onChange(() => void this.look());
    this.#schedule();
  }

  /** Looks now; never rejects. One who asks while somebody looks waits for that. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#looking;
  }

  #schedule(): void {
    const { everyMs } = this.#options;
    if (everyMs === 0 || this.#isClosed) return;
    this.#cancel = this.#clock.after(everyMs, () => void this.look().then(() => this.#schedule()));
  }

  async #look(): Promise<void> {
    const { store, health, log } = this.#options;
    try {
      await store.refresh();
      if (health.recover('store')) log.info({}, 'The store can be read again.');
    } catch (error) {
      if (this.#isClosed) return;
      const reason = `the store's states cannot be listed: ${(error as Error).message}`;
      if (health.degrade('store', reason)) log.warn({ store: store.repository.location }, reason);
    }
    await this.judge();
  }

  /** Says what is known of the store, without looking. */
  async judge(): Promise<void> {
    this.#judgeStates();
    await this.#judgeSnapshots();
  }

  #judgeStates(): void {
    const { store, health } = this.#options;
    const { size } = store.repository.damagedStates;
    if (size === 0) health.recover('states');
    else health.degrade('states', `${size} damaged states are left out: snapshots may be missing`);
  }

  async #judgeSnapshots(): Promise<void> {
    const { store, served, health, log } = this.#options;
    for (const { id } of served()) {
      const deletion = await store.repository.deletionOf(id);
      if (deletion === undefined) {
        health.recover(id);
        continue;
      }
      const reason = describeDeletion(id, deletion);
      if (health.degrade(id, reason)) log.warn({ snapshot: id }, reason);
    }
  }
}

function describeDeletion(id: string, { deletedAtMs, markedAtMs, isTakenAway }: SnapshotDeletion): string {
  const deleted = `snapshot ${id.slice(0, 8)}, which is being served, was deleted from the store at ${timeOf(deletedAtMs)}`;
  if (isTakenAway) return `${deleted}, and maintenance has taken data of it away: reads of that fail`;
  if (markedAtMs === undefined) {
    return `${deleted}; its data stays until 7 days after the next maintenance of the store, at the least`;
  }
  return `${deleted}; maintenance may take its data away from ${timeOf(markedAtMs + GRACE_MS)} on, when plakar's grace period of 7 days ends`;
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}
