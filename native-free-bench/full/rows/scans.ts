/** Every byte once: nbdcopy of the disk beside `plakar cat` of all its files, and a sequential scan of the largest table. */
import { createCipheriv } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { GiB, MiB } from '../../../src/core/units.ts';
import { mustRun } from '../../../test/support/cli.ts';
import { type Cleanup, temporaryFolder } from '../../../test/support/fixtures.ts';
import { commandPath, findCommand } from '../../../test/support/requires.ts';
import { type Bench, type BenchStore, firstQuery, note, withCleanup } from '../bench.ts';
import { openContents, readContents } from '../contents.ts';
import { cat, newestSnapshot, plakarEnvironment } from '../plakar.ts';
import { copyOfRawImage, rawImage } from '../raw-image.ts';
import { type DiskServer, serveRaw, startKloset } from '../servers.ts';
import { startOnDisk } from '../session.ts';
import { dropCaches, type Measured } from '../usage.ts';

/** What a server may hold in memory beyond its caches, its budget in flight and its index. */
const MEMORY_FOR_ALL_ELSE_BYTES = 150 * MiB;
const MEMORY_PER_ENTRY_BYTES = 100;
/** The defaults of `--cache-memory` and `--inflight-memory`. */
const CACHE_AND_INFLIGHT_BYTES = (256 + 128) * MiB;

/** Of data that does not compress: as much as a pgbench database of scale 100 has, so that a start counts for as much in both. */
const NOISE_BYTES = 1.5 * GiB;

/** Distant stores are left out: a `plakar cat` of all files takes minutes there. */
export async function measureScans(bench: Bench, store: BenchStore): Promise<void> {
  if (store.distant !== undefined) return bench.results.skip(`row scans, ${store.setting}`, 'measured on local stores');
  bench.progress(`scans: ${store.setting}`);
  const { fileBytes, entryCount } = store.data;
  for (let run = 0; run < bench.options.runs; run++) {
    const ours = await copyAll(bench, store);
    const bound = CACHE_AND_INFLIGHT_BYTES + MEMORY_FOR_ALL_ELSE_BYTES + MEMORY_PER_ENTRY_BYTES * entryCount;
    note(bench, store, 'kloset-nbd', {
      'copy-files': fileBytes / ours.seconds,
      'copy-memory': ours.peakBytes,
      'copy-cpu': ours.cpuSeconds,
      'memory-beyond': Math.max(0, ours.peakBytes - bound),
    });
    const raw = await copyRaw(bench, store);
    note(bench, store, 'raw image', { 'copy-files': fileBytes / raw });
    if (findCommand('plakar') === undefined) {
      bench.results.skip('plakar cat', 'plakar is not on PATH');
    } else {
      const { seconds, peakBytes, cpuSeconds } = await catAll(store, store.data.paths);
      note(bench, store, 'plakar cat', {
        'copy-files': fileBytes / seconds,
        'copy-memory': peakBytes,
        'copy-cpu': cpuSeconds,
      });
    }
  }
}

/** With the tables of pgbench: needs what PostgreSQL on a disk needs. */
export async function measureSum(bench: Bench, store: BenchStore): Promise<void> {
  if (store.distant !== undefined || store.data.scale === undefined) return;
  bench.progress(`sum(abalance): ${store.setting}`);
  for (let run = 0; run < bench.options.runs; run++) {
    await withCleanup(async (cleanup) => {
      const cacheDirectory = temporaryFolder(cleanup);
      const server = await startKloset(bench, store, { cacheDirectory }, cleanup);
      const { bytes, seconds, path } = await sumOn(bench, store, server, cleanup);
      note(bench, store, 'kloset-nbd', { 'sum-abalance': bytes / seconds });
      const raw = await sumOn(
        bench,
        store,
        await serveRaw(cleanup, await copyOfRawImage(bench, store, cleanup)),
        cleanup,
      );
      note(bench, store, 'raw image', { 'sum-abalance': raw.bytes / raw.seconds });
      if (findCommand('plakar') === undefined) return;
      const segments = store.data.paths.filter((each) => each === `/${path}` || each.startsWith(`/${path}.`));
      const catted = await catAll(store, segments);
      note(bench, store, 'plakar cat', { 'sum-abalance': bytes / catted.seconds });
    });
  }
}

/** Starts PostgreSQL, asks the first query, empties the kernel's caches and scans; stops all of it. */
async function sumOn(
  bench: Bench,
  store: BenchStore,
  server: DiskServer,
  cleanup: Cleanup,
): Promise<{ bytes: number; seconds: number; path: string }> {
  const session = await startOnDisk(cleanup, server.uri);
  const { postgres } = session;
  await postgres.query(firstQuery(store.data, bench.options.seed));
  const relation = "'pgbench_accounts'";
  const found = await postgres.query(`select pg_relation_size(${relation}), pg_relation_filepath(${relation})`);
  const [size, path] = found.split('|') as [string, string];
  await dropCaches();
  const begin = performance.now();
  await postgres.query('select sum(abalance) from pgbench_accounts');
  const seconds = (performance.now() - begin) / 1000;
  await session.stop();
  await server.stop();
  return { bytes: Number(size), seconds, path };
}

/** A file that does not compress, backed up here, encrypted. */
export async function measureIncompressible(bench: Bench, near: BenchStore): Promise<void> {
  if (near.distant !== undefined || near.passphrase !== undefined) return;
  await withCleanup(async (cleanup) => {
    bench.progress('data that does not compress, encrypted');
    const folder = temporaryFolder(cleanup);
    const directory = join(folder, 'store');
    const data = join(folder, 'data');
    const passphrase = 'a passphrase for a benchmark';
    await mustRun('mkdir', [data]);
    await writeNoise(join(data, 'noise'), bench.options.seed);
    const env = plakarEnvironment(cleanup, { passphrase });
    await mustRun(commandPath('plakar'), ['-quiet', 'at', directory, 'create'], { env });
    await mustRun(commandPath('plakar'), ['-quiet', 'at', directory, 'backup', data], { env });
    const opened = await openContents({ location: directory, passphrase });
    const contents = { scale: undefined, ...(await readContents(opened)) };
    await opened.close();
    const setting = 'data that does not compress, encrypted, local';
    const store: BenchStore = {
      setting,
      location: directory,
      directory,
      passphrase,
      distant: undefined,
      data: contents,
    };
    for (let run = 0; run < bench.options.runs; run++) {
      const ours = await copyAll(bench, store);
      note(bench, store, 'kloset-nbd', { 'copy-noise': NOISE_BYTES / ours.seconds });
      const { seconds } = await catAll(store, contents.paths);
      note(bench, store, 'plakar cat', { 'copy-noise': NOISE_BYTES / seconds });
    }
  });
}

/** From the start of the server until nbdcopy has every byte; to nowhere. */
async function copyAll(
  bench: Bench,
  store: BenchStore,
): Promise<{ seconds: number; peakBytes: number; cpuSeconds: number }> {
  return withCleanup(async (cleanup) => {
    const cacheDirectory = temporaryFolder(cleanup);
    await dropCaches();
    const begin = performance.now();
    const server = await startKloset(bench, store, { cacheDirectory, options: ['--read-only'] }, cleanup);
    await mustRun(commandPath('nbdcopy'), [server.uri, 'null:']);
    const seconds = (performance.now() - begin) / 1000;
    const { peakBytes, cpuSeconds } = server.usage();
    await server.stop();
    return { seconds, peakBytes, cpuSeconds };
  });
}

async function copyRaw(bench: Bench, store: BenchStore): Promise<number> {
  return withCleanup(async (cleanup) => {
    const image = await rawImage(bench, store);
    await dropCaches();
    const begin = performance.now();
    const server = await serveRaw(cleanup, image);
    await mustRun(commandPath('nbdcopy'), [server.uri, 'null:']);
    return (performance.now() - begin) / 1000;
  });
}

async function catAll(store: BenchStore, paths: readonly string[]): Promise<Measured> {
  return withCleanup(async (cleanup) => {
    const snapshot = await newestSnapshot(store, plakarEnvironment(cleanup, store));
    const env = plakarEnvironment(cleanup, store);
    await dropCaches();
    return await cat(store, { env, snapshot, paths });
  });
}

/** The key stream of AES: the same bytes for the same seed. */
async function writeNoise(path: string, seed: number): Promise<void> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16));
  const zeroes = Buffer.alloc(MiB);
  const pieces = Array.from({ length: NOISE_BYTES / MiB }, () => zeroes);
  await pipeline(Readable.from(pieces), cipher, createWriteStream(path));
}
