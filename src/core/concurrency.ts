import type { StopOptions } from './stop.ts';

/**
 * Maps `items` with at most `limit` calls under way; results keep the order of the items. After a rejection no further
 * calls are made, and the first is passed on once those under way have settled: they may still write to memory that the
 * caller uses for something else as soon as it hears of the failure.
 */
export async function mapConcurrently<T, R>(
  items: readonly T[],
  limit: number,
  map: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results: R[] = new Array(items.length);
  let next = 0;
  let failure: { readonly cause: unknown } | undefined;
  const lane = async () => {
    while (next < items.length && failure === undefined) {
      const index = next++;
      try {
        results[index] = await map(items[index]!, index);
      } catch (cause) {
        failure ??= { cause };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
  if (failure !== undefined) throw (failure as { readonly cause: unknown }).cause;
  return results;
}

/** Calls `work` for each item as it comes, with at most `limit` calls under way; fails as `mapConcurrently` does. */
export async function forEachConcurrently<T>(
  items: AsyncIterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const underWay = new Set<Promise<void>>();
  let failure: { readonly cause: unknown } | undefined;
  try {
    for await (const item of items) {
      const done: Promise<void> = work(item)
        .catch((cause: unknown) => {
          failure ??= { cause };
        })
        .finally(() => underWay.delete(done));
      underWay.add(done);
      if (underWay.size >= limit) await Promise.race(underWay);
      if (failure !== undefined) break;
    }
  } catch (cause) {
    failure ??= { cause };
  }
  await Promise.all(underWay);
  if (failure !== undefined) throw failure.cause;
}

/** Maps with up to `aheadMax` calls ahead of the one whose result is taken; the results come in the items' order. */
export async function* mapAhead<T, R>(
  items: Iterable<T> | AsyncIterable<T>,
  aheadMax: number,
  map: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const ahead: Promise<R>[] = [];
  try {
    for await (const item of items) {
      const result = map(item);
      // Heard of when its turn comes; until then it must not count as a rejection that nobody handles.
      result.catch(() => undefined);
      ahead.push(result);
      if (ahead.length === aheadMax) yield await ahead.shift()!;
    }
    while (ahead.length > 0) yield await ahead.shift()!;
  } finally {
    await Promise.allSettled(ahead);
  }
}

/** How a place in a budget is waited for. */
export interface BudgetOptions extends StopOptions {
  /** True as long as nobody waits for the work; asked anew whenever there is room. Default: somebody does. */
  readonly isGuess?: (() => boolean) | undefined;
}

/** One that waits for room. */
interface Place {
  readonly bytes: number;
  readonly isGuess: () => boolean;
  readonly admit: (asGuess: boolean) => void;
}

/**
 * A budget of bytes that many share: whoever would exceed it waits, first come, first served. One that wants more than
 * the whole budget is let in alone, so that nothing waits for ever. Guesses come behind all others, and have at most
 * half of it together: whoever asks finds room.
 */
export class ByteBudget {
  readonly #bytesMax: number;
  #inUse = 0;
  #inGuesses = 0;
  readonly #waiting: Place[] = [];

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytesInUse(): number {
    return this.#inUse;
  }

  /** How many wait for room. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Runs `work` holding `bytes` of the budget. Rejects with the signal's reason if that comes while it waits for them. */
  async with<T>(bytes: number, work: () => Promise<T>, { signal, isGuess = never }: BudgetOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    const asGuess = await this.#enter(bytes, { signal, isGuess });
    try {
      return await work();
    } finally {
      this.#count(-bytes, asGuess);
      this.#admitWaiting();
    }
  }

  /** Whether it was let in as a guess. */
  #enter(bytes: number, { signal, isGuess }: Required<BudgetOptions> & { isGuess: () => boolean }) {
    return new Promise<boolean>((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(place), 1);
        reject(signal?.reason);
        this.#admitWaiting(); // It may have been what the others waited behind.
      };
      const admit = (asGuess: boolean) => {
        signal?.removeEventListener('abort', leave);
        resolve(asGuess);
      };
      const place = { bytes, isGuess, admit };
      this.#waiting.push(place);
      signal?.addEventListener('abort', leave, { once: true });
      this.#admitWaiting();
    });
  }

  #count(bytes: number, asGuess: boolean): void {
    this.#inUse += bytes;
    if (asGuess) this.#inGuesses += bytes;
  }

  #fits(bytes: number, asGuess: boolean): boolean {
    if (this.#inUse === 0) return true;
    return this.#inUse + bytes <= this.#bytesMax && (!asGuess || this.#inGuesses + bytes <= this.#bytesMax / 2);
  }

  #admitWaiting(): void {
    for (let next = firstWanted(this.#waiting); next !== undefined; next = firstWanted(this.#waiting)) {
      const asGuess = next.isGuess();
      if (!this.#fits(next.bytes, asGuess)) return;
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#count(next.bytes, asGuess);
      next.admit(asGuess);
    }
  }
}

const never = () => false;

/** The first that is no guess; the first of all where only guesses wait. */
export function firstWanted<T extends { readonly isGuess: () => boolean }>(waiting: readonly T[]): T | undefined {
  return waiting.find(({ isGuess }) => !isGuess()) ?? waiting[0];
}
