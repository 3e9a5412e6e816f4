/** Hydrates fixture stores and opens what is left of them. */
import { Health } from '../../src/core/health.ts';
import { type Log, silentLog } from '../../src/core/log.ts';
import type { OverlayFileSystem } from '../../src/device/file-system.ts';
import { digestDevice } from '../../src/exports/device-digest.ts';
import type { OpenStore, StoreOptions } from '../../src/exports/open-store.ts';
import { openSnapshotImage } from '../../src/exports/snapshot-image.ts';
import { BlobWriter } from '../../src/hydration/blob-writer.ts';
import { HydrateDirectory } from '../../src/hydration/hydrate-directory.ts';
import { Hydration, type HydrationOptions } from '../../src/hydration/hydration.ts';
import type { SnapshotHeader } from '../../src/kloset/snapshot.ts';
import { openFixture } from './fixture-stores.ts';
import type { Cleanup } from './fixtures.ts';
import { storeAt } from './kloset.ts';

export interface HydratingStore {
  readonly store: OpenStore;
  readonly writer: BlobWriter;
  readonly directory: HydrateDirectory;
  readonly health: Health;
  /** Starts; it is stopped with the rest. */
  hydrate(snapshots: readonly SnapshotHeader[], options?: Partial<HydrationOptions>): Hydration;
  /** Gives everything back, as the end of a server does. Idempotent. */
  close(): Promise<void>;
}

/** A fixture's store with a hydrated directory that can be written to. */
export async function openHydrating(
  cleanup: Cleanup,
  name: string,
  path: string,
  {
    fileSystem,
    log = silentLog,
    dataFileBytesMax,
    ...options
  }: Partial<StoreOptions> & { fileSystem?: OverlayFileSystem; log?: Log; dataFileBytesMax?: number } = {},
): Promise<HydratingStore> {
  const directory = new HydrateDirectory(path, { isWriter: true, log, ...(fileSystem && { fileSystem }) });
  const store = await openFixture(name, { replica: directory, log, ...options }).catch(async (error) => {
    await directory.close();
    throw error;
  });
  const blobs = (await directory.blobs)!;
  const { repository, decoder, activity, counters } = store;
  const writer = await BlobWriter.open({
    blobs,
    fileSystem: directory.fileSystem,
    counters,
    ...(dataFileBytesMax === undefined ? {} : { dataFileBytesMax }),
  });
  const health = new Health();
  const running: Hydration[] = [];
  let isClosed = false;
  const close = async () => {
    if (isClosed) return;
    isClosed = true;
    for (const hydration of running) await hydration.stop();
    await writer.close();
    await store.close();
    await directory.close();
  };
  cleanup.add(close);
  return {
    ...{ store, writer, directory, health, close },
    hydrate(snapshots, given = {}) {
      const parts = { repository, decoder, blobs, writer, activity, health, log };
      const hydration = new Hydration({ ...parts, snapshots, bytesPerSecond: undefined, ...given });
      running.push(hydration);
      return hydration;
    },
  };
}

/** All of a fixture's snapshots, or those given, are in the directory afterwards. */
export async function hydrateFixture(
  cleanup: Cleanup,
  name: string,
  path: string,
  pick: (snapshots: readonly SnapshotHeader[]) => readonly SnapshotHeader[] = (all) => all,
): Promise<void> {
  const hydrating = await openHydrating(cleanup, name, path);
  await hydrating.hydrate(pick(hydrating.store.snapshots)).done;
  await hydrating.close();
}

/** The same fixture where its store is not there any more. */
export async function openAway(
  cleanup: Cleanup,
  name: string,
  path: string,
  options: Partial<StoreOptions> = {},
): Promise<OpenStore> {
  const { log = silentLog } = options;
  const directory = new HydrateDirectory(path, { isWriter: false, log });
  cleanup.add(() => directory.close());
  const store = await openFixture(name, { store: storeAt(`${path}.away`), replica: directory, ...options });
  cleanup.add(() => store.close());
  return store;
}

/** The root of the hash tree over the disk of a snapshot: every byte of every file is read for it. */
export async function rootOfDisk(store: OpenStore, header: SnapshotHeader): Promise<string> {
  const parts = [{ header, path: '/', at: undefined }];
  const { image, close } = await openSnapshotImage({ store, parts, layout: {} });
  try {
    return (await digestDevice(image, { treeOnly: true })).treeRoot;
  } finally {
    await close();
  }
}
