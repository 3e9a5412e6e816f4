/** Profiles: what is traced, what is kept of it, and which chunks of another snapshot that means. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { ChunkRef, ChunkStore } from '../../../src/core/chunk-store.ts';
import type { SnapshotHeader } from '../../../src/kloset/snapshot.ts';
import { readProfile, removeProfile, writeProfile } from '../../../src/warmup/profile.ts';
import { ReadTrace, type TracedChunk, traced } from '../../../src/warmup/read-trace.ts';
import { chunksOfProfile } from '../../../src/warmup/replay.ts';
import { cachedFiles, LogLines, storeCache } from '../../support/cache.ts';
import { makeTree } from '../../support/ext4-tree.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { treeOf } from '../../support/postgres-tree.ts';

const cleanup = cleanupAfterEach();
const LENGTH = 1000;

/** A file whose chunks' MACs are `macs` 32 times, each of LENGTH bytes. */
function chunksOfFile(path: string, macs: readonly number[]): ChunkRef[] {
  const chunks: ChunkRef[] = [];
  const file = { snapshotId: '00', path: Buffer.from(path), chunks };
  for (const [indexInFile, mac] of macs.entries()) {
    chunks.push({ mac: Buffer.alloc(32, mac), lengthBytes: LENGTH, file, indexInFile });
  }
  return chunks;
}

const tracedChunk = (path: string, mac: number, offset: number): TracedChunk => ({
  mac: new Uint8Array(32).fill(mac),
  lengthBytes: LENGTH,
  path: new Uint8Array(Buffer.from(path)),
  offset,
});

function headerOf(origin: string, directory = '/'): SnapshotHeader {
  return { importer: { type: 'fs', origin, directory: Buffer.from(directory) } } as unknown as SnapshotHeader;
}

describe('a trace', () => {
  test('has each chunk once, in the order of first reads, with its place in the file', () => {
    const [first, second, third] = chunksOfFile('/base/5/1', [1, 2, 3]);
    const [shared] = chunksOfFile('/base/1/1', [2]);
    const trace = new ReadTrace();
    for (const chunk of [third, second, third, shared, second, first]) trace.note(chunk!);
    expect(trace.list()).toEqual(
      [
        tracedChunk('/base/5/1', 3, 2 * LENGTH),
        tracedChunk('/base/5/1', 2, LENGTH),
        tracedChunk('/base/5/1', 1, 0),
      ].map((chunk) => ({ ...chunk, mac: Buffer.from(chunk.mac), path: Buffer.from(chunk.path) })),
    );
  });

  test('is bounded, and begins anew', () => {
    const chunks = chunksOfFile('/f', [1, 2, 3]);
    const trace = new ReadTrace({ chunksMax: 2 });
    for (const chunk of chunks) trace.note(chunk);
    expect(trace.list().map(({ mac }) => mac[0])).toEqual([1, 2]);
    trace.clear();
    for (const chunk of chunks.slice(1)) trace.note(chunk);
    expect(trace.list().map(({ mac }) => mac[0])).toEqual([2, 3]);
  });

  test("takes clients' reads, whichever way they come, and nothing else", async () => {
    const chunks = chunksOfFile('/f', [1, 2, 3, 4, 5]);
    const all: Required<Omit<ChunkStore, 'giveBack' | 'decode'>> = {
      get: async () => new Uint8Array(LENGTH),
      readIntoNow: () => false,
      readInto: async () => {},
      prefetch: async () => true,
      close: async () => {},
    };
    const trace = new ReadTrace();
    const store = traced(all, trace);
    await store.get(chunks[0]!);
    await store.get(chunks[1]!, { purpose: 'warm-up' });
    store.readIntoNow!(chunks[2]!, 0, new Uint8Array(1));
    store.readIntoNow!(chunks[4]!, 0, new Uint8Array(1), 'unseen');
    await store.readInto!(chunks[3]!, 0, new Uint8Array(1));
    await store.prefetch!(chunks[4]!, { purpose: 'profile' });
    expect(trace.list().map(({ mac }) => mac[0])).toEqual([1, 3, 4]);
    expect(traced({ get: all.get, close: all.close }, trace)).not.toHaveProperty('readIntoNow');
  });
});

describe.each([false, true])('a kept profile (encrypted: %s)', (isEncrypted) => {
  const profile = {
    snapshotId: 'ab'.repeat(32),
    recordedMs: 1_700_000_000_000,
    chunks: [tracedChunk('/base/5/1', 3, 5_000_000_000), tracedChunk('/a\nb', 1, 0), tracedChunk('/base/5/1', 2, 0)],
  };

  test('is found again for every snapshot of its source, and for no other', async () => {
    const cache = await storeCache(temporaryFolder(cleanup), { isEncrypted });
    expect(await writeProfile(cache, headerOf('db1'), profile)).toBe(true);
    expect(await readProfile(cache, headerOf('db1'))).toEqual(profile);
    for (const other of [headerOf('db2'), headerOf('db1', '/srv')])
      expect(await readProfile(cache, other)).toBeUndefined();
    await removeProfile(cache, headerOf('db1'));
    expect(await readProfile(cache, headerOf('db1'))).toBeUndefined();
  });

  test('is dropped where it is damaged or cut off, and the log says so', async () => {
    const directory = temporaryFolder(cleanup);
    const log = new LogLines();
    const cache = await storeCache(directory, { isEncrypted, log });
    const damage: ((path: string) => void)[] = [
      (path) => {
        const bytes = readFileSync(path);
        bytes[bytes.length >> 1]! ^= 1;
        writeFileSync(path, bytes);
      },
      (path) => truncateSync(path, 100),
    ];
    for (const [i, spoil] of damage.entries()) {
      await writeProfile(cache, headerOf('db1'), profile);
      for (const path of cachedFiles(directory)) spoil(path);
      expect(await readProfile(cache, headerOf('db1'))).toBeUndefined();
      expect(log.warnings).toHaveLength(i + 1);
      expect(cachedFiles(directory)).toEqual([]);
    }
  });
});

describe('a profile in a later snapshot', () => {
  const files: Readonly<Record<string, readonly number[]>> = {
    'base/5/1': [1, 22, 3, 4],
    'base/5/2': [11, 5, 6],
  };
  const tree = makeTree(
    treeOf(Object.fromEntries(Object.entries(files).map(([path, { length }]) => [path, length * LENGTH]))),
  );
  const paths = ['base/5/1', 'base/5/2'];
  const base = tree.length - paths.length;
  const source = {
    tree,
    root: '/srv',
    async chunksOf(entry: number, from = 0, to = Number.POSITIVE_INFINITY) {
      const path = paths[entry - base]!;
      return chunksOfFile(`/srv/${path}`, files[path]!).slice(Math.floor(from / LENGTH), Math.ceil(to / LENGTH));
    },
  };
  const replayed = async (...chunks: TracedChunk[]) => {
    const found: number[] = [];
    const damage: unknown[] = [];
    for await (const { mac } of chunksOfProfile(source, { chunks }, (error) => damage.push(error))) found.push(mac[0]!);
    return { found, damage };
  };

  test('means the same chunks where they are unchanged, in its order', async () => {
    const { found } = await replayed(
      tracedChunk('/srv/base/5/1', 4, 3 * LENGTH),
      tracedChunk('/srv/base/5/2', 11, 0),
      tracedChunk('/srv/base/5/1', 1, 0),
    );
    expect(found).toEqual([4, 11, 1]);
  });

  test('means what is now in the place of a changed one, and follows one that has moved in its file', async () => {
    const changed = tracedChunk('/srv/base/5/1', 2, LENGTH);
    const moved = tracedChunk('/srv/base/5/2', 5, 0);
    expect((await replayed(changed, moved)).found).toEqual([22, 5]);
    // Its place may now lie in two.
    expect((await replayed({ ...changed, offset: LENGTH / 2 })).found).toEqual([1, 22]);
  });

  test('passes over files that are gone, ends of files, and what lies outside the root', async () => {
    const { found, damage } = await replayed(
      tracedChunk('/srv/base/5/9', 1, 0),
      tracedChunk('/srv/base/5', 1, 0),
      tracedChunk('/base/5/1', 1, 0),
      tracedChunk('/srv/base/5/1', 9, 400 * LENGTH),
      tracedChunk('/srv/base/5/1', 3, 2 * LENGTH),
    );
    expect({ found, damage }).toEqual({ found: [3], damage: [] });
  });

  test('tells of files whose chunks are not known, and goes on', async () => {
    const failing = { ...source, chunksOf: async () => Promise.reject(new Error('no table')) };
    const damage: unknown[] = [];
    const chunks = [tracedChunk('/srv/base/5/1', 1, 0), tracedChunk('/srv/base/5/2', 5, 0)];
    for await (const _ of chunksOfProfile(failing, { chunks }, (error) => damage.push(error))) expect.unreachable();
    expect(damage).toHaveLength(2);
  });
});
