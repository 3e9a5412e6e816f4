/**
 * How much an overlay grows under PostgreSQL: by a start and a stop, and by one run of pgbench. Beside it qemu-nbd with a
 * qcow2 overlay of the same disk, its backing file a copy of it. Both are attached through nbdfuse and a loop device, so
 * it runs as root.
 *
 *   npm run bench:overlay-growth -- --store LOCATION [--transactions 5000] [--clients 4] [--dir DIRECTORY]
 *
 * LOCATION: a store whose newest snapshot is a PGDATA of PostgreSQL 15 with pgbench's tables. Grown is what the overlay's
 * files take on the disk (allocated blocks), after PostgreSQL was stopped, the disk unmounted and detached.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB } from '../src/core/units.ts';
import { mustRun } from '../test/support/cli.ts';
import { Cleanup, temporaryFolder } from '../test/support/fixtures.ts';
import { attachDevice, mountDevice } from '../test/support/mount.ts';
import { type RunningPostgres, startPostgres } from '../test/support/postgres.ts';
import { findPostgres15 } from '../test/support/requires.ts';
import { startKlosetNbd, stop } from './fio.ts';

const { values } = parseArgs({
  options: {
    store: { type: 'string' },
    transactions: { type: 'string', default: '5000' },
    clients: { type: 'string', default: '4' },
    dir: { type: 'string', default: os.tmpdir() },
  },
});
if (values.store === undefined) throw new Error('name a store with a database: --store LOCATION');
process.env.TMPDIR = values.dir;

interface Contestant {
  readonly name: string;
  readonly uri: string;
  /** What the overlay's files take now, bytes. */
  grown(): number;
}

/** Allocated bytes of a file, or of a directory with all that is in it. */
function allocatedBytes(path: string): number {
  return Number(execFileSync('du', ['-s', '--block-size=1', path], { encoding: 'utf8' }).split('\t')[0]);
}

async function startOurs(cleanup: Cleanup, folder: string, store: string): Promise<Contestant> {
  const overlay = join(folder, 'overlay');
  mkdirSync(overlay);
  const options = ['latest', '--store', store, '--owner', 'postgres', '--overlay', overlay];
  const server = await startKlosetNbd(join(folder, 'ours'), options);
  cleanup.add(() => server.stop());
  const before = allocatedBytes(overlay);
  return { name: 'kloset-nbd', uri: server.uri, grown: () => allocatedBytes(overlay) - before };
}

async function startQemu(cleanup: Cleanup, folder: string, uri: string): Promise<Contestant> {
  const [base, image, socket] = [join(folder, 'base.raw'), join(folder, 'overlay.qcow2'), join(folder, 'qemu')];
  await mustRun('nbdcopy', [uri, base]);
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, image]);
  const child = spawn('qemu-nbd', ['-f', 'qcow2', '--discard=unmap', '-t', '-k', socket, image], { stdio: 'inherit' });
  cleanup.add(() => stop(child));
  while (!existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 20));
  const before = allocatedBytes(image);
  return { name: 'qemu-nbd, qcow2', uri: `nbd+unix:///?socket=${socket}`, grown: () => allocatedBytes(image) - before };
}

/** Mounts, starts PostgreSQL, does `work`, stops and unmounts; resolves to what the overlay has grown by then. */
async function during(
  { uri, grown }: Contestant,
  work: (postgres: RunningPostgres, dataFolder: string) => Promise<void>,
): Promise<number> {
  const cleanup = new Cleanup();
  try {
    const device = await attachDevice(cleanup, uri);
    const mounted = await mountDevice(cleanup, device.path, { options: 'noatime' });
    const postgres = await startPostgres(cleanup, mounted.folder);
    await work(postgres, mounted.folder);
    await postgres.stop();
    await mounted.unmount();
    await device.detach();
    return grown();
  } finally {
    await cleanup.run();
  }
}

async function pgbench(postgres: RunningPostgres): Promise<void> {
  const perClient = Math.ceil(Number(values.transactions) / Number(values.clients));
  const load = ['-n', '-c', values.clients, '-t', String(perClient), '--random-seed=1'];
  await mustRun(join(findPostgres15()!, 'pgbench'), [...load, ...postgres.clientArguments, 'postgres']);
}

function describeWal(dataFolder: string): string {
  const files = readdirSync(join(dataFolder, 'pg_wal')).filter((name) => /^[0-9A-F]{24}$/.test(name));
  return `${files.length} WAL files (${files.sort().join(', ')})`;
}

const cleanup = new Cleanup();
try {
  const folder = temporaryFolder(cleanup);
  const ours = await startOurs(cleanup, folder, values.store);
  const qemu = await startQemu(cleanup, folder, ours.uri);
  const version = (command: string) => execFileSync(command, ['--version'], { encoding: 'utf8' }).split('\n')[0];
  console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}, load ${os.loadavg()[0]!.toFixed(1)}`);
  console.log(`node ${process.version}; ${version('qemu-nbd')}; ${version(join(findPostgres15()!, 'postgres'))}`);
  console.log(
    `store ${values.store}; pgbench: ${values.transactions} transactions, ${values.clients} clients, seed 1\n`,
  );
  const results: Record<string, number[]> = {};
  for (const contestant of [ours, qemu]) {
    const started = await during(contestant, async (_, data) => {
      console.log(`${contestant.name}: after the start ${describeWal(data)}`);
    });
    const ran = await during(contestant, async (postgres, data) => {
      await pgbench(postgres);
      console.log(`${contestant.name}: after pgbench ${describeWal(data)}`);
    });
    results[contestant.name] = [started, ran - started];
  }
  for (const [index, what] of ['start and stop', 'one run of pgbench'].entries()) {
    const [own, others] = [results[ours.name]![index]!, results[qemu.name]![index]!];
    const inMiB = (bytes: number) => `${(bytes / MiB).toFixed(1)} MiB`;
    console.log(`${what}: ${inMiB(own)}, ${qemu.name} ${inMiB(others)}: ${(own / others).toFixed(2)} x`);
  }
} finally {
  await cleanup.run();
}
