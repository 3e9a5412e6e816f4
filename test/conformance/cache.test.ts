/**
 * What is opened from the disk cache is what is opened from the store: the same disk, the same warnings, for every
 * fixture; and next to nothing of the store is read for it.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { entryName } from '../../src/core/snapshot-tree.ts';
import { digestDevice } from '../../src/exports/device-digest.ts';
import type { OpenStore } from '../../src/exports/open-store.ts';
import { openSnapshotImage } from '../../src/exports/snapshot-image.ts';
import { cachedFiles, LogLines } from '../support/cache.ts';
import { fixturePassphrase, fixtureStores, openFixture } from '../support/fixture-stores.ts';
import { cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';

const cleanup = cleanupAfterEach();

/** All that can be told apart of a store's snapshots: disks, trees, warnings. */
async function describeStore(store: OpenStore) {
  const snapshots = [];
  for (const header of store.snapshots) {
    const { image, oddities, close } = await openSnapshotImage({
      store,
      parts: [{ header, path: '/', at: undefined }],
      layout: {},
    });
    const { treeRoot } = await digestDevice(image, { treeOnly: true });
    snapshots.push({ header, oddities, treeRoot, tree: image.layout.tree });
    await close();
  }
  return snapshots;
}

describe('from the cache', () => {
  test.each(fixtureStores())('%s is what it is without', async (name) => {
    const cache = { path: temporaryFolder(cleanup), isDefault: false };
    const log = new LogLines();
    const opened = [];
    for (const options of [{}, { cache, log }, { cache, log }]) {
      const store = await openFixture(name, options);
      // Reading a disk reads contents: what opening took is to be seen before.
      const atOpening = store.counters.storeBytes;
      opened.push({ snapshots: await describeStore(store), atOpening });
      await store.close();
    }
    const [without, cold, warm] = opened;
    expect(plain(cold!.snapshots)).toEqual(plain(without!.snapshots));
    expect(plain(warm!.snapshots)).toEqual(plain(without!.snapshots));
    expect(cold!.atOpening).toBe(without!.atOpening);
    expect(warm!.atOpening).toBe(0);
    expect(log.warnings).toEqual([]);
    if (fixturePassphrase(name) !== undefined) expectNoNames(cache.path, warm!.snapshots);
  });
});

/** For comparing: a Buffer and a Uint8Array of the same bytes are the same. */
function plain(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex');
  if (value instanceof Map) return [...value].map(plain);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}

/** Long names only: short ones occur in random bytes. */
function expectNoNames(directory: string, snapshots: Awaited<ReturnType<typeof describeStore>>): void {
  const names = snapshots.flatMap(({ tree }) => Array.from({ length: tree.length }, (_, i) => entryName(tree, i)));
  const telling = names.filter((name) => name.byteLength >= 5);
  expect(telling.length).toBeGreaterThan(3);
  for (const file of cachedFiles(directory)) {
    const content = readFileSync(file);
    for (const name of telling)
      expect(content.includes(Buffer.from(name)), `${Buffer.from(name)} in ${file}`).toBe(false);
  }
}
