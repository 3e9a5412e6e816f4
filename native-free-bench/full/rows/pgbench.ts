/** pgbench on the backup, on a raw image and on a qcow2 overlay, all through the same attach path. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun } from '../../../test/support/cli.ts';
import { type Cleanup, temporaryFolder } from '../../../test/support/fixtures.ts';
import { findPostgres15 } from '../../../test/support/requires.ts';
import { type Bench, type BenchStore, note, withCleanup } from '../bench.ts';
import { copyOfRawImage, rawImage } from '../raw-image.ts';
import type { Contestant } from '../results.ts';
import { type DiskServer, serveQcow2, serveRaw, startKloset } from '../servers.ts';
import { type DiskSession, startOnDisk } from '../session.ts';
import { usageOf } from '../usage.ts';

const CLIENTS = 4;
/** Turns that each player has in a run: one of some seconds tells little, the same server differs by a third from one to the next. */
const TURNS = 3;
/** Reads the table and its index once, so that whatever fits in caches is there. */
const WARMING = [
  'select sum(abalance) from pgbench_accounts',
  'set enable_seqscan = off; set enable_bitmapscan = off; select count(aid) from pgbench_accounts',
];

interface Player {
  readonly name: Contestant;
  readonly server: DiskServer;
  readonly session: DiskSession;
  /** What its overlay takes on the disk, bytes; undefined where there is none. */
  readonly overlayBytes?: () => number;
  transactions: number;
}

/** All servers run at once and take turns; nobody but the one whose turn it is has anything to do. */
export async function measurePgbench(bench: Bench, store: BenchStore): Promise<void> {
  if (store.data.scale === undefined) return bench.results.skip('row pgbench', 'the fixture has no tables of pgbench');
  if (store.distant !== undefined)
    return bench.results.skip(`row pgbench, ${store.setting}`, 'measured on local stores');
  bench.progress(`pgbench: ${store.setting}`);
  await withCleanup(async (cleanup) => {
    const players = await startPlayers(bench, store, cleanup);
    const before = new Map(players.map(({ name, overlayBytes }) => [name, overlayBytes?.()]));
    for (const { session } of players) for (const sql of WARMING) await session.postgres.query(sql);
    for (const isReadOnly of [true, false]) {
      for (let turn = 0; turn < bench.options.runs * TURNS; turn++) {
        // Whoever comes first has others' writes still on their way to the disk.
        const first = turn % players.length;
        for (const player of [...players.slice(first), ...players.slice(0, first)]) {
          const { tps, transactions } = await pgbench(bench, player, { isReadOnly });
          if (!isReadOnly) player.transactions += transactions;
          note(bench, store, player.name, { [isReadOnly ? 'tps-read' : 'tps-write']: tps });
        }
      }
    }
    for (const { name, server, session, overlayBytes, transactions } of players) {
      await session.stop();
      const grown = overlayBytes && overlayBytes() - before.get(name)!;
      note(bench, store, name, {
        'overlay-growth': grown && grown / transactions,
        'tps-memory': usageOf(server.pid).peakBytes,
      });
      await server.stop();
    }
  });
}

async function startPlayers(bench: Bench, store: BenchStore, cleanup: Cleanup): Promise<Player[]> {
  const folder = temporaryFolder(cleanup);
  const [overlay, qcow2] = [join(folder, 'overlay'), join(folder, 'overlay.qcow2')];
  mkdirSync(overlay, { mode: 0o700 });
  const kloset = { cacheDirectory: temporaryFolder(cleanup), options: ['--overlay', overlay] };
  const play = async (name: Contestant, server: DiskServer, overlayPath?: string): Promise<Player> => ({
    name,
    server,
    session: await startOnDisk(cleanup, server.uri),
    ...(overlayPath === undefined ? {} : { overlayBytes: () => allocatedBytes(overlayPath) }),
    transactions: 0,
  });
  return [
    await play('kloset-nbd', await startKloset(bench, store, kloset, cleanup), overlay),
    await play('raw image', await serveRaw(cleanup, await copyOfRawImage(bench, store, cleanup))),
    await play('qcow2', await serveQcow2(cleanup, await rawImage(bench, store), qcow2), qcow2),
  ];
}

async function pgbench(
  { options }: Bench,
  { session }: Player,
  { isReadOnly }: { isReadOnly: boolean },
): Promise<{ tps: number; transactions: number }> {
  const load = ['-n', '-c', `${CLIENTS}`, '-j', '2', '-T', `${options.loadSeconds}`, `--random-seed=${options.seed}`];
  const words = [...load, ...(isReadOnly ? ['-S'] : []), ...session.postgres.clientArguments, 'postgres'];
  const said = await mustRun(join(findPostgres15()!, 'pgbench'), words);
  return {
    tps: Number(/^tps = ([\d.]+)/m.exec(said)?.[1]),
    transactions: Number(/^number of transactions actually processed: (\d+)/m.exec(said)?.[1]),
  };
}

function allocatedBytes(path: string): number {
  return Number(execFileSync('du', ['-s', '--block-size=1', path], { encoding: 'utf8' }).split('\t')[0]);
}
