/** From the first command to the first row: on the backup, and by every way that restores it first. */
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newReadCounters } from '../../../src/core/counters.ts';
import { GiB, MiB } from '../../../src/core/units.ts';
import { deriveKey } from '../../../src/kloset/codec/key-derivation.ts';
import { type KeySource, Repository } from '../../../src/kloset/repository.ts';
import { mustRun, runCli } from '../../../test/support/cli.ts';
import { type Cleanup, temporaryFolder } from '../../../test/support/fixtures.ts';
import { storeAt } from '../../../test/support/kloset.ts';
import { commandPath, findCommand } from '../../../test/support/requires.ts';
import { type Bench, type BenchStore, firstQuery, note, withCleanup } from '../bench.ts';
import type { MetricId } from '../metrics.ts';
import { isMountPoint, newestSnapshot, plakarEnvironment, restore } from '../plakar.ts';
import type { Contestant } from '../results.ts';
import { hasOption, klosetEnvironment, serveQcow2, startKloset } from '../servers.ts';
import { startOnDisk, startOnFolder } from '../session.ts';
import { dropCaches, type Measured, TimeLimitError } from '../usage.ts';

/** Of plakar mount: PostgreSQL's start on it may not end in hours. */
const MOUNT_LIMIT_MS = 60_000;

type Values = Partial<Record<MetricId, number>>;
/** One way to a first row; throws TimeLimitError where that takes too long. */
type Way = (bench: Bench, store: BenchStore, cleanup: Cleanup) => Promise<Values>;

const ways: Partial<Record<Contestant, Way>> = {
  'kloset-nbd': onBackup,
  'kloset-nbd, profile': withProfile,
  'plakar restore': restoreToFolder,
  qcow2: restoreToImage,
  'plakar mount': overPlakarMount,
};

/** Every round takes all contestants in turn, each with the caches of the kernel empty and none of its own. */
export async function measureFirstQuery(
  bench: Bench,
  store: BenchStore,
  { only = Object.keys(ways) as Contestant[] }: { only?: readonly Contestant[] } = {},
): Promise<void> {
  bench.progress(`first query: ${store.setting}`);
  const late = new Set<Contestant>();
  for (let run = 0; run < bench.options.runs; run++) {
    for (const contestant of only) {
      const why = late.has(contestant) ? 'it took too long' : whyNot(bench, store, contestant, run);
      if (why !== undefined) {
        if (run === 0) bench.results.skip(firstQueryBy(contestant, store.setting), why);
        continue;
      }
      try {
        const way = ways[contestant]!;
        note(bench, store, contestant, await withCleanup((cleanup) => way(bench, store, cleanup)));
      } catch (error) {
        if (!(error instanceof TimeLimitError)) throw error;
        late.add(contestant);
        bench.results.skip(firstQueryBy(contestant, store.setting), error.message);
        bench.progress(`  ${contestant}: ${error.message}`);
      }
    }
  }
  if (only.includes('kloset-nbd') && store.distant === undefined)
    note(bench, store, 'kloset-nbd', await whatItTakes(bench, store));
}

/** What no way round could save: whole chunks, and the key. */
async function whatItTakes(bench: Bench, store: BenchStore): Promise<Values> {
  const bytes = await withCleanup(async (cleanup) => {
    const options = ['--no-warm'];
    return (await serveAndAsk(bench, store, { cacheDirectory: temporaryFolder(cleanup), options }, cleanup))[
      'first-query-bytes'
    ]!;
  });
  const keySeconds = await timeKey(store);
  return { 'first-query-needed': bytes, ...(keySeconds === undefined ? {} : { 'first-query-key': keySeconds }) };
}

/** Undefined for a store without a passphrase. */
async function timeKey({ directory, passphrase }: BenchStore): Promise<number | undefined> {
  if (passphrase === undefined) return undefined;
  let seconds: number | undefined;
  const store = storeAt(directory);
  const keys: KeySource = {
    passphrase: async () => Buffer.from(passphrase),
    async deriveKey(...given) {
      const begin = performance.now();
      const key = await deriveKey(...given);
      seconds = (performance.now() - begin) / 1000;
      return key;
    },
  };
  const repository = await Repository.open(store, { counters: newReadCounters(), keys });
  await repository.close();
  await store.close();
  return seconds;
}

function firstQueryBy(contestant: Contestant, setting: string): string {
  return `first query: ${contestant}, ${setting}`;
}

/** Why this contestant is left out of this run; undefined if it is not. */
function whyNot({ results }: Bench, store: BenchStore, contestant: Contestant, run: number): string | undefined {
  if (contestant === 'kloset-nbd') return undefined;
  if (contestant === 'kloset-nbd, profile') {
    return hasOption('profile', 'record') ? undefined : 'kloset-nbd has no command profile';
  }
  if (findCommand('plakar') === undefined) return 'plakar is not on PATH';
  if (store.distant === undefined) return undefined;
  // A distant restore takes minutes, always as long as the latency makes it.
  if (contestant === 'qcow2') return 'its restore takes what plakar restore does';
  if (contestant === 'plakar restore') {
    results.remark('distant restores: one run');
    return run === 0 ? undefined : 'one run';
  }
  const nearby = firstQueryBy(contestant, store.setting.replace(/, [^,]*$/, ', local'));
  return results.skips.some(({ what }) => what === nearby) ? 'it took too long on the local store' : undefined;
}

async function onBackup(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Values> {
  return serveAndAsk(bench, store, { cacheDirectory: temporaryFolder(cleanup) }, cleanup);
}

/**
 * As onBackup, after one that has recorded what it read. What a second opening finds besides (index, metadata) is in its
 * cache, too, but no chunk.
 */
async function withProfile(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Values> {
  const cacheDirectory = temporaryFolder(cleanup);
  const env = { KLOSET_NBD_RUN_DIR: temporaryFolder(cleanup) };
  const options = hasOption('serve', '--cache-disk') ? ['--cache-disk', '0'] : [];
  await serveAndAsk(bench, store, { cacheDirectory, options, env, recordsProfile: true }, cleanup);
  return serveAndAsk(bench, store, { cacheDirectory, options, env }, cleanup);
}

async function serveAndAsk(
  bench: Bench,
  store: BenchStore,
  {
    recordsProfile = false,
    ...given
  }: { cacheDirectory: string; options?: readonly string[]; env?: NodeJS.ProcessEnv; recordsProfile?: boolean },
  cleanup: Cleanup,
): Promise<Values> {
  const clock = await startClock(store);
  const server = await startKloset(bench, store, given, cleanup);
  const session = await startOnDisk(cleanup, server.uri);
  await session.postgres.query(firstQuery(store.data, bench.options.seed));
  const seconds = clock.seconds();
  const { cpuSeconds, peakBytes } = server.usage();
  const { storeBytes } = await server.report();
  const values = figures(clock, { seconds, storeBytes, cpuSeconds, peakBytes });
  if (recordsProfile) {
    const words = ['profile', 'record', '--store', store.location, '--cache-dir', given.cacheDirectory];
    const { exitCode, stderr } = await runCli(words, { env: { ...klosetEnvironment(store), ...given.env } });
    if (exitCode !== 0) throw new Error(`kloset-nbd profile record: ${stderr}`);
  }
  await session.stop();
  await server.stop();
  return values;
}

async function restoreToFolder(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Values> {
  const env = plakarEnvironment(cleanup, store);
  const folder = join(temporaryFolder(cleanup), 'restored');
  const clock = await startClock(store);
  const restored = await restore(store, env, folder, limitMs(bench, store));
  await makePostgres(folder);
  const postgres = await startOnFolder(cleanup, folder);
  await postgres.query(firstQuery(store.data, bench.options.seed));
  const values = restoredFigures(clock, restored);
  await postgres.stop('immediate');
  return values;
}

async function restoreToImage(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Values> {
  const env = plakarEnvironment(cleanup, store);
  const folder = temporaryFolder(cleanup);
  const image = join(folder, 'base.raw');
  const clock = await startClock(store);
  writeFileSync(image, '');
  truncateSync(image, Math.ceil((store.data.fileBytes * 1.25 + GiB) / MiB) * MiB);
  await mustRun(commandPath('mkfs.ext4'), ['-q', image]);
  const mount = join(folder, 'mnt');
  mkdirSync(mount);
  await mustRun(commandPath('mount'), ['-o', 'loop', image, mount]);
  const unmount = () => (isMountPoint(mount) ? mustRun(commandPath('umount'), [mount]) : undefined);
  cleanup.add(unmount);
  const restored = await restore(store, env, mount, limitMs(bench, store));
  await makePostgres(mount);
  await unmount();
  const server = await serveQcow2(cleanup, image, join(folder, 'overlay.qcow2'));
  const session = await startOnDisk(cleanup, server.uri);
  await session.postgres.query(firstQuery(store.data, bench.options.seed));
  const values = restoredFigures(clock, restored);
  await session.stop();
  await server.stop();
  return values;
}

/** plakar's own mount, read-only, with an overlay for what PostgreSQL writes. */
async function overPlakarMount(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Values> {
  const env = plakarEnvironment(cleanup, store);
  const snapshot = await newestSnapshot(store, env);
  const folder = temporaryFolder(cleanup);
  const [lower, upper, work, merged] = ['lower', 'upper', 'work', 'merged'].map((name) => {
    mkdirSync(join(folder, name));
    return join(folder, name);
  }) as [string, string, string, string];
  const clock = await startClock(store);
  const limit = Math.min(MOUNT_LIMIT_MS, limitMs(bench, store));
  const child = spawn(commandPath('plakar'), ['at', store.location, 'mount', '-to', lower], { env, stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('close', resolve));
  // Killed, it lets what still reads from it fail, so that PostgreSQL and chown end.
  const timer = setTimeout(() => child.kill('SIGKILL'), limit);
  cleanup.add(async () => {
    clearTimeout(timer);
    if (isMountPoint(merged)) await mustRun(commandPath('umount'), ['-l', merged]);
    child.kill('SIGKILL');
    await ended;
    if (isMountPoint(lower)) await mustRun(commandPath('umount'), ['-l', lower]);
  });
  try {
    while (!isMountPoint(lower)) {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error('plakar mount has ended');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    // Without metacopy a change of owner would copy every file whole.
    const layers = `lowerdir=${join(lower, snapshot)},upperdir=${upper},workdir=${work},metacopy=on,redirect_dir=on`;
    await mustRun(commandPath('mount'), ['-t', 'overlay', 'overlay', '-o', layers, merged]);
    await makePostgres(merged);
    const postgres = await startOnFolder(cleanup, merged);
    await postgres.query(firstQuery(store.data, bench.options.seed));
    const values = figures(clock, { seconds: clock.seconds() });
    await postgres.stop('immediate');
    return values;
  } catch (error) {
    throw child.signalCode === null ? error : new TimeLimitError('the first row', limit);
  }
}

interface Clock {
  readonly store: BenchStore;
  seconds(): number;
}

/** Empties the kernel's caches and begins to count. */
async function startClock(store: BenchStore): Promise<Clock> {
  await dropCaches();
  const { traffic } = store.distant ?? {};
  if (traffic !== undefined) Object.assign(traffic, { requests: 0, bytes: 0 });
  const begin = performance.now();
  return { store, seconds: () => (performance.now() - begin) / 1000 };
}

/** Bytes of a distant store are counted where they are sent. */
function figures(
  { store }: Clock,
  taken: { seconds: number; storeBytes?: number; cpuSeconds?: number; peakBytes?: number },
): Values {
  const { traffic } = store.distant ?? {};
  const bytes = traffic?.bytes ?? taken.storeBytes;
  return {
    'first-query': taken.seconds,
    ...(bytes === undefined ? {} : { 'first-query-bytes': bytes }),
    ...(traffic === undefined ? {} : { 'first-query-requests': traffic.requests }),
    ...(taken.peakBytes === undefined ? {} : { 'first-query-memory': taken.peakBytes }),
    ...(taken.cpuSeconds === undefined ? {} : { 'first-query-cpu': taken.cpuSeconds }),
  };
}

function restoredFigures(clock: Clock, { readBytes, cpuSeconds, peakBytes }: Measured): Values {
  return figures(clock, { seconds: clock.seconds(), storeBytes: readBytes, cpuSeconds, peakBytes });
}

function limitMs({ options }: Bench, { data }: BenchStore): number {
  const isLarge = data.scale !== undefined && data.scale > 100;
  return options.limitSeconds * 1000 * (isLarge ? 10 : 1);
}

/** plakar restores the tar's root as root's, which PostgreSQL refuses to start on. */
async function makePostgres(folder: string): Promise<void> {
  await mustRun('chown', ['-R', 'postgres:', folder]);
  chmodSync(folder, 0o700);
  if (!readdirSync(folder).includes('PG_VERSION')) throw new Error(`there is no data directory in ${folder}`);
}
