/** The data: a pgbench database that is made and backed up here, ready-made stores, or the small fixture. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
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
  const stores = kinds.map((kind): MadeStore => {
    return { kind, directory: join(folder, kind), passphrase: kind === 'encrypted' ? PASSPHRASE : undefined };
  });
  for (const store of stores) {
    bench.progress(`  backing it up: ${store.kind}`);
    const env = plakarEnvironment(cleanup, store);
    const flags = store.passphrase === undefined ? ['-plaintext'] : [];
    await mustRun(commandPath('plakar'), ['at', store.directory, 'create', ...flags], { env });
    const address = postgres.clientArguments;
    const base = spawn(program('pg_basebackup'), [...address, ...'-c fast -D - -F tar -X fetch'.split(' ')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const words = ['-quiet', 'at', store.directory, 'backup', '-no-progress', 'tar:///dev/stdin'];
    const plakar = spawn(commandPath('plakar'), words, { env, stdio: ['pipe', 'ignore', 'inherit'] });
    const ended = new Promise<number | null>((resolve) => plakar.once('close', resolve));
    await pipeline(base.stdout, plakar.stdin);
    if ((await ended) !== 0) throw new Error(`plakar could not back up into ${store.directory}`);
  }
  await making.run();
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
