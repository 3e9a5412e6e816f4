/** From the first command to the first row: on the backup, and by every way that restores it first. */
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GiB, MiB } from '../../../src/core/units.ts';
import { mustRun } from '../../../test/support/cli.ts';
import { Cleanup, temporaryFolder } from '../../../test/support/fixtures.ts';
import { commandPath, findCommand } from '../../../test/support/requires.ts';
import { type Bench, type BenchStore, firstQuery, note } from '../bench.ts';
import type { MetricId } from '../metrics.ts';
import { isMountPoint, newestSnapshot, plakarEnvironment, restore } from '../plakar.ts';
import type { Contestant } from '../results.ts';
import { serveQcow2, startKloset } from '../servers.ts';
import { startOnDisk, startOnFolder } from '../session.ts';
import { dropCaches, type Measured, TimeLimitError } from '../usage.ts';

type Values = Partial<Record<MetricId, number>>;
/** One way to a first row; throws TimeLimitError where that takes too long. */
type Way = (bench: Bench, store: BenchStore, cleanup: Cleanup) => Promise<Values>;

const ways: Partial<Record<Contestant, Way>> = {
  'kloset-nbd': onBackup,
  'plakar restore': restoreToFolder,
  qcow2: restoreToImage,
  'plakar mount': overPlakarMount,
};

/** Every round takes all contestants in turn, each with the caches of the kernel empty and none of its own. */
export async function measureFirstQuery(
  bench: Bench,
  store: BenchStore,
  { only = Object.keys(ways) as Contestant[], runs = bench.options.runs }: { only?: Contestant[]; runs?: number } = {},
): Promise<void> {
  bench.progress(`first query: ${store.setting}`);
  const late = new Set<Contestant>();
  for (let run = 0; run < runs; run++) {
    for (const contestant of only) {
      if (contestant !== 'kloset-nbd' && findCommand('plakar') === undefined) {
        bench.results.skip(`first query: ${contestant}`, 'plakar is not on PATH');
        continue;
      }
      if (late.has(contestant)) continue;
      const cleanup = new Cleanup();
      try {
        note(bench, store, contestant, await ways[contestant]!(bench, store, cleanup));
      } catch (error) {
        if (!(error instanceof TimeLimitError)) throw error;
        late.add(contestant);
        bench.results.skip(`first query: ${contestant}, ${store.setting}`, error.message);
        bench.progress(`  ${contestant}: ${error.message}`);
      } finally {
        await cleanup.run();
      }
    }
  }
}

async function onBackup(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Values> {
  const cacheDirectory = temporaryFolder(cleanup);
  const clock = await startClock(store);
  const server = await startKloset(bench, store, { cacheDirectory }, cleanup);
  const session = await startOnDisk(cleanup, server.uri);
  await session.postgres.query(firstQuery(store.data, bench.options.seed));
  const seconds = clock.seconds();
  const { storeBytes } = await server.report();
  const { cpuSeconds, peakBytes } = server.usage();
  const values = figures(clock, { seconds, storeBytes, cpuSeconds, peakBytes });
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
  const limit = limitMs(bench, store);
  const child = spawn(commandPath('plakar'), ['at', store.location, 'mount', '-to', lower], { env, stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('close', resolve));
  cleanup.add(async () => {
    if (isMountPoint(merged)) await mustRun(commandPath('umount'), ['-l', merged]);
    child.kill('SIGKILL');
    await ended;
    if (isMountPoint(lower)) await mustRun(commandPath('umount'), ['-l', lower]);
  });
  while (!isMountPoint(lower)) {
    if (child.exitCode !== null) throw new Error(`plakar mount ended with ${child.exitCode}`);
    if (clock.seconds() * 1000 > limit) throw new TimeLimitError('plakar mount', limit);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  // Without metacopy a change of owner would copy every file whole.
  const layers = `lowerdir=${join(lower, snapshot)},upperdir=${upper},workdir=${work},metacopy=on,redirect_dir=on`;
  await mustRun(commandPath('mount'), ['-t', 'overlay', 'overlay', '-o', layers, merged]);
  await makePostgres(merged);
  const late = new Promise<never>((_, reject) => {
    const timer = setTimeout(
      () => {
        reject(new TimeLimitError('PostgreSQL on plakar mount and overlayfs', limit));
        // Its reads fail from here on, so that PostgreSQL can end.
        child.kill('SIGKILL');
      },
      Math.max(0, limit - clock.seconds() * 1000),
    );
    cleanup.add(() => clearTimeout(timer));
  });
  const query = async () => {
    const postgres = await startOnFolder(cleanup, merged);
    await postgres.query(firstQuery(store.data, bench.options.seed));
    const values = figures(clock, { seconds: clock.seconds() });
    await postgres.stop('immediate');
    return values;
  };
  const asked = query();
  asked.catch(() => {}); // Where the limit came first nobody waits for it.
  return Promise.race([asked, late]);
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
