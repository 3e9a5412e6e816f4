/** PostgreSQL 15 on a mounted PGDATA, run as the user postgres, reached through a socket in a temporary folder. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { mustRun, type RunOptions } from './cli.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { findPostgres15, type Need } from './requires.ts';

/** For `requires(...)`, beside what mounting needs. */
export const postgresNeeds = ['root', 'postgres15'] as const satisfies readonly Need[];

export interface RunningPostgres {
  /** Rows as psql prints them unaligned, without headers: `4000`, `a|b`. Rejects with psql's message. */
  query(sql: string): Promise<string>;
  /** Where programs such as pgbench find it, and as whom. */
  readonly clientArguments: readonly string[];
  /** Shuts down: `fast` with a checkpoint, `immediate` as after a crash. Idempotent. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
}

/** What the server says once it takes connections. */
const READY = 'database system is ready to accept connections';

/**
 * Starts the server and waits until it answers; rejects with its log if it does not start. `parameters` are settings
 * as `fsync=off`, which overrule the cluster's own.
 */
export async function startPostgres(
  cleanup: Cleanup,
  dataFolder: string,
  { parameters = [] }: { parameters?: readonly string[] } = {},
): Promise<RunningPostgres> {
  const programs = findPostgres15();
  if (programs === undefined) throw new Error("the test lacks a requires('postgres15')");
  const user = postgresUser();
  const folder = temporaryFolder(cleanup);
  chownSync(folder, user.uid, user.gid);
  const asPostgres: RunOptions = { ...user, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C' } };
  const own = ['listen_addresses=', `unix_socket_directories=${folder}`, 'port=5432', 'logging_collector=off'];
  const settings = [...parameters, ...own];
  // A child, not a daemon of pg_ctl's: its end is seen, and its process id is free again, which a restart looks at.
  const server = spawn(
    join(programs, 'postgres'),
    ['-D', dataFolder, ...settings.flatMap((setting) => ['-c', setting]), '-c', 'log_destination=stderr'],
    { ...asPostgres, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const ended = once(server, 'close');
  const stop = async (mode: 'fast' | 'immediate' = 'fast') => {
    if (server.exitCode === null && server.signalCode === null) server.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
    await ended;
  };
  cleanup.add(() => stop('immediate'));
  await saysReady(server.stderr);
  const clientArguments = ['-h', folder, '-p', '5432', '-U', 'postgres'];
  return {
    stop,
    clientArguments,
    async query(sql) {
      const args = [...clientArguments, '-d', 'postgres', '-v', 'ON_ERROR_STOP=1'];
      return (await mustRun(join(programs, 'psql'), [...args, '--no-psqlrc', '-At', '-c', sql], asPostgres)).trim();
    },
  };
}

/** Resolves with the line that says so; rejects with the whole log if that ends without it. */
async function saysReady(log: Readable): Promise<void> {
  const lines: string[] = [];
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: log })
      .on('line', (line) => {
        lines.push(line);
        if (line.includes(READY)) resolve();
      })
      .on('close', () => reject(new Error(`PostgreSQL does not start:\n${lines.join('\n')}`)));
  });
}

/** The user the distribution made for PostgreSQL. */
export function postgresUser(): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}
