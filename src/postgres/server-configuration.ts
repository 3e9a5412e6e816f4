/** The configuration files that a server of a backup gets: outside of its data directory, made anew. */
import { chmod, chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../core/log.ts';
import { formatConfiguration } from './configuration.ts';
import { containedConfiguration, type Difference } from './contained-configuration.ts';
import type { Examination } from './examination.ts';
import type { PgOptions } from './pg-session.ts';
import type { User } from './postgres-server.ts';

export interface ServerConfiguration {
  /** Path of its postgresql.conf. */
  readonly file: string;
  /** Leaves out those of the backup's values, which the server does not take. Resolves to false if they are not the backup's. */
  withdraw(names: readonly string[]): Promise<boolean>;
}

/** The part of a memory group that PostgreSQL's shared buffers may have. */
const SHARED_PART = 4;

/** Writes them beside `host`, and logs what of the backup's is not used. */
export async function writeConfiguration(
  options: PgOptions,
  parts: { examination: Examination; host: string; user: User; snapshotId: string },
): Promise<ServerConfiguration> {
  const { log } = options;
  const { examination, host, user, snapshotId } = parts;
  const { backupSettings: backup } = examination;
  const directory = await ownedDirectory(`${host}-conf`, user);
  const path = (name: string) => join(directory, name);
  const write = async (name: string, text: string) => {
    await writeFile(path(name), text, { mode: 0o600 });
    await chown(path(name), user.uid, user.gid);
  };
  const contained = containedConfiguration({
    backup,
    control: examination.control,
    major: examination.server.major,
    place: {
      socketDirectory: host,
      port: options.port,
      hbaFile: path('pg_hba.conf'),
      identFile: path('pg_ident.conf'),
      clusterName: `kloset-nbd ${snapshotId.slice(0, 8)}`,
      isThrowAway: options.disk.clone === undefined,
    },
    locales: await examination.server.locales(),
    sharedBytesMax: options.memory && options.memory.databaseBytesMax / SHARED_PART,
    keepSettings: options.keepSettings,
  });
  logDifferences(contained.differences, log);
  const settings = new Map(contained.settings);
  const file = path('postgresql.conf');
  await write('pg_hba.conf', 'local all all trust\n');
  await write('pg_ident.conf', '');
  await write('postgresql.conf', formatConfiguration(settings));
  return {
    file,
    async withdraw(names) {
      const refused = names.filter((name) => backup.has(name) && settings.get(name) === backup.get(name));
      if (refused.length < names.length) return false;
      for (const name of refused) {
        log.warn(
          { setting: name, backup: backup.get(name) },
          `Not used: ${name} = '${backup.get(name)}', which this server does not take`,
        );
        settings.delete(name);
      }
      await write('postgresql.conf', formatConfiguration(settings));
      return true;
    },
  };
}

/** Makes a directory that is that user's alone. */
export async function ownedDirectory(path: string, { uid, gid }: User): Promise<string> {
  await mkdir(path, { mode: 0o700 });
  await chown(path, uid, gid);
  await chmod(path, 0o700);
  return path;
}

/** More settings than PostgreSQL has, extensions' included, are told as a number. */
const DIFFERENCES_TOLD_MAX = 1000;

function logDifferences(differences: readonly Difference[], log: Log): void {
  const untold = differences.length - DIFFERENCES_TOLD_MAX;
  if (untold > 0) log.info({ count: untold }, `Not used: ${untold} further settings`);
  for (const { name, backup, used } of differences.slice(0, DIFFERENCES_TOLD_MAX)) {
    log.info(
      { setting: name, backup, used },
      `Not used: ${name} = '${backup}'${used === undefined ? '' : `; here '${used}'`}`,
    );
  }
}
