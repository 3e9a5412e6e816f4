/** The disk that kloset-nbd shows, as a raw image: the same bytes for servers of images. */
import { join } from 'node:path';
import { mustRun } from '../../test/support/cli.ts';
import { type Cleanup, temporaryFolder } from '../../test/support/fixtures.ts';
import { commandPath } from '../../test/support/requires.ts';
import { type Bench, type BenchStore, withCleanup } from './bench.ts';
import { startKloset } from './servers.ts';

const images = new Map<string, string>();

/** Made once for each store, and never written to. */
export async function rawImage(bench: Bench, store: BenchStore): Promise<string> {
  const made = images.get(store.directory);
  if (made !== undefined) return made;
  const image = join(temporaryFolder(bench.cleanup), 'base.raw');
  await withCleanup(async (cleanup) => {
    const cacheDirectory = temporaryFolder(cleanup);
    const local = { ...store, location: store.directory };
    const server = await startKloset(bench, local, { cacheDirectory, options: ['--read-only'] }, cleanup);
    await mustRun(commandPath('nbdcopy'), [server.uri, image]);
    await server.stop();
  });
  images.set(store.directory, image);
  bench.cleanup.add(() => images.delete(store.directory));
  return image;
}

/** One that may be written to. */
export async function copyOfRawImage(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<string> {
  const copy = join(temporaryFolder(cleanup), 'copy.raw');
  await mustRun('cp', ['--sparse=always', '--reflink=auto', await rawImage(bench, store), copy]);
  return copy;
}
