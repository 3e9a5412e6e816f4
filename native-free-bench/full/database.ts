/** The data: a pgbench database that is made and backed up here, ready-made stores, or the small fixture. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun } from '../../test/support/cli.ts';
import { albumStore, Cleanup, temporaryFolder } from '../../test/support/fixtures.ts';
import { makeCluster } from '../../test/support/pg-cluster.ts';
import { startPostgres } from '../../test/support/postgres.ts';
import { commandPath, findPostgres15, requires } from '../../test/support/requires.ts';
import type { Bench, BenchData, BenchStore } from './bench.ts';
import { openContents, readContents } from './contents.ts';
import { type DelayedStore, serveDelayed } from './delayed-store.ts';
import { plakarEnvironment } from './plakar.ts';

/** Of the encrypted stores made here. */
const PASSPHRASE = 'a passphrase for a benchmark';

/** A directory store with what is in it. */
export interface MadeStore {
  readonly kind: 'plaintext' | 'encrypted';
  readonly directory: string;
  readonly passphrase: string | undefined;
}

/** What making a database takes. */
export const databaseNeeds = requires('root', 'postgres15', 'plakar');

/** A database of pgbench's, taken by pg_basebackup from the running server into a store of each kind. */
export async function makeDatabase(
  bench: Bench,
  scale: number,
  { kinds = ['plaintext', 'encrypted'] }: { kinds?: readonly MadeStore['kind'][] },
  cleanup: Cleanup,
): Promise<MadeStore[]> {
  bench.progress(`making a database of scale ${scale}`);
  const folder = temporaryFolder(cleanup);
  const parameters = ['fsync=off', 'max_wal_size=4GB', 'shared_buffers=512MB'];
  // Its files go when it is backed up: at scale 1000 they are 15 GiB.
  const making = new Cleanup();
  cleanup.add(() => making.run());
  const postgres = await startPostgres(making, (await makeCluster(making)).data, { parameters });
  const program = (name: string) => join(findPostgres15()!, name);
  await mustRun(program('pgbench'), ['-i', '-q', '-s', `${scale}`, ...postgres.clientArguments, 'postgres']);
  await postgres.query('vacuum analyze');
  await postgres.query('checkpoint');
  const address = postgres.clientArguments;
  const format = ['-D', folder, '--format', 'tar', '--wal-method', 'fetch', '--checkpoint', 'fast'];
  await mustRun(program('pg_basebackup'), [...address, ...format]);
  await making.run();
  const stores = kinds.map((kind): MadeStore => {
    return { kind, directory: join(folder, kind), passphrase: kind === 'encrypted' ? PASSPHRASE : undefined };
  });
  const tar = join(folder, 'base.tar');
  for (const store of stores) {
    bench.progress(`  backing it up: ${store.kind}`);
    const env = plakarEnvironment(cleanup, store);
    const plakar = (...words: string[]) =>
      mustRun(commandPath('plakar'), ['-quiet', 'at', store.directory, ...words], { env });
    await plakar('create', ...(store.passphrase === undefined ? ['-plaintext'] : []));
    await plakar('backup', '-no-progress', `tar:${tar}`);
  }
  rmSync(tar);
  return stores;
}

/** The stores as they are measured: each as a directory, and from far away. */
export async function benchStores(
  bench: Bench,
  made: readonly MadeStore[],
  { scale, isDistant }: { scale: number | undefined; isDistant: boolean },
  cleanup: Cleanup,
): Promise<BenchStore[]> {
  const stores: BenchStore[] = [];
  for (const { kind, directory, passphrase } of made) {
    const opened = await openContents({ location: directory, passphrase });
    const data: BenchData = { scale, ...(await readContents(opened)) };
    await opened.close();
    const named = scale === undefined ? 'album fixture' : `scale ${scale}`;
    const { latencyMs } = bench.options;
    const add = (access: string, location: string, distant: DelayedStore | undefined) =>
      stores.push({ setting: `${named}, ${kind}, ${access}`, location, directory, passphrase, distant, data });
    add('local', directory, undefined);
    if (!isDistant) continue;
    const distant = await serveDelayed(cleanup, directory, latencyMs);
    add(`${latencyMs} ms away`, distant.url, distant);
  }
  return stores;
}

export const albumStores: readonly MadeStore[] = [{ kind: 'plaintext', directory: albumStore, passphrase: undefined }];
