import { CacheDamagedError } from '../cache/errors.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import { CorruptStoreError, StoreUnavailableError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { type Progress, silentProgress } from '../core/progress.ts';
import type { BlobIndex, BlobLocation } from './blob-index.ts';
import { type Clock, systemClock } from './clock.ts';
import { REFRESH_WHEN_MISSING_MS } from './fetch-limits.ts';
import { discardIndex, readIndex, writeIndex } from './index-cache.ts';
import { LOCATIONS_IN_MEMORY_MAX } from './limits.ts';
import { LocationIndex } from './location-index.ts';
import type { EarlyListing } from './opening.ts';
import { readStates, type StateReader } from './state-reader.ts';
import type { ReadOptions } from './store.ts';

export interface StateIndexOptions {
  /** Leaves out states that are damaged, instead of refusing the store because of them. */
  readonly ignoreDamaged?: boolean | undefined;
  /** Is told of each state that is left out. */
  readonly log?: Log | undefined;
  readonly clock?: Clock;
  /** A listing of the states that is on its way already. */
  readonly listing?: Pick<EarlyListing, 'take'> | undefined;
  /** Where the index is kept for the next opening. */
  readonly cache?: StoreCache | undefined;
  readonly progress?: Progress | undefined;
  /** Locations of an index that stays in memory where there is a cache; default LOCATIONS_IN_MEMORY_MAX. */
  readonly locationsInMemoryMax?: number;
}

/** Listings of states that one opening makes, since a state can be taken away between listing and reading it. */
const LISTINGS_MAX = 3;

/**
 * The merged index of a store and the states it was made from. They are listed again on demand: backups, deletions and
 * maintenance add states while a store is being read (kloset-format 7.3).
 */
export class StateIndex {
  /** Called when `refresh` brought something new. */
  onChange: () => void = () => {};
  readonly #log: Log;
  #locations: BlobIndex;
  readonly #reader: StateReader;
  readonly #clock: Clock;
  readonly #cache: StoreCache | undefined;
  readonly #progress: Progress;
  /** Whether the cache has what is known. */
  #isSaved = false;
  readonly #inMemoryMax: number;
  #damaged: ReadonlyMap<string, CorruptStoreError>;
  #refreshing: Promise<boolean> | undefined;
  #repairing: Promise<void> | undefined;
  #refreshedAtMs: number;

  private constructor(
    reader: StateReader,
    { cache, clock, inMemoryMax, log, progress }: IndexParts,
    loaded: LoadedStates,
  ) {
    this.#reader = reader;
    this.#clock = clock;
    this.#cache = cache;
    this.#log = log;
    this.#inMemoryMax = inMemoryMax;
    this.#progress = progress;
    this.#locations = loaded.locations;
    this.#damaged = loaded.damaged;
    this.#refreshedAtMs = this.#clock.now();
  }

  /**
   * Reads and merges all states, or those that the cached index lacks. Rejects with CorruptStoreError that names a
   * damaged one, unless those are ignored.
   */
  static async open(reader: StateReader, options: StateIndexOptions = {}): Promise<StateIndex> {
    const { cache, clock = systemClock, log = silentLog, progress = silentProgress } = options;
    const { locationsInMemoryMax: inMemoryMax = LOCATIONS_IN_MEMORY_MAX } = options;
    const parts = { cache, clock, inMemoryMax, log, progress };
    const { listing } = options;
    const index =
      (await StateIndex.#fromCache(reader, parts, listing)) ??
      new StateIndex(reader, parts, await load(reader, { progress, listing }));
    const [damaged] = index.damaged.values();
    if (damaged !== undefined && !options.ignoreDamaged) {
      await index.close();
      const advice = '--ignore-damaged-states opens the store without it';
      throw new CorruptStoreError(`${damaged.message}. ${advice}`, { details: damaged.details, cause: damaged });
    }
    index.#warn(new Map());
    await index.#save();
    return index;
  }

  /** From the cached index and the states that are newer; undefined if that is not to be had. */
  static async #fromCache(
    reader: StateReader,
    parts: IndexParts,
    listing: StateIndexOptions['listing'],
  ): Promise<StateIndex | undefined> {
    const locations = await readIndex(parts.cache);
    if (locations === undefined) return undefined;
    const index = new StateIndex(reader, parts, { locations, damaged: new Map() });
    index.#isSaved = true;
    try {
      const ids = await (listing?.take() ?? reader.store.list('states'));
      const added = ids.filter((id) => !locations.states.has(id));
      const isGone = ids.length - added.length < locations.states.size;
      if (!isGone && (added.length === 0 || (await index.#extend(added, parts)) !== 'impossible')) return index;
    } catch (error) {
      await index.close();
      throw error;
    }
    await index.close();
    return undefined;
  }

  /** The merge of all states that are known; replaced or extended by `refresh`. */
  get locations(): Omit<BlobIndex, 'locate' | 'close' | 'extend'> {
    return this.#locations;
  }

  /** As BlobIndex has it; an index on disk that turns out to be damaged is made anew from the store. */
  async locate(type: number, mac: Uint8Array): Promise<readonly BlobLocation[]> {
    const asked = this.#locations;
    try {
      return await asked.locate(type, mac);
    } catch (error) {
      if (!(error instanceof CacheDamagedError)) throw error;
      await this.#repair(asked, error);
      return this.#locations.locate(type, mac);
    }
  }

  close(): Promise<void> {
    return this.#locations.close();
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
  #warn(known: ReadonlyMap<string, CorruptStoreError>): void {
    for (const [id, error] of this.#damaged) {
      if (known.has(id)) continue;
      const consequence =
        'snapshots and data that only it lists are missing, and what it marked as deleted may show again';
      this.#log.warn({ state: id }, `${error.message}. It is left out: ${consequence}.`);
    }
  }

  async #refresh(options: ReadOptions): Promise<boolean> {
    const { store } = this.#reader;
    const ids = await store.list('states', options);
    if (ids.length === 0 && this.#locations.states.size > 0) {
      throw new StoreUnavailableError(`${store.location} lists no states any more: is the store still there?`);
    }
    const added = ids.filter((id) => !this.#locations.states.has(id));
    // A state that is gone while nothing came to replace it takes nothing away that could not be read.
    if (added.length === 0) return false;
    const isGone = ids.length - added.length < this.#locations.states.size;
    const damagedBefore = this.#damaged;
    const outcome = isGone ? 'impossible' : await this.#extend(added, { ...options, progress: this.#progress });
    if (outcome === 'impossible') {
      await this.#loadAnew(options);
      await this.#save();
    }
    this.#warn(damagedBefore);
    if (outcome !== 'impossible') return outcome === 'extended';
    return added.some((id) => this.#locations.states.has(id));
  }

  async #loadAnew(options: ReadOptions): Promise<void> {
    const loaded = await load(this.#reader, { ...options, progress: this.#progress });
    await this.#replace(loaded.locations);
    this.#damaged = loaded.damaged;
  }

  /** Those who are looking something up in the one before finish first. */
  async #replace(locations: BlobIndex): Promise<void> {
    const before = this.#locations;
    this.#locations = locations;
    this.#isSaved = false;
    if (before !== locations) await before.close();
  }

  /** Merges new states with what there is; impossible if all must be merged again, from the beginning. */
  async #extend(added: readonly string[], options: LoadOptions): Promise<'extended' | 'nothing' | 'impossible'> {
    const { states, damaged, missing } = await readStates(this.#reader, added, options);
    if (missing.length > 0) return 'impossible';
    try {
      const extended = states.length === 0 ? this.#locations : await this.#locations.extend(states);
      if (extended === undefined) return 'impossible';
      if (states.length > 0) await this.#replace(extended);
    } catch (error) {
      if (error instanceof CorruptStoreError) return 'impossible';
      throw error;
    }
    // What was damaged is read again each time: it may have been repaired.
    this.#damaged = damaged;
    return states.length > 0 ? 'extended' : 'nothing';
  }

  /** Once for all who find it damaged. */
  async #repair(damaged: BlobIndex, why: CacheDamagedError): Promise<void> {
    if (this.#locations !== damaged) return;
    this.#repairing ??= (async () => {
      await discardIndex(this.#cache, why);
      await this.#loadAnew({});
      await this.#save();
    })().finally(() => {
      this.#repairing = undefined;
    });
    await this.#repairing;
  }

  async #save(): Promise<void> {
    if (this.#cache === undefined || this.#isSaved) return;
    const before = this.#locations;
    await this.#replace(await writeIndex(this.#cache, before, this.#inMemoryMax));
    this.#isSaved = true;
  }
}

interface IndexParts extends LoadOptions {
  readonly inMemoryMax: number;
  readonly cache: StoreCache | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

interface LoadedStates {
  readonly locations: BlobIndex;
  readonly damaged: ReadonlyMap<string, CorruptStoreError>;
}

interface LoadOptions extends ReadOptions {
  readonly progress: Progress;
  readonly listing?: StateIndexOptions['listing'];
}

async function load(reader: StateReader, options: LoadOptions): Promise<LoadedStates> {
  for (let listings = 1; ; listings++) {
    const ids = await (options.listing?.take() ?? reader.store.list('states', options));
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
      return { locations: LocationIndex.merge(left), damaged: all };
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
