/** Chunks fetched before anybody asks: in which order, how many at once, and how it ends. */
import { describe, expect, it } from 'vitest';
import type { ChunkOptions, ChunkRef, ChunkStore } from '../../../src/core/chunk-store.ts';
import { newReadCounters } from '../../../src/core/counters.ts';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { orStopped } from '../../../src/core/stop.ts';
import { Prefetcher } from '../../../src/source/prefetcher.ts';

/** Lets everything run that waits for nothing but its turn. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

function chunksOf(name: string, count: number, lengthBytes = 10): ChunkRef[] {
  const chunks: ChunkRef[] = [];
  const file = { snapshotId: '', path: Buffer.from(name), chunks };
  for (let i = 0; i < count; i++) chunks.push({ mac: new Uint8Array(32), lengthBytes, file, indexInFile: i });
  return chunks;
}

const nameOf = ({ file, indexInFile }: ChunkRef) => `${Buffer.from(file.path)}${indexInFile}`;

/** A store whose fetches end when the test says so. */
class HeldStore implements ChunkStore {
  readonly there = new Set<ChunkRef>();
  readonly begun: string[] = [];
  readonly #held = new Map<string, { resolve(fetched: boolean): void; reject(error: Error): void }>();

  get(): Promise<Uint8Array> {
    throw new Error('not asked for');
  }

  prefetch(chunk: ChunkRef, { signal }: ChunkOptions): Promise<boolean> {
    if (this.there.has(chunk)) return Promise.resolve(false);
    this.begun.push(nameOf(chunk));
    const held = new Promise<boolean>((resolve, reject) => {
      this.#held.set(nameOf(chunk), { resolve, reject });
    });
    return orStopped(held, signal);
  }

  get underWay(): string[] {
    return [...this.#held.keys()];
  }

  async finish(name: string, error?: Error): Promise<void> {
    const held = this.#held.get(name)!;
    this.#held.delete(name);
    if (error === undefined) held.resolve(true);
    else held.reject(error);
    await turn();
  }

  /** Everything that is under way and what follows it. */
  async finishAll(): Promise<void> {
    await turn();
    while (this.#held.size > 0) await this.finish(this.underWay[0]!);
  }

  async close(): Promise<void> {}
}

function setUp(limits: { chunksInFlightMax?: number; bytesInFlightMax?: number; keptBytesMax?: number } = {}) {
  const chunks = new HeldStore();
  const counters = newReadCounters();
  return { chunks, counters, prefetcher: new Prefetcher({ chunks, counters, keptBytesMax: 1000, ...limits }) };
}

describe('fetching ahead', () => {
  it('goes in order, with so many chunks and so many bytes at once', async () => {
    const { chunks, prefetcher } = setUp({ chunksInFlightMax: 3, bytesInFlightMax: 25 });
    const large = prefetcher.fetch(chunksOf('large', 4), { purpose: 'prefetch' });
    await turn();
    // The third makes 30 bytes: one chunk too many is the price for not looking ahead.
    expect(chunks.begun).toEqual(['large0', 'large1', 'large2']);
    await chunks.finish('large1');
    expect(chunks.begun.at(-1)).toBe('large3');
    await chunks.finishAll();
    expect(await large).toEqual({ fetched: 4, alreadyThere: 0, failed: 0, bytes: 40 });
    const small = prefetcher.fetch(chunksOf('small', 9, 1), { purpose: 'prefetch' });
    await turn();
    expect(chunks.underWay).toHaveLength(3);
    await chunks.finishAll();
    expect(await small).toMatchObject({ fetched: 9 });
  });

  it('serves read-ahead before what was named, and that before profiles and warming up; equals take turns', async () => {
    const { chunks, prefetcher } = setUp({ chunksInFlightMax: 1 });
    const jobs = [
      prefetcher.fetch(chunksOf('w', 2), { purpose: 'warm-up' }),
      prefetcher.fetch(chunksOf('f', 1), { purpose: 'profile' }),
      prefetcher.fetch(chunksOf('p', 1), { purpose: 'prefetch' }),
      prefetcher.fetch(chunksOf('a', 2), { purpose: 'read-ahead' }),
      prefetcher.fetch(chunksOf('b', 2), { purpose: 'read-ahead' }),
    ];
    await chunks.finishAll();
    await Promise.all(jobs);
    // The first had begun when nothing else was there.
    expect(chunks.begun).toEqual(['w0', 'a0', 'b0', 'a1', 'b1', 'p0', 'f0', 'w1']);
  });

  it('asks for nothing that is there, and does not count it', async () => {
    const { chunks, prefetcher, counters } = setUp();
    const wanted = chunksOf('a', 4);
    chunks.there.add(wanted[0]!).add(wanted[2]!);
    const done = prefetcher.fetch(wanted, { purpose: 'prefetch', bytesMax: 20 });
    await chunks.finishAll();
    expect(await done).toEqual({ fetched: 2, alreadyThere: 2, failed: 0, bytes: 20 });
    expect(counters).toMatchObject({ aheadChunks: 2, aheadBytes: 20 });
  });

  it('ends at its bytes', async () => {
    const { chunks, prefetcher } = setUp();
    let asked = 0;
    let hasLeft = false;
    async function* endless() {
      try {
        for (;;) yield chunksOf(`${asked++}-`, 1)[0]!;
      } finally {
        hasLeft = true;
      }
    }
    const done = prefetcher.fetch(endless(), { purpose: 'warm-up', bytesMax: 50 });
    await chunks.finishAll();
    expect(await done).toMatchObject({ fetched: 5, bytes: 50 });
    expect([asked, hasLeft]).toEqual([5, true]);
  });

  it('stops at a signal, and when it is closed', async () => {
    const { chunks, prefetcher, counters } = setUp({ chunksInFlightMax: 2 });
    const stop = new AbortController();
    const stopped = prefetcher.fetch(chunksOf('a', 9), { purpose: 'prefetch', signal: stop.signal });
    await turn();
    await chunks.finish('a0');
    stop.abort();
    expect(await stopped).toEqual({ fetched: 1, alreadyThere: 0, failed: 0, bytes: 10 });
    expect(chunks.begun).toEqual(['a0', 'a1', 'a2']);
    const closed = prefetcher.fetch(chunksOf('b', 9), { purpose: 'prefetch' });
    await turn();
    await prefetcher.close();
    expect(await closed).toMatchObject({ fetched: 0, failed: 0 });
    expect(await prefetcher.fetch(chunksOf('c', 9), { purpose: 'prefetch' })).toMatchObject({ fetched: 0 });
    expect(counters.aheadFailed).toBe(0);
    expect(chunks.begun.filter((name) => name.startsWith('c'))).toEqual([]);
  });

  it('swallows damage and goes on, but leaves a store alone that is away', async () => {
    const { chunks, prefetcher, counters } = setUp({ chunksInFlightMax: 1 });
    const done = prefetcher.fetch(chunksOf('a', 9), { purpose: 'prefetch' });
    await turn();
    await chunks.finish('a0', new CorruptStoreError('flipped'));
    await chunks.finish('a1');
    await chunks.finish('a2', new StoreUnavailableError('gone'));
    expect(await done).toEqual({ fetched: 1, alreadyThere: 0, failed: 2, bytes: 10 });
    expect(counters.aheadFailed).toBe(2);
  });

  it('passes on what the list of chunks itself says', async () => {
    const { chunks, prefetcher } = setUp();
    async function* broken() {
      yield chunksOf('a', 1)[0]!;
      throw new CorruptStoreError('no table');
    }
    const done = prefetcher.fetch(broken(), { purpose: 'prefetch' });
    done.catch(() => undefined);
    await chunks.finishAll();
    await expect(done).rejects.toThrow('no table');
  });

  it('counts what was used and what was not before its place was needed', async () => {
    const { chunks, prefetcher, counters } = setUp({ keptBytesMax: 30 });
    const wanted = chunksOf('a', 5);
    const dropped: string[] = [];
    const onDropped = (chunk: ChunkRef) => dropped.push(nameOf(chunk));
    const first = prefetcher.fetch(wanted.slice(0, 3), { purpose: 'prefetch', onDropped });
    await chunks.finishAll();
    await first;
    expect(prefetcher.ledger.use(wanted[1]!)).toBe(true);
    expect(prefetcher.ledger.use(wanted[1]!)).toBe(false);
    expect(prefetcher.ledger.use(wanted[4]!)).toBe(false);
    const second = prefetcher.fetch(wanted.slice(3), { purpose: 'prefetch', onDropped });
    await chunks.finishAll();
    await second;
    expect(dropped).toEqual(['a0']);
    expect(counters).toMatchObject({ aheadChunks: 5, aheadUsedChunks: 1, aheadUsedBytes: 10 });
    expect(counters).toMatchObject({ aheadDroppedChunks: 1, aheadDroppedBytes: 10 });
  });
});
