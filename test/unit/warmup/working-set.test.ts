/** The working set: what was read again or as single pages is in memory again after a restart, and nothing else. */
import { createSecretKey } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { ChunkDisk } from '../../../src/cache/chunk-disk.ts';
import type { ChunkRef, ChunkStore } from '../../../src/core/chunk-store.ts';
import { newCacheCounters } from '../../../src/core/counters.ts';
import { StoppedError } from '../../../src/core/stop.ts';
import { MiB } from '../../../src/core/units.ts';
import { ChunkCache } from '../../../src/source/chunk-cache.ts';
import { SEGMENT_BYTES } from '../../../src/source/limits.ts';
import { WORKING_SET_SAVE_MS } from '../../../src/warmup/limits.ts';
import { WorkingSet } from '../../../src/warmup/working-set.ts';
import { cachedFiles, LogLines, storeCache, writerHere } from '../../support/cache.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { idOf } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();
const PAGE = 8192;
/** The last segment is a short one. */
const LENGTH = 3 * SEGMENT_BYTES + 2 * PAGE;
const byteOf = (seed: number, at: number) => (at * 7 + seed * 31) % 251;

function chunkOf(seed: number): ChunkRef {
  const file = { snapshotId: '00', path: Buffer.from('/f'), chunks: [] };
  return { mac: idOf(seed), lengthBytes: LENGTH, file, indexInFile: 0 };
}

/** A server's cache of chunks in `directory`, all of which have a seed below 100. */
async function open(
  directory: string,
  {
    bytesMax = 64 * MiB,
    isRecalled = true,
    read,
  }: { bytesMax?: number; isRecalled?: boolean; read?: () => Promise<boolean> } = {},
) {
  const settings = {
    directory: join(directory, 'chunks'),
    bytesMax: 100 * MiB,
    key: createSecretKey(Buffer.alloc(32, 1)),
    isEncrypted: true,
  };
  const writer = { ...writerHere(settings), ...(read && { read }) };
  const log = new LogLines();
  const disk = await ChunkDisk.open({ settings, writer, counters: newCacheCounters(), log });
  const seeds = new Map(Array.from({ length: 100 }, (_, seed) => [Buffer.from(idOf(seed)).toString('hex'), seed]));
  let fetched = 0;
  const upstream: ChunkStore = {
    get: async ({ mac }) => {
      fetched++;
      const seed = seeds.get(Buffer.from(mac).toString('hex'))!;
      return Uint8Array.from({ length: LENGTH }, (_, at) => byteOf(seed, at));
    },
    close: async () => {},
  };
  const chunks = new ChunkCache(upstream, { bytesMax, disk });
  const cache = await storeCache(directory, { log });
  const workingSet = new WorkingSet(chunks, cache, { isRecalled });
  const isInMemory = (seed: number, offset: number) => {
    const page = new Uint8Array(PAGE);
    const isThere = chunks.readIntoNow(chunkOf(seed), offset, page, 'memory');
    if (isThere) expect(page.every((byte, i) => byte === byteOf(seed, offset + i))).toBe(true);
    return isThere;
  };
  return {
    workingSet,
    isInMemory,
    log,
    chunks,
    read: (seed: number, offset: number, length = PAGE) =>
      chunks.readInto(chunkOf(seed), offset, new Uint8Array(length)),
    get fetched() {
      return fetched;
    },
    close: async () => {
      await workingSet.close();
      await chunks.close();
    },
  };
}

/** A server that has read three pages of two chunks, and a third one from beginning to end. */
async function leaveWorkingSet(directory: string): Promise<void> {
  const server = await open(directory, { isRecalled: false });
  await server.read(1, SEGMENT_BYTES);
  await server.read(2, 0);
  await server.read(2, 3 * SEGMENT_BYTES);
  await server.read(3, 0, LENGTH);
  await server.close();
}

test('what was read by pages is in memory after a restart, without the store; a scan is not', async () => {
  const directory = temporaryFolder(cleanup);
  await leaveWorkingSet(directory);
  const server = await open(directory);
  expect(await server.workingSet.recall({})).toBe(2 * SEGMENT_BYTES + 2 * PAGE);
  const pages = [
    [1, SEGMENT_BYTES],
    [2, 0],
    [2, 3 * SEGMENT_BYTES],
  ] as const;
  for (const [seed, offset] of pages) expect(server.isInMemory(seed, offset)).toBe(true);
  expect([server.isInMemory(1, 0), server.isInMemory(2, SEGMENT_BYTES)]).toEqual([false, false]);
  expect(server.isInMemory(3, SEGMENT_BYTES)).toBe(false);
  expect(server.fetched).toBe(0);
  expect(await server.workingSet.recall({})).toBe(0);
  await server.close();
});

test('what is not read any more stays until others need its room; a server that reads nothing changes nothing', async () => {
  const directory = temporaryFolder(cleanup);
  await leaveWorkingSet(directory);
  const idle = await open(directory);
  await idle.close();
  const second = await open(directory);
  await second.workingSet.recall({});
  await second.read(2, 0);
  await second.close();
  const third = await open(directory, { bytesMax: 16 * SEGMENT_BYTES });
  expect(await third.workingSet.recall({})).toBe(2 * SEGMENT_BYTES + 2 * PAGE);
  for (let seed = 10; seed < 30; seed++) await third.read(seed, 0);
  await third.read(2, 0);
  await third.close();
  const fourth = await open(directory);
  await fourth.workingSet.recall({});
  expect([fourth.isInMemory(1, SEGMENT_BYTES), fourth.isInMemory(2, 0), fourth.isInMemory(29, 0)]).toEqual([
    false,
    true,
    true,
  ]);
  await fourth.close();
});

test('it is written down every five minutes, for a server that is killed', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  cleanup.add(() => void vi.useRealTimers());
  const directory = temporaryFolder(cleanup);
  const killed = await open(directory, { isRecalled: false });
  await killed.read(1, SEGMENT_BYTES);
  vi.advanceTimersByTime(WORKING_SET_SAVE_MS);
  const isWritten = (isChunk: boolean) =>
    cachedFiles(directory).some((path) => path.includes('/chunks/') === isChunk && !path.includes('/tmp-'));
  await expect.poll(() => isWritten(false) && isWritten(true)).toBe(true);
  const server = await open(directory);
  expect(await server.workingSet.recall({})).toBe(SEGMENT_BYTES);
  await server.close();
});

test('it takes no room from what has come in otherwise', async () => {
  const directory = temporaryFolder(cleanup);
  const first = await open(directory);
  await first.workingSet.recall({});
  for (let seed = 0; seed < 50; seed++) await first.read(seed, 0);
  await first.close();
  const bytesMax = 16 * SEGMENT_BYTES;
  const server = await open(directory, { bytesMax });
  await server.read(60, SEGMENT_BYTES);
  expect(await server.workingSet.recall({})).toBeLessThan((3 / 4) * bytesMax - LENGTH);
  expect(server.isInMemory(60, SEGMENT_BYTES)).toBe(true);
  await server.close();
});

test('a cached chunk that is damaged or gone is left out; who reads it has it fetched', async () => {
  const directory = temporaryFolder(cleanup);
  await leaveWorkingSet(directory);
  for (const path of cachedFiles(join(directory, 'chunks'))) {
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1]! ^= 1;
    for (let at = 100; at < bytes.length; at += SEGMENT_BYTES) bytes[at]! ^= 1;
    writeFileSync(path, bytes);
  }
  const server = await open(directory);
  expect(await server.workingSet.recall({})).toBe(0);
  expect(server.log.warnings).toEqual([]);
  await server.read(2, 0);
  expect([server.fetched, server.isInMemory(2, 0)]).toEqual([1, true]);
  await server.close();
});

test('a damaged list is dropped, with a warning', async () => {
  const directory = temporaryFolder(cleanup);
  await leaveWorkingSet(directory);
  const [list] = cachedFiles(directory).filter((path) => !path.includes('/chunks/'));
  const bytes = readFileSync(list!);
  bytes[bytes.length - 20]! ^= 1;
  writeFileSync(list!, bytes);
  const server = await open(directory);
  expect(await server.workingSet.recall({})).toBe(0);
  expect(server.log.warnings).toEqual([expect.stringContaining('is damaged and is made anew')]);
  await server.close();
});

test('it is left off when the server ends, also where the disk hangs', async () => {
  const directory = temporaryFolder(cleanup);
  await leaveWorkingSet(directory);
  const stop = new AbortController();
  const read = () => {
    stop.abort(new StoppedError('the end'));
    return new Promise<boolean>(() => {});
  };
  const server = await open(directory, { read });
  const recall = server.workingSet.recall({ signal: stop.signal });
  await expect(recall).rejects.toThrow('the end');
  await server.read(1, 0);
  await server.close();
  // One that has not been recalled to its end is not replaced by the little that was.
  const next = await open(directory);
  expect(await next.workingSet.recall({})).toBe(2 * SEGMENT_BYTES + 2 * PAGE);
  await next.close();
});
