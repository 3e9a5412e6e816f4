/** 1,000 rows by their keys, one after another in one session: cold, again, and from what the disk cache has kept. */
import { type Cleanup, temporaryFolder } from '../../../test/support/fixtures.ts';
import type { RunningPostgres } from '../../../test/support/postgres.ts';
import {
  type Bench,
  type BenchStore,
  firstNumbers,
  firstQuery,
  note,
  PGBENCH_ROWS_PER_SCALE,
  withCleanup,
} from '../bench.ts';
import { placeChunksOf } from '../contents.ts';
import { copyOfRawImage } from '../raw-image.ts';
import { serveRaw, startKloset } from '../servers.ts';
import { startOnDisk } from '../session.ts';
import { dropCaches } from '../usage.ts';
import { pick, readAlone } from './chunks.ts';

const LOOKUPS = 1000;
/** Read alone before the clock counts: a server has run its code by then, too. */
const WARM_UP_CHUNKS = 20;
const ALONE_CHUNKS = 200;

export async function measureLookups(bench: Bench, store: BenchStore): Promise<void> {
  if (store.data.scale === undefined) return bench.results.skip('row lookups', 'the fixture has no keys to look up');
  bench.progress(`index lookups: ${store.setting}`);
  for (let run = 0; run < bench.options.runs; run++) {
    await withCleanup(async (cleanup) => {
      await onBackup(bench, store, cleanup);
      if (store.distant === undefined) await onRawImage(bench, store, cleanup);
    });
  }
}

async function onBackup(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<void> {
  const cacheDirectory = temporaryFolder(cleanup);
  const server = await startKloset(bench, store, { cacheDirectory }, cleanup);
  const session = await startOnDisk(cleanup, server.uri);
  await session.postgres.query(firstQuery(store.data, bench.options.seed));
  const files = await relationFiles(session.postgres);
  // Before and after: a machine of several users is another one a minute later.
  const aloneBeforeMs = await chunkAloneMs(bench, store, files);
  await dropCaches();
  const before = await server.report();
  const cold = await lookUp(bench, store, session.postgres);
  const chunks = (await server.report()).chunksFetched - before.chunksFetched;
  const warm = await lookUp(bench, store, session.postgres);
  const aloneAfterMs = await chunkAloneMs(bench, store, files);
  await session.stop();
  await server.stop();
  const aloneMs = (aloneBeforeMs + aloneAfterMs) / 2;
  note(bench, store, 'kloset-nbd', {
    'lookups-cold': cold,
    'lookups-warm': warm,
    'lookups-chunks': chunks,
    'lookups-bound': (chunks * aloneMs) / 1000,
    'lookups-disk': await fromDiskCache(bench, store, { cacheDirectory }),
    'lookups-disk-cold': await fromDiskCache(bench, store, { cacheDirectory, options: ['--no-warm'] }),
  });
}

/** Paths of the table and its index in the data directory, as PostgreSQL tells them: `base/5/16396`. */
async function relationFiles(postgres: RunningPostgres): Promise<string[]> {
  const names = ['pgbench_accounts', 'pgbench_accounts_pkey'];
  return Promise.all(
    names.map(async (name) => (await postgres.query(`select pg_relation_filepath('${name}')`)).trim()),
  );
}

/** The mean over chunks of these relations: look-ups by random keys ask for nearly all of them, small ones and large ones. */
async function chunkAloneMs({ options }: Bench, store: BenchStore, files: readonly string[]): Promise<number> {
  const chunks = (await placeChunksOf(store)).filter(({ chunk }) => {
    const path = Buffer.from(chunk.file.path).toString();
    return files.some((file) => path.endsWith(`/${file}`) || path.includes(`/${file}.`));
  });
  const times = await readAlone(store, pick(chunks, options.seed, WARM_UP_CHUNKS + ALONE_CHUNKS));
  const warm = times.slice(WARM_UP_CHUNKS);
  return warm.reduce((sum, ms) => sum + ms, 0) / warm.length;
}

/** The same keys with everything started anew but the directory of caches. */
async function fromDiskCache(
  bench: Bench,
  store: BenchStore,
  given: { cacheDirectory: string; options?: readonly string[] },
): Promise<number> {
  return withCleanup(async (cleanup) => {
    await dropCaches();
    const server = await startKloset(bench, store, given, cleanup);
    const session = await startOnDisk(cleanup, server.uri);
    await session.postgres.query(firstQuery(store.data, bench.options.seed));
    const seconds = await lookUp(bench, store, session.postgres);
    await session.stop();
    await server.stop();
    return seconds;
  });
}

async function onRawImage(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<void> {
  const image = await copyOfRawImage(bench, store, cleanup);
  await dropCaches();
  const server = await serveRaw(cleanup, image);
  const session = await startOnDisk(cleanup, server.uri);
  await session.postgres.query(firstQuery(store.data, bench.options.seed));
  const cold = await lookUp(bench, store, session.postgres);
  const warm = await lookUp(bench, store, session.postgres);
  await session.stop();
  await server.stop();
  note(bench, store, 'raw image', { 'lookups-cold': cold, 'lookups-warm': warm });
}

/** Seconds for all keys, which depend on nothing but the seed. */
async function lookUp({ options }: Bench, { data }: BenchStore, postgres: RunningPostgres): Promise<number> {
  const keys = firstNumbers(LOOKUPS, options.seed + 1, data.scale! * PGBENCH_ROWS_PER_SCALE);
  const sql = keys.map((key) => `select abalance from pgbench_accounts where aid=${key + 1}`).join(';');
  const begin = performance.now();
  await postgres.query(sql);
  return (performance.now() - begin) / 1000;
}
