/**
 * PostgreSQL under pgbench on an exported disk whose server is killed at random moments. What was acknowledged as
 * committed is noted outside, and has to be there when the disk is back.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { expect } from 'vitest';
import { mustRun, type RunningServer, startServer } from './cli.ts';
import { albumStore, Cleanup, temporaryFolder } from './fixtures.ts';
import { attachDevice, fsckRemarks, mountDevice } from './mount.ts';
import type { Random } from './overlay-random.ts';
import { postgresUser, type RunningPostgres, startPostgres } from './postgres.ts';
import { findPostgres15 } from './requires.ts';

const LEDGER_CLIENTS = 3;
const BENCH_CLIENTS = 4;
/** A round's server lives for so long under load, and up to twice that. */
const LIFE_MS = 700;

/** The server, with its disk attached, mounted, and PostgreSQL on it. */
interface Stack {
  readonly server: RunningServer;
  readonly postgres: RunningPostgres;
  readonly dataFolder: string;
  /** After a kill: everything that is left of it. */
  clear(): Promise<void>;
  /** In order; resolves to what e2fsck and pg_checksums remark. */
  takeDown(): Promise<readonly string[]>;
}

async function bringUp(overlay: string): Promise<Stack> {
  const cleanup = new Cleanup();
  try {
    const options = ['latest', '--store', albumStore, '--owner', 'postgres', '--overlay', overlay, '--free', '1G'];
    const server = await startServer(cleanup, options);
    const device = await attachDevice(cleanup, server.uris[0]!);
    const mounted = await mountDevice(cleanup, device.path);
    const postgres = await startPostgres(cleanup, mounted.folder);
    return {
      server,
      postgres,
      dataFolder: mounted.folder,
      clear: () => cleanup.run(),
      async takeDown() {
        await postgres.stop();
        await asPostgres('pg_checksums', ['--check', '-D', mounted.folder]);
        await mounted.unmount();
        const remarks = await fsckRemarks(device.path);
        await cleanup.run();
        return remarks;
      },
    };
  } catch (error) {
    await cleanup.run();
    throw error;
  }
}

function asPostgres(program: string, args: readonly string[]): Promise<string> {
  return mustRun(join(findPostgres15()!, program), args, { ...postgresUser(), cwd: '/' });
}

/** Inserts one number after the other; `acknowledged` has those whose commit was answered. */
class LedgerWriter {
  readonly acknowledged: number[] = [];
  readonly #psql: ChildProcessByStdio<Writable, Readable, null>;
  readonly #ended: Promise<unknown>;

  constructor(postgres: RunningPostgres, first: number) {
    const args = [...postgres.clientArguments, '-d', 'postgres', '--no-psqlrc', '-qAt'];
    this.#psql = spawn(join(findPostgres15()!, 'psql'), args, { stdio: ['pipe', 'pipe', 'ignore'] });
    this.#ended = once(this.#psql, 'close');
    this.#psql.stdin.on('error', () => this.#psql.stdin.destroy()); // The server it talks to dies: that is the test.
    let next = first;
    const insert = () => this.#psql.stdin.write(`insert into ledger values (${next++}) returning entry;\n`);
    createInterface({ input: this.#psql.stdout }).on('line', (line) => {
      this.acknowledged.push(Number(line));
      insert();
    });
    insert();
  }

  async stop(): Promise<void> {
    this.#psql.kill('SIGKILL');
    await this.#ended;
  }
}

/** Runs pgbench until it is stopped; resolves then to the transactions that were acknowledged to it. */
function startPgbench(postgres: RunningPostgres, folder: string): { stop(): Promise<number> } {
  const load = ['-n', '-c', String(BENCH_CLIENTS), '-T', '600', '--log', '--log-prefix', join(folder, 'transactions')];
  const pgbench = spawn(join(findPostgres15()!, 'pgbench'), [...load, ...postgres.clientArguments, 'postgres'], {
    stdio: 'ignore',
  });
  const ended = once(pgbench, 'close');
  return {
    async stop() {
      // It ends by itself when PostgreSQL is gone, and writes its log then.
      await ended;
      const logs = readdirSync(folder).filter((name) => name.startsWith('transactions.'));
      return logs.reduce((lines, name) => lines + readFileSync(join(folder, name), 'utf8').split('\n').length - 1, 0);
    },
  };
}

/** `rounds` kills; resolves to how many commits had been acknowledged, all of them found. */
export async function killUnderPgbench(
  cleanup: Cleanup,
  { random, rounds }: { random: Random; rounds: number },
): Promise<{ ledgerEntries: number; transactions: number }> {
  const overlay = join(temporaryFolder(cleanup), 'overlay');
  await prepare(overlay);
  const ledger = new Set<number>();
  let transactions = 0;
  for (let round = 0; round < rounds; round++) {
    const folder = temporaryFolder(cleanup);
    const stack = await bringUp(overlay);
    const pgbench = startPgbench(stack.postgres, folder);
    const writers = Array.from(
      { length: LEDGER_CLIENTS },
      (_, index) => new LedgerWriter(stack.postgres, (round * LEDGER_CLIENTS + index) * 1_000_000),
    );
    await new Promise((resolve) => setTimeout(resolve, LIFE_MS + random.below(LIFE_MS)));
    stack.server.kill('SIGKILL');
    await stack.server.ended;
    await stack.postgres.stop('immediate').catch(() => undefined); // It may have ended: its disk is gone.
    transactions += await pgbench.stop();
    for (const writer of writers) {
      await writer.stop();
      for (const entry of writer.acknowledged) ledger.add(entry);
    }
    await stack.clear();
    await verify(overlay, { ledger, transactions });
  }
  return { ledgerEntries: ledger.size, transactions };
}

async function prepare(overlay: string): Promise<void> {
  const stack = await bringUp(overlay);
  await asPostgres('pgbench', ['-i', '-q', '-s', '2', ...stack.postgres.clientArguments, 'postgres']);
  await stack.postgres.query('create table ledger (entry bigint primary key); create extension amcheck');
  await stack.postgres.stop();
  const state = await asPostgres('pg_controldata', [stack.dataFolder]);
  if (/checksum version: +0/.test(state)) await asPostgres('pg_checksums', ['--enable', '-D', stack.dataFolder]);
  await stack.takeDown();
}

/** Starts all anew, and looks at everything that was promised. */
async function verify(overlay: string, wanted: { ledger: ReadonlySet<number>; transactions: number }): Promise<void> {
  const stack = await bringUp(overlay);
  try {
    const { postgres } = stack;
    const found = new Set((await postgres.query('select entry from ledger')).split('\n').map(Number));
    expect(
      [...wanted.ledger].filter((entry) => !found.has(entry)),
      'acknowledged and lost',
    ).toEqual([]);
    expect(Number(await postgres.query('select count(*) from pgbench_history'))).toBeGreaterThanOrEqual(
      wanted.transactions,
    );
    const sums = [
      'abalance) from pgbench_accounts',
      'tbalance) from pgbench_tellers',
      'bbalance) from pgbench_branches',
    ];
    for (const sum of sums) {
      const agrees = `select (select sum(${sum}) = (select coalesce(sum(delta), 0) from pgbench_history)`;
      expect(await postgres.query(agrees), sum).toBe('t');
    }
    await asPostgres('pg_amcheck', ['--all', '--heapallindexed', ...postgres.clientArguments]);
    expect(await stack.takeDown()).toEqual([]);
  } catch (error) {
    await stack.clear();
    throw error;
  }
}
