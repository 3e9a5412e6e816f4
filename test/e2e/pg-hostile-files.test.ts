/** Backups with files that are not what their names say, and names that are not what they seem. */
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun } from '../support/cli.ts';
import { changePageSize } from '../support/control-file.ts';
import { cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { makeCluster, runSql } from '../support/pg-cluster.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds, startPostgres } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');
const psql = () => join(findPostgres15()!, 'psql');
const quiet = ['--log-level', 'error'];

describe.skipIf(need.missing)(need.title('pg on a backup whose files and names are not what they seem'), () => {
  test('named pipes and devices keep nobody waiting and reach nothing', async () => {
    const cluster = await makeCluster(cleanup);
    for (const name of ['backup_label', 'tablespace_map', 'recovery.signal', 'pg_stat/pgstat.stat']) {
      rmSync(join(cluster.data, name), { force: true });
      await mustRun('mkfifo', [join(cluster.data, name)]);
    }
    rmSync(join(cluster.data, 'postgresql.conf'));
    await mustRun('mkfifo', [join(cluster.data, 'postgresql.conf')]);
    mkdirSync(join(cluster.data, 'postgresql.auto.conf.d'));
    rmSync(join(cluster.data, 'pg_ident.conf'));
    mkdirSync(join(cluster.data, 'pg_ident.conf'));
    symlinkSync('postgresql.conf', join(cluster.data, 'pg_hba.conf.link'));
    rmSync(join(cluster.data, 'postgresql.auto.conf'));
    symlinkSync('pg_hba.conf', join(cluster.data, 'postgresql.auto.conf'));
    // A block device of no driver: nothing is reached where it may be opened.
    await mustRun('mknod', ['-m', '0666', join(cluster.data, 'device'), 'b', '7', '250']);
    const sessions = sessionsIn(cleanup);
    const store = await storeOfFolder(cleanup, cluster.data);
    const look =
      'head -c 1 device 2>&1; stat -c "%F %s" postgresql.auto.conf; ls pg_stat; findmnt -n -o OPTIONS --target .';
    const sql = `create temp table seen (line text); copy seen from program '${look}'; table seen`;
    const asked = await sessions.run('pg', '--store', store, '--', psql(), '-qAt', '-d', 'postgres', '-c', sql);
    expect(asked.stdout).toMatch(/head: cannot open 'device'.*Permission denied\n/);
    expect(asked.stdout).toMatch(/^regular empty file 0$/m);
    expect(asked.stdout).toMatch(/nosuid,nodev/);
    expect(asked.exitCode).toBe(0);
    expect(asked.stderr).toContain('Left out: 5 named pipes');
    expect(sessions.leftOver()).toEqual([]);
  });

  test('a set-aside that is a symlink is refused', async () => {
    const cluster = await makeCluster(cleanup);
    // In front of the data directory: a clone's disk has the snapshot at its root unless it is told otherwise.
    symlinkSync('data', join(cluster.folder, 'set-aside'));
    const store = await storeOfFolder(cleanup, cluster.folder);
    const sessions = sessionsIn(cleanup);
    const clones = ['--clones', join(temporaryFolder(cleanup), 'clones')];
    const made = await sessions.run(
      'clone',
      'create',
      'mine',
      'latest',
      '--store',
      store,
      '--owner',
      'postgres',
      ...clones,
    );
    expect(made).toMatchObject({ exitCode: 0 });
    const refused = await sessions.run('pg', '--clone', 'mine', '--store', store, ...clones, ...quiet, '--', 'true');
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(/^kloset-nbd: Preparing the data directory failed: .*set-aside is a symlink\n$/);
    expect(sessions.leftOver()).toEqual([]);
  });

  test('names of databases and roles mean themselves, and connect nowhere else', async () => {
    const cluster = await makeCluster(cleanup);
    const databases = ['host=192.0.2.1 dbname=x', `it's "quoted" \\ here`, 'two\nlines', 'Upper*'];
    const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
    await runSql(cleanup, cluster, [
      ...databases.map((name) => `create database ${quoted(name)}`),
      'create table "Odd\nname" as select 1 as a',
      // Our own questions must not find these in place of PostgreSQL's.
      'create schema evil',
      "create function evil.format(text, text, text) returns text language sql as $$ select 'no_such_table' $$",
      'alter role postgres set search_path = evil, pg_catalog, public',
      'alter database postgres set statement_timeout = 1',
    ]);
    const store = await storeOfFolder(cleanup, cluster.data);
    const sessions = sessionsIn(cleanup);
    const pg = await sessions.start('--store', store, '--json', '--read-only-role');
    expect(JSON.parse(pg.said)).toMatchObject({ user: 'kloset_reader', databases: [...databases, 'postgres'].sort() });
    pg.process.kill('SIGTERM');
    expect(await pg.ended).toBe(0);
    const drilled = await sessions.run('drill', '--store', store, '--json', ...quiet);
    expect(drilled).toMatchObject({ exitCode: 0 });
    const { checks } = JSON.parse(drilled.stdout) as { checks: { name: string; text: string }[] };
    expect(checks.find(({ name }) => name === 'row counts postgres')?.text).toBe('public."Odd\nname" 1');
    expect(checks.map(({ name }) => name)).toContain('pg_amcheck Upper*');
  });

  test('a role kloset_reader of the backup that may do more is refused', async () => {
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, ['create role kloset_reader superuser']);
    const store = await storeOfFolder(cleanup, cluster.data);
    const refused = await sessionsIn(cleanup).run('pg', '--store', store, '--read-only-role', ...quiet, '--', 'true');
    expect(refused).toMatchObject({ exitCode: 64 });
    expect(refused.stderr).toMatch(/role kloset_reader that may do more than read \(attributes\).*another name/);
  });

  test('settings that point into a live cluster change no byte of it', async () => {
    const live = await makeCluster(cleanup);
    // So that it writes nothing of its own accord.
    appendFileSync(join(live.data, 'postgresql.conf'), 'autovacuum = off\nwal_level = minimal\nmax_wal_senders = 0\n');
    const running = await startPostgres(cleanup, live.data);
    await running.query('checkpoint');
    const before = digest(live.data);
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, [
      'create table t as select 1 as a',
      `create function act() returns int language plpgsql as $$ begin copy (select 1) to program 'touch ${live.data}/acted'; return 1; end $$`,
      "alter role postgres set dynamic_library_path = '/nowhere'",
      // In one session, as no other one starts after it.
      "alter database postgres set local_preload_libraries = 'none'; alter role postgres set session_preload_libraries = 'none'",
    ]);
    mkdirSync(join(cluster.data, 'conf.d'));
    writeFileSync(join(cluster.data, 'conf.d/more.conf'), `log_directory = '${live.data}/log'\n`);
    const lines = [
      `archive_command = 'cp %p ${live.data}/%f'`,
      `restore_command = 'touch ${live.data}/restored'`,
      `archive_cleanup_command = 'touch ${live.data}/cleaned'`,
      "include_dir = 'conf.d'",
      `include_if_exists = '${live.data}/postgresql.conf'`,
      'archive_mode = on',
      'logging_collector = on',
      `data_directory = '${live.data}'`,
      `external_pid_file = '${live.data}/pid'`,
      `stats_temp_directory = '${live.data}'`,
      `temp_tablespaces = 'none'`,
      "shared_preload_libraries = 'no_such_library'",
      "jit_provider = 'no_such_library'",
    ];
    appendFileSync(join(cluster.data, 'postgresql.conf'), `${lines.join('\n')}\n`);
    writeFileSync(join(cluster.data, 'pg_hba.conf'), `local all all ident map=x\nhost all all 0.0.0.0/0 trust\n`);
    writeFileSync(join(cluster.data, 'standby.signal'), '');
    const store = await storeOfFolder(cleanup, cluster.data);
    const words = [
      '--',
      psql(),
      '-qAt',
      '-c',
      'select a from t',
      '-c',
      'select pg_switch_wal() is null',
      '-c',
      'select act()',
    ];
    const asked = await sessionsIn(cleanup).run('pg', '--store', store, ...words);
    // The last is refused, as the host's files are read-only.
    expect(asked.stdout).toBe('1\nf\n');
    expect(asked.stderr).toContain(`Not used: log_directory = '${live.data}/log'`);
    expect(asked.stderr).toMatch(/shared_preload_libraries has no_such_library, which .* does not have here/);
    expect(asked.exitCode).toBe(1);
    expect(digest(live.data)).toEqual(before);
  });

  test('pages of another size and a huge configuration are refused with the next step', async () => {
    const cluster = await makeCluster(cleanup);
    const sessions = sessionsIn(cleanup);
    const refusal = async () => {
      const store = await storeOfFolder(cleanup, cluster.data);
      return sessions.run('pg', '--store', store, ...quiet, '--', 'true');
    };
    const conf = join(cluster.data, 'postgresql.conf');
    const configuration = readFileSync(conf);
    writeFileSync(conf, Buffer.alloc(5 * 2 ** 20, '#'));
    const huge = await refusal();
    expect(huge).toMatchObject({
      exitCode: 65,
      stderr: expect.stringMatching(/postgresql.conf has more than 4.0 MiB.*--clone/),
    });
    writeFileSync(conf, configuration);
    changePageSize(join(cluster.data, 'global/pg_control'), 16_384);
    const pages = await refusal();
    expect(pages).toMatchObject({
      exitCode: 78,
      stderr: expect.stringMatching(/has pages of 16384 bytes; .*--pg-bin/),
    });
    expect(sessions.leftOver()).toEqual([]);
  });

  test('extensions and collations that are not as they were are told', async () => {
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, [
      "update pg_extension set extname = 'gone' where extname = 'plpgsql'",
      "update pg_database set datcollversion = 'old', datcollate = 'C.UTF-8', datctype = 'C.UTF-8' where datname = 'postgres'",
    ]);
    const store = await storeOfFolder(cleanup, cluster.data);
    const asked = await sessionsIn(cleanup).run('pg', '--store', store, '--log-level', 'warn', '--', 'true');
    expect(asked).toMatchObject({ exitCode: 0 });
    expect(asked.stderr).toMatch(/Database postgres uses extensions that are not installed here: gone/);
  });
});

/** By name: kind, rights, owner and content. */
function digest(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  return Object.fromEntries(
    entries.map((name) => {
      const path = join(folder, name);
      const stat = lstatSync(path);
      const content = stat.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
      return [name, `${stat.mode} ${stat.uid} ${content}`];
    }),
  );
}
