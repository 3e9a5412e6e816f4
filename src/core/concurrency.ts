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

/**
 * A budget of bytes that many share: whoever would exceed it waits, first come, first served. One that wants more than
 * the whole budget is let in alone, so that nothing waits for ever.
 */
export class ByteBudget {
  readonly #bytesMax: number;
  #inUse = 0;
  readonly #waiting: { bytes: number; admit: () => void }[] = [];

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
  async with<T>(bytes: number, work: () => Promise<T>, { signal }: StopOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    if (this.#waiting.length > 0 || !this.#fits(bytes)) {
      await this.#wait(bytes, signal);
    } else {
      this.#inUse += bytes;
    }
    try {
      return await work();
    } finally {
      this.#inUse -= bytes;
      this.#admitWaiting();
    }
  }

  #wait(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(place), 1);
        reject(signal?.reason);
        this.#admitWaiting(); // It may have been what the others waited behind.
      };
      const admit = () => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const place = { bytes, admit };
      this.#waiting.push(place);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }

  #fits(bytes: number): boolean {
    return this.#inUse === 0 || this.#inUse + bytes <= this.#bytesMax;
  }

  #admitWaiting(): void {
    for (let first = this.#waiting[0]; first !== undefined && this.#fits(first.bytes); first = this.#waiting[0]) {
      this.#waiting.shift();
      this.#inUse += first.bytes;
      first.admit();
    }
  }
}
