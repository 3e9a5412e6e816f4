/** Warming up, with snapshots of a real cluster: what is in memory afterwards, and that nothing is failed or held up. */
import { describe, expect, test } from 'vitest';
import type { OpenStore } from '../../../src/exports/open-store.ts';
import { fileAt } from '../../../src/postgres/data-directories.ts';
import type { KlosetSource } from '../../../src/source/kloset-source.ts';
import { WarmUps } from '../../../src/warmup/warm-ups.ts';
import { storeCache } from '../../support/cache.ts';
import { openFixture } from '../../support/fixture-stores.ts';
import { albumSnapshots, cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { recordingLog } from '../../support/recording-log.ts';

const cleanup = cleanupAfterEach();
const [before, after] = albumSnapshots.map(({ id }) => id) as [string, string];

/** The album's store, watched. */
async function open({ directory = temporaryFolder(cleanup), isOn = true } = {}) {
  const store = await openFixture('album');
  const { log, lines } = recordingLog();
  const cache = await storeCache(directory);
  const warmUps = new WarmUps({ prefetcher: store.prefetcher, cache, isOn, log });
  cleanup.add(async () => {
    await warmUps.close();
    await store.close();
  });
  store.watcher = warmUps;
  return { store, warmUps, lines, directory };
}

function openSnapshot(store: OpenStore, id: string): Promise<KlosetSource> {
  return store.openSource(store.snapshots.find((header) => header.id === id)!, '/');
}

/** Whether all of a file can be read without the store. */
function isInMemory(source: KlosetSource, ...names: string[]): boolean {
  const entry = fileAt(source.tree, 0, names)!;
  return source.readNow(entry, 0, new Uint8Array(source.tree.sizeBytes[entry]!));
}

/** A table of users: nothing that a start reads. */
const TABLE = ['base', '16384', '16423'] as const;

const start = [
  ['global', 'pg_control'],
  ['base', '16384', '1259'],
  ['base', '16384', '2662'],
] as const;

describe('a warm-up', () => {
  test('has in memory what a start reads, of every opening, and not the rest', async () => {
    const { store, warmUps, lines } = await open();
    const source = await openSnapshot(store, before);
    await warmUps.untilDone();
    for (const names of start) expect(isInMemory(source, ...names), names.join('/')).toBe(true);
    expect(isInMemory(source, ...TABLE)).toBe(false);
    const { chunksFetched } = store.counters;
    const again = await openSnapshot(store, before);
    await warmUps.untilDone();
    expect(isInMemory(again, 'base', '16384', '1259')).toBe(true);
    expect(store.counters.chunksFetched).toBe(chunksFetched);
    expect(lines.filter(({ message }) => message.includes('is warm')).map(({ level }) => level)).toEqual([
      'info',
      'debug',
    ]);
  });

  test('is not made with --no-warm, nor once the store is closing', async () => {
    const off = await open({ isOn: false });
    const source = await openSnapshot(off.store, before);
    await off.warmUps.untilDone();
    expect(isInMemory(source, 'global', 'pg_control')).toBe(false);
    const closing = await open();
    await closing.warmUps.close();
    await openSnapshot(closing.store, before);
    await closing.warmUps.untilDone();
    expect(closing.lines).toEqual([]);
  });

  test('is stopped by closing, in the middle', async () => {
    const { store, warmUps, lines } = await open();
    await openSnapshot(store, before);
    await warmUps.close();
    expect(lines.filter(({ level }) => level !== 'info')).toEqual([]);
  });
});

describe('a profile', () => {
  const part = (snapshotId: string) => ({ snapshotId, path: '/' });

  test('recorded on one snapshot is fetched ahead of a later one of the same source', async () => {
    const first = await open();
    const source = await openSnapshot(first.store, before);
    await source.read(fileAt(source.tree, 0, TABLE)!, 0, new Uint8Array(4096));
    const [recorded, ...others] = await first.warmUps.record([part(before)]);
    expect(others).toEqual([]);
    expect(recorded).toEqual({ source: 'tar://db1/', snapshot: before, chunkCount: 1, bytes: expect.any(Number) });

    const later = await open({ directory: first.directory });
    const source2 = await openSnapshot(later.store, after);
    await later.warmUps.untilDone();
    expect(isInMemory(source2, ...TABLE)).toBe(true);
    const told = later.lines.map(({ message }) => message.replace(/, \d+ chunks of .*/, ''));
    expect(told).toEqual([
      'Snapshot 8e457cf5 is warm: fetched what its profile has',
      'Snapshot 8e457cf5 is warm: fetched what PostgreSQL reads when it starts',
    ]);
  });

  test('begins anew where it is told to', async () => {
    const { store, warmUps } = await open({ isOn: false });
    const source = await openSnapshot(store, before);
    await source.read(fileAt(source.tree, 0, ['PG_VERSION'])!, 0, new Uint8Array(1));
    warmUps.begin([part(before)]);
    await expect(warmUps.record([part(before)])).rejects.toThrow('Nothing has been read');
    await source.read(fileAt(source.tree, 0, ['global', 'pg_control'])!, 0, new Uint8Array(1));
    expect(await warmUps.record([part(before)])).toMatchObject([{ chunkCount: 1, bytes: 8192 }]);
  });

  test('is refused of what was never opened, and without a cache', async () => {
    const { store, warmUps } = await open();
    await expect(warmUps.record([part(before)])).rejects.toThrow('has not been opened yet');
    const { log } = recordingLog();
    const without = new WarmUps({ prefetcher: store.prefetcher, cache: undefined, isOn: true, log });
    await expect(without.record([part(before)])).rejects.toThrow('kept with the cache');
  });
});
