/**
 * The first row of a backup: `kloset-nbd pg … -- psql`, from the command to the row, against PostgreSQL on a local ext4 that
 * holds the same data restored, from its start to the row. Wanted: within 3 s of it.
 *
 *   npm run bench:pg [-- --store DIRECTORY --snapshot latest --rounds 5 --query 'select * from photo limit 1']
 *
 * Interleaved, as a machine is never twice the same. Needs root, loop devices, nbdfuse (or the kernel's nbd) and PostgreSQL 15.
 * Each restore is a fresh copy, which recovers as the backup does; making it is not counted, the recovery is.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { builtCli, mustRun } from '../test/support/cli.ts';
import { Cleanup, projectRoot, temporaryFolder } from '../test/support/fixtures.ts';
import { startPostgres } from '../test/support/postgres.ts';
import { findPostgres15 } from '../test/support/requires.ts';

const { values } = parseArgs({
  options: {
    store: { type: 'string', default: join(projectRoot, 'fixtures/stores/album') },
    snapshot: { type: 'string', default: 'latest' },
    rounds: { type: 'string', default: '5' },
    query: { type: 'string', default: 'select * from photo limit 1' },
  },
});
const programs = findPostgres15();
if (programs === undefined) throw new Error('PostgreSQL 15 is not installed');
const WANTED_SECONDS = 3;
const cleanup = new Cleanup();
try {
  const version = (await mustRun(join(programs, 'postgres'), ['--version'])).trim();
  console.log(
    `machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; ${os.release()}; node ${process.version}; ${version}`,
  );
  const image = join(temporaryFolder(cleanup), 'restored.raw');
  const words = [
    'export',
    values.snapshot,
    '--store',
    values.store,
    '--owner',
    'postgres',
    '--format',
    'raw',
    '--to',
    image,
  ];
  await mustRun(process.execPath, [builtCli, ...words]);
  const ours: number[] = [];
  const local: number[] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    ours.push(await firstRow());
    local.push(await onLocalExt4(image));
    console.log(`round ${round + 1}: pg ${ours.at(-1)!.toFixed(2)} s, local ext4 ${local.at(-1)!.toFixed(2)} s`);
  }
  const more = median(ours) - median(local);
  console.log(`median: pg ${median(ours).toFixed(2)} s, local ext4 ${median(local).toFixed(2)} s`);
  console.log(
    `difference: ${more.toFixed(2)} s; wanted ${WANTED_SECONDS} s at most: ${more <= WANTED_SECONDS ? 'yes' : 'NO'}`,
  );
} finally {
  await cleanup.run();
}

/** Seconds from the command to the row; taking everything down is not counted. */
async function firstRow(): Promise<number> {
  const psql = [join(programs!, 'psql'), '-XAt', '-c', values.query];
  const words = ['pg', values.snapshot, '--store', values.store, '--log-level', 'error', '--', ...psql];
  const started = performance.now();
  const child = spawn(process.execPath, [builtCli, ...words], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  let row: number | undefined;
  child.stdout.once('data', () => {
    row = (performance.now() - started) / 1000;
  });
  const [status] = await ended;
  if (status !== 0 || row === undefined) throw new Error(`pg ended with ${status}`);
  return row;
}

/** Seconds from the server's start to the row. */
async function onLocalExt4(image: string): Promise<number> {
  const round = new Cleanup();
  try {
    const folder = temporaryFolder(round);
    const copy = join(temporaryFolder(round), 'disk');
    await mustRun('cp', ['--sparse=always', image, copy]);
    await mustRun('mount', ['-o', 'loop', copy, folder]);
    round.add(() => mustRun('umount', [folder]));
    const started = performance.now();
    const postgres = await startPostgres(round, folder);
    await postgres.query(values.query);
    return (performance.now() - started) / 1000;
  } finally {
    await round.run();
  }
}

function median(of: readonly number[]): number {
  return [...of].sort((a, b) => a - b)[Math.floor(of.length / 2)]!;
}
