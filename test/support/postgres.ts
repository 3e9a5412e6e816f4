/** PostgreSQL 15 on a mounted PGDATA, run as the user postgres, reached through a socket in a temporary folder. */
import { execFileSync } from 'node:child_process';
import { chownSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun, type RunOptions, run } from './cli.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { findPostgres15, type Need } from './requires.ts';

/** For `requires(...)`, beside what mounting needs. */
export const postgresNeeds = ['root', 'postgres15'] as const satisfies readonly Need[];

export interface RunningPostgres {
  /** Rows as psql prints them unaligned, without headers: `4000`, `a|b`. Rejects with psql's message. */
  query(sql: string): Promise<string>;
  /** Shuts down: `fast` with a checkpoint, `immediate` as after a crash. Idempotent. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
}

/** Starts the server and waits until it answers; rejects with its log if it does not start. */
export async function startPostgres(cleanup: Cleanup, dataFolder: string): Promise<RunningPostgres> {
  const programs = findPostgres15();
  if (programs === undefined) throw new Error("the test lacks a requires('postgres15')");
  const user = postgresUser();
  const folder = temporaryFolder(cleanup);
  chownSync(folder, user.uid, user.gid);
  const logFile = join(folder, 'log');
  const asPostgres: RunOptions = { ...user, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C' } };
  const pgCtl = (...args: readonly string[]) =>
    mustRun(join(programs, 'pg_ctl'), ['--pgdata', dataFolder, ...args], asPostgres);
  const settings = `-c listen_addresses= -c unix_socket_directories=${folder} -p 5432`;

  let stopped = false;
  const stop = async (mode: 'fast' | 'immediate' = 'fast') => {
    if (stopped) return;
    stopped = true;
    await pgCtl('stop', '--wait', '--mode', mode);
  };
  try {
    await pgCtl('start', '--wait', '--log', logFile, '--options', settings);
  } catch (error) {
    // It may be half way up; if not, there is nothing to stop.
    await run(join(programs, 'pg_ctl'), ['--pgdata', dataFolder, 'stop', '--mode', 'immediate'], asPostgres);
    throw new Error(`PostgreSQL does not start: ${error}\n${readFileSync(logFile, 'utf8')}`);
  }
  cleanup.add(() => stop('immediate'));
  return {
    stop,
    async query(sql) {
      const args = ['-h', folder, '-p', '5432', '-U', 'postgres', '-d', 'postgres', '-v', 'ON_ERROR_STOP=1'];
      return (await mustRun(join(programs, 'psql'), [...args, '--no-psqlrc', '-At', '-c', sql], asPostgres)).trim();
    },
  };
}

/** The user the distribution made for PostgreSQL. */
export function postgresUser(): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}
