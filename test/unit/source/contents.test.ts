/** From a file's offset to its bytes: the chunk cache, the chunk tables, and what they do when something is wrong. */
import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import type { ChunkRef, ChunkStore } from '../../../src/core/chunk-store.ts';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { FileCosts } from '../../../src/core/file-costs.ts';
import { toHex } from '../../../src/core/mac.ts';
import { resourceTypes } from '../../../src/kloset/format.ts';
import { ChunkCache } from '../../../src/source/chunk-cache.ts';
import { FileReader } from '../../../src/source/file-reader.ts';
import { type OpenedStore, openStore } from '../../support/kloset.ts';
import { idOf, macOf, StoreWriter } from '../../support/store-writer.ts';

function chunkRef(seed: number, lengthBytes = 100, path = 'f'): ChunkRef {
  const file = { snapshotId: 'ab'.repeat(32), path: Buffer.from(path), chunks: [] };
  return { mac: idOf(seed), lengthBytes, file, indexInFile: 0 };
}

/** Answers when told to. */
class GatedChunks implements ChunkStore {
  readonly asked: { chunk: ChunkRef; answer: (plain: Uint8Array) => void; fail: (error: Error) => void }[] = [];
  closed = false;
  get(chunk: ChunkRef): Promise<Uint8Array> {
    return new Promise((answer, fail) => this.asked.push({ chunk, answer, fail }));
  }
  async close(): Promise<void> {
    this.closed = true;
  }
}

describe('the chunk cache', () => {
  it('fetches a chunk once, however many ask', async () => {
    const upstream = new GatedChunks();
    const cache = new ChunkCache(upstream, { bytesMax: 10_000 });
    const all = Array.from({ length: 50 }, () => cache.get(chunkRef(1)));
    expect(upstream.asked).toHaveLength(1);
    const plain = new Uint8Array(100);
    upstream.asked[0]!.answer(plain);
    expect(new Set(await Promise.all(all))).toEqual(new Set([plain]));
    expect(await cache.get(chunkRef(1))).toEqual(plain);
    expect(upstream.asked).toHaveLength(1);
  });

  it('has at once what it has, and nothing else', async () => {
    const upstream = new GatedChunks();
    const cache = new ChunkCache(upstream, { bytesMax: 10_000 });
    const target = new Uint8Array(3);
    expect(cache.readIntoNow(chunkRef(1), 0, target)).toBe(false);
    const getting = cache.get(chunkRef(1));
    expect([cache.readIntoNow(chunkRef(1), 0, target), upstream.asked.length]).toEqual([false, 1]);
    upstream.asked[0]!.answer(bytes(100, 1));
    await getting;
    expect(cache.readIntoNow(chunkRef(1), 50, target)).toBe(true);
    expect(target).toEqual(bytes(100, 1).subarray(50, 53));
    expect(cache.readIntoNow(chunkRef(1, 99), 0, target)).toBe(false);
    expect(cache.counters).toMatchObject({ hits: 1, diskHits: 0, misses: 1 });
  });

  it('keeps no error', async () => {
    const upstream = new GatedChunks();
    const cache = new ChunkCache(upstream, { bytesMax: 10_000 });
    const first = cache.get(chunkRef(1));
    upstream.asked[0]!.fail(new StoreUnavailableError('not now'));
    await expect(first).rejects.toThrow('not now');
    const second = cache.get(chunkRef(1));
    upstream.asked[1]!.answer(new Uint8Array(100));
    expect(await second).toHaveLength(100);
  });

  it('gives nobody a chunk of another length than its object says', async () => {
    const upstream = new GatedChunks();
    const cache = new ChunkCache(upstream, { bytesMax: 10_000 });
    const right = cache.get(chunkRef(1, 100));
    const wrong = cache.get(chunkRef(1, 200));
    expect(upstream.asked.map(({ chunk }) => chunk.lengthBytes)).toEqual([100, 200]);
    upstream.asked[1]!.fail(new CorruptStoreError('wrong length'));
    upstream.asked[0]!.answer(new Uint8Array(100));
    await expect(wrong).rejects.toThrow('wrong length');
    expect(await right).toHaveLength(100);
  });

  it('is bounded in bytes, drops the least recently used, and keeps none that is larger than it', async () => {
    const upstream: ChunkStore & { fetched: number[] } = {
      fetched: [],
      async get({ mac, lengthBytes }) {
        this.fetched.push(new DataView(mac.buffer).getUint32(28));
        return new Uint8Array(lengthBytes);
      },
      async close() {},
    };
    const cache = new ChunkCache(upstream, { bytesMax: 3 * (1000 + 512) });
    const get = async (chunk: ChunkRef) => {
      await cache.get(chunk);
      await setImmediate(); // It is kept one turn after it was given.
    };
    for (const seed of [1, 2, 3, 1, 4, 1, 3, 4]) await get(chunkRef(seed, 1000));
    expect(upstream.fetched).toEqual([1, 2, 3, 4]);
    await get(chunkRef(2, 1000));
    expect(upstream.fetched).toEqual([1, 2, 3, 4, 2]);
    for (let i = 0; i < 2; i++) await get(chunkRef(9, 100_000));
    expect(upstream.fetched).toEqual([1, 2, 3, 4, 2, 9, 9]);
  });

  it('closes when what is in flight has come', async () => {
    const upstream = new GatedChunks();
    const cache = new ChunkCache(upstream, { bytesMax: 10_000 });
    const reading = cache.get(chunkRef(1));
    const closing = cache.close();
    expect(upstream.closed).toBe(false);
    upstream.asked[0]!.answer(new Uint8Array(100));
    await closing;
    expect([upstream.closed, (await reading).byteLength]).toEqual([true, 100]);
  });
});

const snapshotId = 'cd'.repeat(32);
let opened: OpenedStore | undefined;
afterEach(async () => opened?.close());

/** A reader of one file whose object has that MAC. */
async function readerOf(store: StoreWriter, object: Uint8Array, sizeBytes: number, chunks?: ChunkStore) {
  opened = await openStore(await store.finish());
  const file = { path: Buffer.from('/dir/file'), object, sizeBytes };
  const { repository } = opened;
  const costs = new FileCosts();
  return new FileReader({ snapshotId, repository, chunks: chunks ?? opened.chunks, fileOf: () => file, costs });
}
const bytes = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 31) % 251);

describe('a file', () => {
  const parts = [bytes(5, 1), bytes(0, 0), bytes(1, 2), bytes(0, 0), bytes(9, 3), bytes(5, 1), bytes(0, 0)];
  const content = Buffer.concat(parts);

  it('gives every range right, whatever chunks it meets, those of no length among them', async () => {
    const store = new StoreWriter();
    const reader = await readerOf(store, store.object(parts), content.byteLength);
    for (let from = 0; from <= content.byteLength; from++) {
      for (let to = from; to <= content.byteLength; to++) {
        const target = new Uint8Array(to - from).fill(0xee);
        await reader.read(0, from, target);
        expect(Buffer.from(target), `${from}-${to}`).toEqual(content.subarray(from, to));
      }
    }
  });

  it('gives every range right at once when its chunks are in memory, and before that none', async () => {
    const store = new StoreWriter();
    const object = store.object(parts);
    opened = await openStore(await store.finish());
    const cache = new ChunkCache(opened.chunks, { bytesMax: 10_000 });
    const file = { path: Buffer.from('/dir/file'), object, sizeBytes: content.byteLength };
    const { repository } = opened;
    const costs = new FileCosts();
    const reader = new FileReader({
      costs,
      snapshotId,
      repository,
      chunks: cache,
      fileOf: () => file,
    });
    expect(reader.readNow(0, 0, new Uint8Array(1))).toBe(false);
    await reader.read(0, 0, new Uint8Array(5));
    expect([0, 4, 5].map((from) => reader.readNow(0, from, new Uint8Array(1)))).toEqual([true, true, false]);
    await reader.read(0, 0, new Uint8Array(content.byteLength));
    for (let from = 0; from <= content.byteLength; from++) {
      for (let to = from; to <= content.byteLength; to++) {
        const target = new Uint8Array(to - from).fill(0xee);
        expect(reader.readNow(0, from, target)).toBe(true);
        expect(Buffer.from(target), `${from}-${to}`).toEqual(content.subarray(from, to));
      }
    }
    const { requests } = costs.of(0);
    expect(reader.readNow(0, 0, new Uint8Array(1), 'unseen')).toBe(true);
    expect(costs.of(0).requests, 'no read of a client').toBe(requests);
    // Past its end there is nothing to give: `read` says so.
    expect(reader.readNow(0, 19, new Uint8Array(2))).toBe(false);
    await cache.close();
    expect(reader.readNow(0, 0, new Uint8Array(1))).toBe(false);
  });

  it('whose chunk is shorter than its object says is not given at once', async () => {
    const store = new StoreWriter();
    const short: ChunkStore = {
      get: async () => bytes(5, 1),
      readIntoNow: () => false,
      close: async () => {},
    };
    const reader = await readerOf(store, store.object([bytes(5, 1)]), 5, short);
    await reader.read(0, 0, new Uint8Array(5));
    expect(reader.readNow(0, 0, new Uint8Array(5))).toBe(false);
  });

  it.each([
    ['no chunk', []],
    ['one of no length', [new Uint8Array(0)]],
  ])('of no bytes, with %s, can be read', async (_, chunks) => {
    const store = new StoreWriter();
    const reader = await readerOf(store, store.object(chunks), 0);
    await reader.read(0, 0, new Uint8Array(0));
    await expect(reader.read(0, 0, new Uint8Array(1))).rejects.toThrow(/its chunks hold 0/);
  });

  it('that is recorded larger than its chunks fails where they end, and is named', async () => {
    const store = new StoreWriter();
    const reader = await readerOf(store, store.object(parts), 100);
    await reader.read(0, 0, new Uint8Array(content.byteLength));
    const error = await reader.read(0, 19, new Uint8Array(2)).catch((cause: unknown) => cause as CorruptStoreError);
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(String(error)).toContain(
      'Snapshot cdcdcdcd, file /dir/file: it is recorded with 100 bytes, its chunks hold 20',
    );
  });

  it('that is recorded smaller gives what is recorded', async () => {
    const store = new StoreWriter();
    const target = new Uint8Array(3);
    await (await readerOf(store, store.object(parts), 3)).read(0, 0, target);
    expect(Buffer.from(target)).toEqual(content.subarray(0, 3));
  });

  it('with a damaged chunk names snapshot, file, chunk and packfile, and the rest stays readable', async () => {
    const store = new StoreWriter();
    const object = store.object([bytes(500, 1), bytes(500, 2)]);
    const second = macOf(bytes(500, 2));
    const reader = await readerOf(store, object, 1000);
    store.onRead = (_, __, target) => {
      if (Buffer.compare(target, bytes(500, 2)) === 0) target[7]! ^= 4;
    };
    const error = await reader.read(0, 400, new Uint8Array(200)).catch((cause: unknown) => cause as CorruptStoreError);
    expect(error).toBeInstanceOf(CorruptStoreError);
    const { message, details } = error as CorruptStoreError;
    expect(message).toMatch(
      /^Snapshot cdcdcdcd, file \/dir\/file, chunk 1: chunk [0-9a-f]{64} in packfile [0-9a-f]{64} at byte \d+: its MAC/,
    );
    expect(details).toMatchObject({
      snapshot: snapshotId,
      file: '/dir/file',
      chunk: 1,
      mac: toHex(second),
      packfile: toHex(idOf(1)),
    });
    await reader.read(0, 0, new Uint8Array(500));
  });

  it('with an object that cannot be had is named, and read again the next time', async () => {
    const store = new StoreWriter();
    const reader = await readerOf(store, store.object(parts), content.byteLength);
    store.onRead = () => {
      throw new StoreUnavailableError('the net is down');
    };
    const error = await reader.read(0, 0, new Uint8Array(1)).catch((cause: unknown) => cause as StoreUnavailableError);
    expect(error).toBeInstanceOf(StoreUnavailableError);
    expect(String(error)).toMatch(/Snapshot cdcdcdcd, file \/dir\/file: object .*the net is down/);
    store.onRead = () => {};
    await reader.read(0, 0, new Uint8Array(1));
  });

  it('never fills a buffer with less than asked, were a chunk shorter than its object says', async () => {
    const store = new StoreWriter();
    const short: ChunkStore = { get: async () => bytes(4, 1), close: async () => {} };
    const reader = await readerOf(store, store.object([bytes(5, 1)]), 5, short);
    await expect(reader.read(0, 0, new Uint8Array(5))).rejects.toThrow(/chunk 0: it has 4 bytes instead of 5/);
  });

  it('writes to the buffer no more once it has failed', async () => {
    const store = new StoreWriter();
    const chunks = new GatedChunks();
    const reader = await readerOf(store, store.object([bytes(5, 1), bytes(5, 2)]), 10, chunks);
    const target = new Uint8Array(10);
    let failed = false;
    const reading = reader.read(0, 0, target).catch((error: unknown) => {
      failed = true;
      return error;
    });
    while (chunks.asked.length < 2) await setImmediate();
    chunks.asked[0]!.fail(new CorruptStoreError('bad'));
    await setImmediate();
    expect(failed).toBe(false); // The other chunk is still to come, and would be written.
    chunks.asked[1]!.answer(bytes(5, 2));
    expect(await reading).toBeInstanceOf(CorruptStoreError);
  });

  it('that shares a damaged chunk with another is named itself, too', async () => {
    const chunks: ChunkStore = {
      get: async () => {
        throw new CorruptStoreError('Snapshot cdcdcdcd, file other, chunk 4: bad', {
          details: { snapshot: snapshotId, file: 'other' },
        });
      },
      close: async () => {},
    };
    const store = new StoreWriter();
    const reader = await readerOf(store, store.object([bytes(5, 1)]), 5, chunks);
    await expect(reader.read(0, 0, new Uint8Array(5))).rejects.toThrow(
      /file \/dir\/file, chunk 0: .*file other, chunk 4: bad/,
    );
  });

  it('whose chunk table is larger than the whole cache reads it once', { timeout: 30_000 }, async () => {
    const store = new StoreWriter();
    const chunk = { contentMAC: store.blob(resourceTypes.chunk, bytes(1, 1)), length: 1 };
    const count = 360_000;
    const object = store.record(resourceTypes.object, { contentMAC: idOf(1), chunks: Array(count).fill(chunk) });
    const reader = await readerOf(store, object, count);
    const before = store.reads;
    for (const at of [0, 5, count - 1]) await reader.read(0, at, new Uint8Array(1));
    expect(store.reads - before).toBe(2); // The object, and the one chunk.
  });
});
