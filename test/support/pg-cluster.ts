/** Clusters that tests make, change and back up. */
import { chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun, type RunOptions } from './cli.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { postgresUser, startPostgres } from './postgres.ts';
import { findPostgres15 } from './requires.ts';

export interface MadeCluster {
  /** Holds nothing but `data`, the data directory. */
  readonly folder: string;
  readonly data: string;
}

/** A new cluster with data checksums and 1 MiB WAL segments, not running. */
export async function makeCluster(cleanup: Cleanup): Promise<MadeCluster> {
  const folder = temporaryFolder(cleanup);
  const user = postgresUser();
  const data = join(folder, 'data');
  mkdirSync(data, { mode: 0o700 });
  for (const path of [folder, data]) chownSync(path, user.uid, user.gid);
  const options: RunOptions = { ...user, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C' } };
  const words = ['-D', data, '-U', 'postgres', '-A', 'trust', '-k', '--wal-segsize=1', '-N'];
  await mustRun(join(findPostgres15()!, 'initdb'), words, options);
  return { folder, data };
}

/** Runs SQL in the cluster, each text in a session of its own, and stops it: in order, or as in a crash. */
export async function runSql(
  cleanup: Cleanup,
  cluster: MadeCluster,
  statements: readonly string[],
  { stop = 'fast' }: { stop?: 'fast' | 'immediate' } = {},
): Promise<void> {
  const postgres = await startPostgres(cleanup, cluster.data);
  for (const sql of statements) await postgres.query(sql);
  await postgres.stop(stop);
}
