import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { HydrateDirectory } from '../../../src/hydration/hydrate-directory.ts';
import { fixtureLocation, fixtureStores, openFixture } from '../../support/fixture-stores.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { hydrateFixture, openAway, openHydrating, rootOfDisk } from '../../support/hydration.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { requires } from '../../support/requires.ts';
import { fillBucket, s3StoreAt, startS3Server } from '../../support/s3-server.ts';

const cleanup = cleanupAfterEach();
const need = requires('flock');

describe.skipIf(need.missing)(need.title('hydrated stores of every kind'), () => {
  test.each(fixtureStores())('%s gives the same disks once the store is gone', { timeout: 60_000 }, async (name) => {
    const directory = join(temporaryFolder(cleanup), 'hydrated');
    await hydrateFixture(cleanup, name, directory);
    const there = await openFixture(name);
    cleanup.add(() => there.close());
    const { log, lines } = recordingLog();
    const away = await openAway(cleanup, name, directory, { log });
    expect(away.snapshots.map(({ id }) => id)).toEqual(there.snapshots.map(({ id }) => id));
    expect(away.snapshots.length).toBeGreaterThan(0);
    for (const [i, header] of away.snapshots.entries()) {
      expect(await rootOfDisk(away, header)).toBe(await rootOfDisk(there, there.snapshots[i]!));
    }
    expect(away.counters.storeRequests).toBe(0);
    const told = lines.filter(({ message }) => message.includes('is away'));
    expect(told).toHaveLength(1);
    expect(told[0]!.message).toContain(directory);
  });

  test('only what was hydrated is there, and shared blobs once', async () => {
    const directory = join(temporaryFolder(cleanup), 'hydrated');
    await hydrateFixture(cleanup, 'album', directory, (all) => all.slice(0, 1));
    const one = await openAway(cleanup, 'album', directory);
    expect(one.snapshots).toHaveLength(1);
    await hydrateFixture(cleanup, 'album', directory, (all) => all.slice(1));
    const two = await openAway(cleanup, 'album', directory);
    expect(two.snapshots).toHaveLength(2);
  });

  test('what is hydrated is read there, also while the store is there', async () => {
    const directory = join(temporaryFolder(cleanup), 'hydrated');
    await hydrateFixture(cleanup, 'plain', directory);
    const replica = new HydrateDirectory(directory, { isWriter: false });
    cleanup.add(() => replica.close());
    const store = await openFixture('plain', { replica });
    cleanup.add(() => store.close());
    await rootOfDisk(store, store.snapshots[0]!);
    // The states are the store's own.
    expect(store.repository.isStoreAway).toBe(false);
    expect(store.counters.storeBytes).toBeLessThan(store.counters.replicaBytes);
    expect(store.counters.replicaBlobs).toBeGreaterThan(100);
  });
});

const needS3 = requires('flock', 's3-server');
describe.skipIf(needS3.missing)(needS3.title('a hydrated store'), () => {
  test('in a bucket gives the same disk once it is gone', async () => {
    const directory = join(temporaryFolder(cleanup), 'hydrated');
    const server = await startS3Server(cleanup);
    await fillBucket(server, 'backups', 'store/', fixtureLocation('manychunks'));
    const store = s3StoreAt(server, '/backups/store');
    const hydrating = await openHydrating(cleanup, 'manychunks', directory, { store });
    await hydrating.hydrate(hydrating.store.snapshots).done;
    await hydrating.close();
    const there = await openFixture('manychunks');
    cleanup.add(() => there.close());
    const away = await openAway(cleanup, 'manychunks', directory);
    expect(await rootOfDisk(away, away.snapshots[0]!)).toBe(await rootOfDisk(there, there.snapshots[0]!));
  });
});
