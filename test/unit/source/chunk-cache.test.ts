/** Who waits for a chunk: as long as somebody does it is fetched, once; when nobody does any more that stops. */
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { ChunkDisk, ChunkForm } from '../../../src/cache/chunk-disk.ts';
import type { ChunkOptions, ChunkRef, ChunkStore } from '../../../src/core/chunk-store.ts';
import { ByteBudget } from '../../../src/core/concurrency.ts';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { orStopped, StoppedError } from '../../../src/core/stop.ts';
import { ChunkCache } from '../../../src/source/chunk-cache.ts';
import { SEGMENT_BYTES } from '../../../src/source/limits.ts';

const chunk: ChunkRef = {
  mac: new Uint8Array(32),
  lengthBytes: 3,
  indexInFile: 0,
  file: { snapshotId: '', path: new Uint8Array(0), chunks: [] },
};
const plain = new Uint8Array([1, 2, 3]);

/** An upstream whose fetches end when the test says so, or when they are stopped. */
class HeldStore implements ChunkStore {
  readonly fetches: { readonly signal: AbortSignal; arrive(): void; finish(): void }[] = [];

  get(_chunk: ChunkRef, { signal, onFetched }: ChunkOptions = {}): Promise<Uint8Array> {
    const held = new Promise<Uint8Array>((resolve) => {
      this.fetches.push({ signal: signal!, arrive: () => onFetched!(), finish: () => resolve(plain) });
    });
    return orStopped(held, signal);
  }

  async close(): Promise<void> {}
}

describe('a chunk that several wait for', () => {
  it('is fetched on for those who stay, and stopped when the last has gone', async () => {
    const upstream = new HeldStore();
    const cache = new ChunkCache(upstream, { bytesMax: 1000 });
    const stops = [new AbortController(), new AbortController()];
    const reads = stops.map(({ signal }) => cache.get(chunk, { signal }).catch((error: unknown) => error));
    expect(upstream.fetches).toHaveLength(1);
    stops[0]!.abort(new StoppedError('first'));
    expect(await reads[0]).toMatchObject({ code: 'STOPPED', message: 'first' });
    expect(upstream.fetches[0]!.signal.aborted).toBe(false);
    stops[1]!.abort(new StoppedError('second'));
    expect(await reads[1]).toMatchObject({ message: 'second' });
    expect(upstream.fetches[0]!.signal.aborted).toBe(true);
    // The next one begins anew, and is not told of the fetch that was stopped.
    const next = cache.get(chunk);
    expect(upstream.fetches).toHaveLength(2);
    upstream.fetches[1]!.finish();
    expect(await next).toBe(plain);
    expect(await cache.get(chunk)).toEqual(plain);
    expect(upstream.fetches).toHaveLength(2);
    await cache.close();
  });

  it('is decoded and kept once its bytes have come, also if nobody waits any more', async () => {
    const upstream = new HeldStore();
    const cache = new ChunkCache(upstream, { bytesMax: 1000 });
    const stop = new AbortController();
    const leaving = cache.get(chunk, { purpose: 'read-ahead', signal: stop.signal });
    upstream.fetches[0]!.arrive();
    stop.abort(new StoppedError('gone'));
    await expect(leaving).rejects.toThrow('gone');
    expect(upstream.fetches[0]!.signal.aborted).toBe(false);
    const next = cache.get(chunk);
    upstream.fetches[0]!.finish();
    expect(await next).toBe(plain);
    expect(upstream.fetches).toHaveLength(1);
    await cache.close();
  });

  it('is never stopped for one who cannot stop', async () => {
    const upstream = new HeldStore();
    const cache = new ChunkCache(upstream, { bytesMax: 1000 });
    const stop = new AbortController();
    const staying = cache.get(chunk);
    const leaving = cache.get(chunk, { signal: stop.signal });
    stop.abort(new StoppedError('gone'));
    await expect(leaving).rejects.toThrow('gone');
    expect(upstream.fetches[0]!.signal.aborted).toBe(false);
    upstream.fetches[0]!.finish();
    expect(await staying).toBe(plain);
    expect(upstream.fetches[0]!.signal.aborted).toBe(false);
    await expect(cache.get({ ...chunk, lengthBytes: 4 }, { signal: stop.signal })).rejects.toThrow('gone');
    expect(upstream.fetches).toHaveLength(1);
    await cache.close();
  });
});

describe('memory that is used again', () => {
  it('is given back when nobody needs it, and never to those who keep what they have got', async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(3));
    shared.set(plain);
    const givenBack: Uint8Array[] = [];
    const upstream: ChunkStore = {
      get: async () => shared,
      giveBack: (bytes) => void givenBack.push(bytes),
      close: async () => {},
    };
    const cache = new ChunkCache(upstream, { bytesMax: 1000 });
    const got = await cache.get(chunk);
    await setImmediate();
    await cache.readInto(chunk, 0, new Uint8Array(3));
    await setImmediate();
    expect(givenBack).toEqual([shared]);
    shared.fill(9);
    expect(got).toEqual(plain);
    await cache.close();
  });
});

describe('a chunk that has come', () => {
  it('is there for others in the same turn, and is fetched once', async () => {
    const upstream = new HeldStore();
    const cache = new ChunkCache(upstream, { bytesMax: 1000 });
    const target = new Uint8Array(2);
    const reading = cache.readInto(chunk, 1, target);
    upstream.fetches[0]!.finish();
    await reading;
    expect([...target]).toEqual([2, 3]);
    expect(cache.readIntoNow(chunk, 0, target)).toBe(true);
    expect([...target]).toEqual([1, 2]);
    await Promise.all([cache.readInto(chunk, 0, target), cache.get(chunk)]);
    await setImmediate();
    expect(cache.readIntoNow(chunk, 0, target)).toBe(true);
    expect(upstream.fetches).toHaveLength(1);
    await cache.close();
  });

  it('is not fetched again by a guess that looked for it on disk meanwhile', async () => {
    const upstream = new HeldStore();
    let looked = (_isThere: boolean) => {};
    // Takes nothing, as one that is busy.
    const disk = {
      generation: 0,
      pending: () => undefined,
      isMissing: () => false,
      has: () => new Promise<boolean>((resolve) => (looked = resolve)),
      readSegment: async () => false,
      hasRoomFor: () => false,
      dropped: () => {},
      close: async () => {},
    } as unknown as ChunkDisk;
    const cache = new ChunkCache(upstream, { bytesMax: 1000, disk });
    const guess = cache.prefetch(chunk, { purpose: 'warm-up' });
    const reading = cache.readInto(chunk, 0, new Uint8Array(3));
    while (upstream.fetches.length === 0) await setImmediate();
    upstream.fetches[0]!.finish();
    await reading;
    await setImmediate();
    looked(false);
    expect(await guess).toBe(false);
    expect(upstream.fetches).toHaveLength(1);
    await cache.close();
  });
});

it('chunks that a busy disk did not take go to it before those that came later', async () => {
  const offered: number[] = [];
  let room = 0;
  const disk = {
    generation: 0,
    pending: () => undefined,
    isMissing: () => true,
    hasRoomFor: () => room > 0,
    offer: async ({ lengthBytes }: ChunkRef) => {
      room--;
      offered.push(lengthBytes);
    },
    dropped: () => {},
    close: async () => {},
  } as unknown as ChunkDisk;
  const upstream: ChunkStore = {
    get: async ({ lengthBytes }) => new Uint8Array(lengthBytes),
    close: async () => {},
  };
  const cache = new ChunkCache(upstream, { bytesMax: 10_000, disk });
  const read = async (lengthBytes: number) => {
    await cache.readInto({ ...chunk, lengthBytes }, 0, new Uint8Array(1));
    await setImmediate();
  };
  await read(1);
  await read(2);
  room = 2;
  await read(3);
  expect(offered).toEqual([1, 2]);
  room = 1;
  await read(4);
  expect(offered).toEqual([1, 2, 3]);
  await cache.close();
});

it('chunks that a busy disk did not take go to it once it has taken the stored bytes of another', async () => {
  const long = { ...chunk, lengthBytes: 2 * SEGMENT_BYTES };
  const offered: string[] = [];
  let hasRoom = false;
  const disk = {
    generation: 0,
    pending: () => undefined,
    isMissing: () => true,
    hasRoomFor: () => hasRoom,
    offer: async ({ lengthBytes }: ChunkRef) => void offered.push(`decoded ${lengthBytes}`),
    offerStored: async (_: ChunkRef, stored: Uint8Array) => void offered.push(`stored ${stored}`),
    close: async () => {},
  } as unknown as ChunkDisk;
  const upstream: ChunkStore = {
    get: async ({ lengthBytes }, options) => {
      await setImmediate();
      void options!.onSound!(new Uint8Array([7]));
      return new Uint8Array(lengthBytes);
    },
    close: async () => {},
  };
  const cache = new ChunkCache(upstream, { bytesMax: 10 * SEGMENT_BYTES, disk });
  await cache.readInto({ ...chunk, lengthBytes: 5 }, 0, new Uint8Array(1));
  expect(offered).toEqual([]);
  hasRoom = true;
  await cache.readInto(long, 0, new Uint8Array(1), { isInSequence: true });
  await setImmediate();
  expect(offered).toEqual(['stored 7', 'decoded 5']);
  await cache.close();
});

it('what is within reach is read from a prompt disk in the same turn, once', async () => {
  const long = { ...chunk, lengthBytes: 3 * SEGMENT_BYTES };
  const read: number[] = [];
  let isPrompt = true;
  const disk = {
    generation: 0,
    pending: () => undefined,
    isMissing: () => false,
    readSegmentNow: (_: ChunkRef, index: number, target: Uint8Array) => {
      read.push(index);
      target.fill(index + 1);
      return isPrompt;
    },
    close: async () => {},
  } as unknown as ChunkDisk;
  const cache = new ChunkCache(new HeldStore(), { bytesMax: 10 * SEGMENT_BYTES, disk });
  // Across the border of two segments; the second time they come from memory.
  for (let round = 0; round < 2; round++) {
    const target = new Uint8Array(10);
    if (round === 0) expect(cache.readIntoNow(long, SEGMENT_BYTES - 4, target)).toBe(false); // Memory alone.
    expect(cache.readIntoNow(long, SEGMENT_BYTES - 4, target, 'disk')).toBe(true);
    expect([...target]).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    expect(read).toEqual([0, 1]);
  }
  expect(cache.counters).toMatchObject({ diskHits: 1, hits: 1 });
  expect(cache.readIntoNow(long, 0, new Uint8Array(2 * SEGMENT_BYTES))).toBe(true); // In memory by now.
  isPrompt = false;
  expect(cache.readIntoNow(long, 2 * SEGMENT_BYTES, new Uint8Array(1), 'disk')).toBe(false);
  expect(cache.counters.diskHits).toBe(1);
  await cache.close();
});

describe('a chunk of which the disk has the stored bytes', () => {
  const long = { ...chunk, lengthBytes: 3 * SEGMENT_BYTES };
  const stored = new Uint8Array([7, 7]);

  /** A disk that has and takes stored bytes, over an upstream that decodes them as the test says. */
  function tiers({ has, decode }: { has: boolean; decode?: () => Promise<Uint8Array> }) {
    const calls: string[] = [];
    const disk = {
      generation: 0,
      fetched: () => {},
      pending: () => undefined,
      isMissing: (_: ChunkRef, form?: ChunkForm) => form !== 'stored' || !has,
      has: async () => false,
      hasRoomFor: () => true,
      offer: async () => void calls.push('keeps decoded'),
      offerStored: async (_: ChunkRef, bytes: Uint8Array) => void calls.push(`keeps stored ${bytes}`),
      readStored: async () => stored,
      rejectStored: async () => void calls.push('rejects'),
      close: async () => {},
    } as unknown as ChunkDisk;
    const upstream: ChunkStore = {
      get: async ({ lengthBytes }, options) => {
        calls.push('fetches');
        await setImmediate();
        options!.onFetched!();
        await setImmediate();
        void options!.onSound!(stored);
        return new Uint8Array(lengthBytes).fill(1);
      },
      decode: async ({ lengthBytes }, bytes) => {
        calls.push(`decodes ${bytes}`);
        return decode?.() ?? new Uint8Array(lengthBytes).fill(1);
      },
      close: async () => {},
    };
    return { calls, cache: new ChunkCache(upstream, { bytesMax: 10 * SEGMENT_BYTES, disk }) };
  }

  it.each([
    ['who reads it in sequence', long, { isInSequence: true }, ['fetches', 'keeps stored 7,7']],
    ['what is read ahead', long, { purpose: 'read-ahead' }, ['fetches', 'keeps stored 7,7']],
    ['who reads a page', long, {}, ['fetches', 'keeps decoded']],
    ['who warms up', long, { purpose: 'warm-up' }, ['fetches', 'keeps decoded']],
    [
      'one that is read as a whole',
      { ...long, lengthBytes: SEGMENT_BYTES },
      { isInSequence: true },
      ['fetches', 'keeps decoded'],
    ],
  ] as const)('leaves them there for %s, and else is decoded', async (_, ref, options, expected) => {
    const { calls, cache } = tiers({ has: false });
    const target = new Uint8Array(10);
    await cache.readInto(ref, 5, target, options);
    await cache.close();
    expect([calls, target]).toEqual([expected, new Uint8Array(10).fill(1)]);
  });

  it('is kept decoded, too, if one who reads a page joins', async () => {
    const { calls, cache } = tiers({ has: false });
    await Promise.all([
      cache.readInto(long, 0, new Uint8Array(1), { isInSequence: true }),
      cache.readInto(long, 9, new Uint8Array(1)),
    ]);
    await cache.close();
    expect(calls).toEqual(['fetches', 'keeps decoded']);
  });

  it('is decoded without a fetch, and kept decoded for who reads a page', async () => {
    for (const isInSequence of [true, false]) {
      const { calls, cache } = tiers({ has: true });
      const target = new Uint8Array(10);
      await cache.readInto(long, 5, target, { isInSequence });
      expect(target).toEqual(new Uint8Array(10).fill(1));
      expect(cache.counters).toMatchObject({ diskHits: 1, misses: 0 });
      await cache.close();
      expect(calls).toEqual(['decodes 7,7', ...(isInSequence ? [] : ['keeps decoded'])]);
    }
  });

  it('is read ahead, since decoding takes its time', async () => {
    const { calls, cache } = tiers({ has: true });
    expect(await cache.prefetch(long, { purpose: 'read-ahead' })).toBe(true);
    expect(cache.readIntoNow(long, 0, new Uint8Array(1))).toBe(true);
    await cache.close();
    expect(calls).toEqual(['decodes 7,7']);
  });

  it('is fetched where they are damaged, and fails where it cannot be decoded at all', async () => {
    const damaged = tiers({ has: true, decode: () => Promise.reject(new CorruptStoreError('another MAC')) });
    await damaged.cache.readInto(long, 0, new Uint8Array(1), { isInSequence: true });
    expect(damaged.calls).toEqual(['decodes 7,7', 'rejects', 'fetches', 'keeps stored 7,7']);
    expect(damaged.cache.counters).toMatchObject({ diskHits: 0, misses: 1 });
    await damaged.cache.close();
    const dying = tiers({ has: true, decode: () => Promise.reject(new StoreUnavailableError('a thread died')) });
    await expect(dying.cache.readInto(long, 0, new Uint8Array(1))).rejects.toThrow('a thread died');
    expect(dying.calls).toEqual(['decodes 7,7']);
    await dying.cache.close();
  });
});

it('whoever stops waiting for room leaves the queue to those behind', async () => {
  const budget = new ByteBudget(10);
  let finish = () => {};
  const first = budget.with(6, () => new Promise<void>((resolve) => (finish = resolve)));
  const stop = new AbortController();
  const large = budget.with(9, async () => 'large', { signal: stop.signal });
  const small = budget.with(4, async () => 'small');
  stop.abort(new StoppedError('no more'));
  await expect(large).rejects.toThrow('no more');
  // It fits beside the first: only the large one stood before it.
  expect(await small).toBe('small');
  finish();
  await first;
  expect(budget.bytesInUse).toBe(0);
});
