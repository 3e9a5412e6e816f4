/** The tiers under an opened store: what one server fetched no other fetches, and damage on disk changes no byte. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { entryTypes } from '../../../src/core/snapshot-tree.ts';
import { MiB } from '../../../src/core/units.ts';
import { OpenStore } from '../../../src/exports/open-store.ts';
import { cachedFiles } from '../../support/cache.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { storeAt } from '../../support/kloset.ts';

const cleanup = cleanupAfterEach();

/** Reads all files of the newest snapshot as one server would, in pieces, and then ends it. */
async function readAll(cacheDirectory: string, cacheBytesMax: number) {
  const store = await OpenStore.open({
    store: storeAt(albumStore),
    cacheBytesMax,
    cacheDiskBytesMax: 100 * MiB,
    inflightBytesMax: 16 * MiB,
    keys: { passphrase: () => Promise.reject(), deriveKey: () => Promise.reject() },
    cache: { path: cacheDirectory, isDefault: false },
  });
  try {
    const source = await store.openSource(store.snapshots[0]!, '/');
    const fetchedBefore = store.counters.chunksFetched;
    const contents: Buffer[] = [];
    for (let entry = 0; entry < source.tree.length; entry++) {
      if (source.tree.type[entry] !== entryTypes.file) continue;
      const content = Buffer.alloc(source.tree.sizeBytes[entry]!);
      for (let at = 0; at < content.length; at += 50_000)
        await source.read(entry, at, content.subarray(at, at + 50_000));
      contents.push(content);
    }
    const { chunksFetched, chunksFetchedTwice } = store.counters;
    const { diskHits, diskDamaged } = store.figures.contentCache;
    return {
      content: Buffer.concat(contents),
      fetched: chunksFetched - fetchedBefore,
      fetchedTwice: chunksFetchedTwice,
      diskHits,
      diskDamaged,
    };
  } finally {
    await store.close();
  }
}

it('a second server fetches no chunk, and damaged files are fetched again', { timeout: 60_000 }, async () => {
  const directory = temporaryFolder(cleanup);
  const cold = await readAll(directory, 64 * MiB);
  expect(cold.fetched).toBeGreaterThan(0);
  const chunkFiles = cachedFiles(join(directory, 'chunks'));
  expect(chunkFiles).toHaveLength(cold.fetched);
  const isStored = (path: string) => path.endsWith('.stored');
  const inSequence = chunkFiles.filter(isStored).length;
  expect([inSequence > 0, inSequence < cold.fetched]).toEqual([true, true]);
  // Hardly any memory: all of it comes from disk, each piece anew.
  const warm = await readAll(directory, 1);
  expect(warm).toMatchObject({ fetched: 0, fetchedTwice: 0, diskDamaged: 0 });
  expect(warm.diskHits).toBeGreaterThan(0);
  expect(warm.content.equals(cold.content)).toBe(true);
  for (const path of chunkFiles) {
    const bytes = readFileSync(path);
    // The frame's magic number: what lies further on may become the same content.
    bytes[isStored(path) ? 0 : 64]! ^= 1;
    writeFileSync(path, bytes);
  }
  const mended = await readAll(directory, 64 * MiB);
  expect(mended).toMatchObject({ fetched: cold.fetched, fetchedTwice: 0, diskDamaged: cold.fetched });
  expect(mended.content.equals(cold.content)).toBe(true);
  expect((await readAll(directory, 1)).fetched).toBe(0);
});
