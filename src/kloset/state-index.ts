import { CorruptStoreError, StoreUnavailableError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { type Clock, systemClock } from './clock.ts';
import { REFRESH_WHEN_MISSING_MS } from './fetch-limits.ts';
import { LocationIndex } from './location-index.ts';
import { readStates, type StateReader } from './state-reader.ts';
import type { ReadOptions } from './store.ts';

export interface StateIndexOptions {
  /** Leaves out states that are damaged, instead of refusing the store because of them. */
  readonly ignoreDamaged?: boolean | undefined;
  /** Is told of each state that is left out. */
  readonly log?: Log | undefined;
  readonly clock?: Clock;
}

/** Listings of states that one opening makes, since a state can be taken away between listing and reading it. */
const LISTINGS_MAX = 3;

/**
 * The merged index of a store and the states it was made from. They are listed again on demand: backups, deletions and
 * maintenance add states while a store is being read (kloset-format 7.3).
 */
export class StateIndex {
  /** The merge of all states that are known; replaced or extended by `refresh`. */
  locations: LocationIndex;
  /** Called when `refresh` brought something new. */
  onChange: () => void = () => {};
  readonly #log: Log;
  readonly #reader: StateReader;
  readonly #clock: Clock;
  #known: ReadonlySet<string>;
  #damaged: ReadonlyMap<string, CorruptStoreError>;
  #refreshing: Promise<boolean> | undefined;
  #refreshedAtMs: number;

  private constructor(reader: StateReader, loaded: LoadedStates, { clock, log }: StateIndexOptions) {
    this.#reader = reader;
    this.#clock = clock ?? systemClock;
    this.#log = log ?? silentLog;
    this.locations = loaded.locations;
    this.#known = loaded.known;
    this.#damaged = loaded.damaged;
    this.#refreshedAtMs = this.#clock.now();
  }

  /** Reads and merges all states. Rejects with CorruptStoreError that names a damaged one, unless those are ignored. */
  static async open(reader: StateReader, options: StateIndexOptions = {}): Promise<StateIndex> {
    const loaded = await load(reader, {});
    const [damaged] = loaded.damaged.values();
    if (damaged !== undefined && !options.ignoreDamaged) {
      const advice = '--ignore-damaged-states opens the store without it';
      throw new CorruptStoreError(`${damaged.message}. ${advice}`, { details: damaged.details, cause: damaged });
    }
    const index = new StateIndex(reader, loaded, options);
    index.#warn(loaded.damaged);
    return index;
  }

  /** States whose content is wrong: the index goes without them. */
  get damaged(): ReadonlyMap<string, CorruptStoreError> {
    return this.#damaged;
  }

  /**
   * Lists the states again and merges what is new. Resolves to whether anything was; calls at the same time share one
   * listing. After a rejection the index is what it was.
   */
  refresh(options: ReadOptions = {}): Promise<boolean> {
    this.#refreshing ??= this.#refresh(options)
      .then((isNew) => {
        if (isNew) this.onChange();
        return isNew;
      })
      .finally(() => {
        this.#refreshing = undefined;
        this.#refreshedAtMs = this.#clock.now();
      });
    return this.#refreshing;
  }

  /** As `refresh`, for somebody who misses a packfile; not again shortly after, so that a store that lost many is not listed for each. */
  async refreshBecauseMissing(): Promise<boolean> {
    const isRecent = this.#clock.now() - this.#refreshedAtMs < REFRESH_WHEN_MISSING_MS;
    return this.#refreshing === undefined && isRecent ? false : this.refresh();
  }

  /** Tells of damaged states that were not known as such. */
  #warn(damaged: ReadonlyMap<string, CorruptStoreError>): void {
    for (const [id, error] of damaged) {
      if (this.#damaged !== damaged && this.#damaged.has(id)) continue;
      const consequence =
        'snapshots and data that only it lists are missing, and what it marked as deleted may show again';
      this.#log.warn({ state: id }, `${error.message}. It is left out: ${consequence}.`);
    }
  }

  async #refresh(options: ReadOptions): Promise<boolean> {
    const { store } = this.#reader;
    const ids = await store.list('states', options);
    if (ids.length === 0 && this.#known.size > 0) {
      throw new StoreUnavailableError(`${store.location} lists no states any more: is the store still there?`);
    }
    const added = ids.filter((id) => !this.#known.has(id));
    // A state that is gone while nothing came to replace it takes nothing away that could not be read.
    if (added.length === 0) return false;
    const isGone = ids.length - added.length < this.#known.size;
    const outcome = isGone ? 'impossible' : await this.#extend(added, options);
    if (outcome !== 'impossible') return outcome === 'extended';
    const loaded = await load(this.#reader, options);
    this.#warn(loaded.damaged);
    const isNew = added.some((id) => loaded.known.has(id));
    this.locations = loaded.locations;
    this.#known = loaded.known;
    this.#damaged = loaded.damaged;
    return isNew;
  }

  /** Merges new states with what there is; impossible if all must be merged again, from the beginning. */
  async #extend(added: readonly string[], options: ReadOptions): Promise<'extended' | 'nothing' | 'impossible'> {
    const { states, damaged, missing } = await readStates(this.#reader, added, options);
    if (missing.length > 0) return 'impossible';
    try {
      if (!this.locations.extend(states)) return 'impossible';
    } catch (error) {
      if (error instanceof CorruptStoreError) return 'impossible';
      throw error;
    }
    this.#warn(damaged);
    this.#known = new Set([...this.#known, ...states.map(({ id }) => id)]);
    // What was damaged is read again each time: it may have been repaired.
    this.#damaged = damaged;
    return states.length > 0 ? 'extended' : 'nothing';
  }
}

interface LoadedStates {
  readonly locations: LocationIndex;
  readonly known: ReadonlySet<string>;
  readonly damaged: ReadonlyMap<string, CorruptStoreError>;
}

async function load(reader: StateReader, options: ReadOptions): Promise<LoadedStates> {
  for (let listings = 1; ; listings++) {
    const ids = await reader.store.list('states', options);
    const read = await readStates(reader, ids, options);
    const [missing] = read.missing;
    if (missing === undefined) return merge(read);
    if (listings === LISTINGS_MAX) {
      throw new StoreUnavailableError(`State ${missing.id} is listed by the store, and is not there`, {
        cause: missing.cause,
      });
    }
  }
}

/** Merges what can be merged: a state whose records are malformed joins the damaged ones. */
function merge({ states, damaged }: Awaited<ReturnType<typeof readStates>>): LoadedStates {
  const all = new Map(damaged);
  for (let left = states; ; ) {
    try {
      return { locations: LocationIndex.merge(left), known: new Set(left.map(({ id }) => id)), damaged: all };
    } catch (error) {
      if (!(error instanceof CorruptStoreError)) throw error;
      const { state: id } = error.details;
      const without = left.filter((state) => state.id !== id);
      if (without.length === left.length) throw error;
      all.set(String(id), error);
      left = without;
    }
  }
}
