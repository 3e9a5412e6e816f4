/** Backups that mean harm, or that cannot start as they are. */
import {
  appendFileSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { makeCluster, runSql } from '../support/pg-cluster.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds, postgresUser } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');
const psql = () => join(findPostgres15()!, 'psql');
const quiet = ['--log-level', 'error'];

describe.skipIf(need.missing)(need.title('pg on a backup that is not as it should be'), () => {
  test('nothing of a hostile backup acts, and all of it is listed', async () => {
    const marks = temporaryFolder(cleanup);
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, [
      'create table kept as select 42 as answer',
      "select pg_create_physical_replication_slot('someone', true)",
      "alter database postgres set search_path = 'public', 'elsewhere'",
      `create function mark() returns event_trigger language plpgsql as $$ begin copy (select 1) to program 'touch ${marks}/event'; end $$`,
      'create event trigger marks on ddl_command_start execute function mark()',
      // The last: no session starts after it.
      "alter role postgres set session_preload_libraries = 'no_such_library'",
    ]);
    appendFileSync(
      join(cluster.data, 'postgresql.conf'),
      [
        "archive_mode = 'always'",
        `archive_command = 'touch ${marks}/archive'`,
        `restore_command = 'touch ${marks}/restore'`,
        `recovery_end_command = 'touch ${marks}/end'`,
        "shared_preload_libraries = 'no_such_library'",
        `log_directory = '${marks}/log'`,
        'logging_collector = on',
        `external_pid_file = '${marks}/pid'`,
        "primary_conninfo = 'host=192.0.2.1'",
        '',
      ].join('\n'),
    );
    writeFileSync(join(cluster.data, 'standby.signal'), '');
    writeFileSync(join(cluster.data, 'postgresql.auto.conf'), "synchronous_standby_names = 'other'\n");
    const store = await storeOfFolder(cleanup, cluster.data);
    const sessions = sessionsIn(cleanup);
    const sql =
      'create table made (a int); select answer from kept; show search_path; select count(*) from pg_replication_slots';
    const asked = await sessions.run('pg', '--store', store, '--', psql(), '-At', '-c', sql);
    expect(asked.stdout).toBe('CREATE TABLE\n42\npublic, elsewhere\n0\n');
    expect(readdirSync(marks)).toEqual([]);
    const log = asked.stderr
      .split('\n')
      .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line).msg as string] : []));
    expect(log).toContain("Not used: archive_mode = 'always'; here 'off'");
    expect(log).toContain("Not used: synchronous_standby_names = 'other'; here ''");
    expect(log).toContain('Not used: session_preload_libraries=no_such_library of role postgres');
    expect(log.find((line) => line.startsWith('Set aside in the clone'))).toMatch(
      /postgresql\.auto\.conf, .*standby\.signal.*pg_replslot/,
    );
  });

  test('a link into another cluster stops the start, names it, and touches nothing', async () => {
    const cluster = await makeCluster(cleanup);
    const live = join(temporaryFolder(cleanup), 'wal');
    renameSync(join(cluster.data, 'pg_wal'), live);
    symlinkSync(live, join(cluster.data, 'pg_wal'));
    const before = readdirSync(live).map((name) => [name, existsSync(join(live, name))]);
    const store = await storeOfFolder(cleanup, cluster.data);
    const sessions = sessionsIn(cleanup);
    const refused = await sessions.run('pg', '--store', store, ...quiet, '--', 'true');
    expect(refused.exitCode).toBe(64);
    expect(refused.stderr).toContain(`/pg_wal -> ${live}`);
    expect(readdirSync(live).map((name) => [name, existsSync(join(live, name))])).toEqual(before);
    expect(sessions.leftOver()).toEqual([]);
  });

  test('a tablespace is used where the snapshot has it, and left out only when told so', async () => {
    const cluster = await makeCluster(cleanup);
    const space = join(cluster.folder, 'space');
    mkdirSync(space);
    chownSync(space, postgresUser().uid, postgresUser().gid);
    await runSql(cleanup, cluster, [
      `create tablespace aside location '${space}'`,
      'create table here as select 1 as a; ',
      'create table there tablespace aside as select 2 as a',
    ]);
    const sessions = sessionsIn(cleanup);
    const whole = await storeOfFolder(cleanup, cluster.folder, cluster.folder);
    const both = await sessions.run('pg', '--store', whole, ...quiet, '--', psql(), '-At', '-c', 'select a from there');
    expect(both).toMatchObject({ exitCode: 0, stdout: '2\n' });
    const half = await storeOfFolder(cleanup, cluster.data);
    const refused = await sessions.run('pg', '--store', half, ...quiet, '--', 'true');
    expect(refused.exitCode).toBe(64);
    expect(refused.stderr).toContain('--without-tablespaces');
    const without = ['--without-tablespaces', ...quiet, '--', psql(), '-At', '-c', 'select a from here'];
    expect(await sessions.run('pg', '--store', half, ...without)).toMatchObject({ exitCode: 0, stdout: '1\n' });
  });

  test('of several data directories one is named, and its tablespaces are found beside it', async () => {
    const cluster = await makeCluster(cleanup);
    const space = join(cluster.folder, 'space');
    mkdirSync(space);
    chownSync(space, postgresUser().uid, postgresUser().gid);
    const sql = [`create tablespace aside location '${space}'`, 'create table there tablespace aside as select 2 as a'];
    await runSql(cleanup, cluster, sql);
    cpSync(cluster.data, join(cluster.folder, 'other'), { recursive: true, verbatimSymlinks: true });
    const store = await storeOfFolder(cleanup, cluster.folder, cluster.folder);
    const sessions = sessionsIn(cleanup);
    const ask = (sql: string, ...words: string[]) =>
      sessions.run('pg', ...words, '--store', store, ...quiet, '--', psql(), '-qAt', '-c', sql);
    expect((await ask('', 'latest')).stderr).toContain(`${cluster.folder}/data, ${cluster.folder}/other. Name one`);
    expect(await ask('select a from there', 'latest:data')).toMatchObject({ exitCode: 0, stdout: '2\n' });
    const clone = ['--clones', join(temporaryFolder(cleanup), 'clones'), '--clone', 'mine'];
    const made = await ask('create table made as select a + 1 as b from there', 'latest:data', ...clone);
    expect(made).toMatchObject({ exitCode: 0 });
    expect(await ask('select b from made', ...clone)).toMatchObject({ exitCode: 0, stdout: '3\n' });
  });

  test('links in place of directories stop the start, relative ones too', async () => {
    const cluster = await makeCluster(cleanup);
    const live = temporaryFolder(cleanup);
    renameSync(join(cluster.data, 'base'), join(live, 'base'));
    symlinkSync(join(live, 'base'), join(cluster.data, 'base'));
    symlinkSync('../../../../../../../../../var/lib/postgresql', join(cluster.data, 'pg_tblspc/16999'));
    symlinkSync('/etc/hostname', join(cluster.data, 'postgresql.auto.conf.new'));
    const sessions = sessionsIn(cleanup);
    const store = await storeOfFolder(cleanup, cluster.data);
    const refused = await sessions.run('pg', '--store', store, '--without-tablespaces', ...quiet, '--', 'true');
    expect(refused.exitCode).toBe(64);
    expect(refused.stderr).toContain(`/base -> ${live}/base`);
    expect(refused.stderr).toContain('/postgresql.auto.conf.new -> /etc/hostname');
    expect(sessions.leftOver()).toEqual([]);
  });

  test('a locale that this machine lacks is named: of one database, and of all', async () => {
    const cluster = await makeCluster(cleanup);
    const lose = (name: string) => `update pg_database set datctype = 'xx_XX' where datname = '${name}'`;
    await runSql(cleanup, cluster, ['create database other', lose('other')]);
    const sessions = sessionsIn(cleanup);
    const one = await storeOfFolder(cleanup, cluster.data);
    const words = ['--log-level', 'warn', '--', psql(), '-At', '-d', 'postgres', '-c', 'select 1'];
    const warned = await sessions.run('pg', '--store', one, ...words);
    expect(warned).toMatchObject({ exitCode: 0, stdout: '1\n' });
    expect(warned.stderr).toContain('xx_XX');
    await runSql(cleanup, cluster, [lose('template1')]);
    const refused = await sessions.run('pg', '--store', await storeOfFolder(cleanup, cluster.data), ...words);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(
      /^kloset-nbd: PostgreSQL cannot recover the backup: .*xx_XX.*install the missing locale.*\n$/m,
    );
  });

  test('settings that this server does not take are left out, and told', async () => {
    const cluster = await makeCluster(cleanup);
    const lines = ["TimeZone = 'US/Nowhere'", "random_page_cost = 'cheap'", 'geqo = off', ''];
    appendFileSync(join(cluster.data, 'postgresql.conf'), lines.join('\n'));
    const store = await storeOfFolder(cleanup, cluster.data);
    const words = ['--log-level', 'warn', '--', psql(), '-At', '-c', 'show geqo'];
    const asked = await sessionsIn(cleanup).run('pg', '--store', store, ...words);
    expect(asked).toMatchObject({ exitCode: 0, stdout: 'off\n' });
    expect(asked.stderr).toContain("Not used: timezone = 'US/Nowhere', which this server does not take");
    expect(asked.stderr).toContain("Not used: random_page_cost = 'cheap', which");
  });

  test('a copy of a running server needs --force, and starts with it', async () => {
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, ['create table t as select 1 as a'], { stop: 'immediate' });
    const store = await storeOfFolder(cleanup, cluster.data);
    const sessions = sessionsIn(cleanup);
    const refused = await sessions.run('pg', '--store', store, ...quiet, '--', 'true');
    expect(refused).toMatchObject({ exitCode: 64 });
    expect(refused.stderr).toContain('backup_label');
    const forced = await sessions.run(
      'pg',
      '--store',
      store,
      '--force',
      ...quiet,
      '--',
      psql(),
      '-At',
      '-c',
      'table t',
    );
    expect(forced).toMatchObject({ exitCode: 0, stdout: '1\n' });
  });

  test('what cannot start is explained: WAL, version, several, none, a dump', async () => {
    const sessions = sessionsIn(cleanup);
    const refusal = async (folder: string) => {
      const store = await storeOfFolder(cleanup, folder);
      const { exitCode, stderr } = await sessions.run('pg', '--store', store, ...quiet, '--', 'true');
      expect(stderr).toMatch(/^kloset-nbd: [^\n]*\n$/);
      return { exitCode, stderr };
    };
    const cluster = await makeCluster(cleanup);
    const copy = () => {
      const folder = temporaryFolder(cleanup);
      cpSync(cluster.data, join(folder, 'a'), { recursive: true });
      return folder;
    };

    const noWal = copy();
    const segment = readdirSync(join(noWal, 'a/pg_wal')).find((name) => /^[0-9A-F]{24}$/.test(name))!;
    rmSync(join(noWal, 'a/pg_wal', segment));
    expect(await refusal(noWal)).toMatchObject({ exitCode: 65, stderr: expect.stringContaining(segment) });

    const other = copy();
    writeFileSync(join(other, 'a/PG_VERSION'), '99\n');
    expect(await refusal(other)).toMatchObject({ exitCode: 78, stderr: expect.stringContaining('postgresql-99') });

    const two = copy();
    cpSync(cluster.data, join(two, 'b'), { recursive: true });
    expect(await refusal(two)).toMatchObject({ exitCode: 64, stderr: expect.stringContaining('/a, /b') });

    const none = temporaryFolder(cleanup);
    expect(await refusal(none)).toMatchObject({ exitCode: 64, stderr: expect.stringContaining('PG_VERSION') });
    writeFileSync(join(none, 'base.dump'), 'PGDMP');
    expect(await refusal(none)).toMatchObject({ exitCode: 64, stderr: expect.stringContaining('pg_restore') });
    renameSync(join(none, 'base.dump'), join(none, 'monday'));
    expect((await refusal(none)).stderr).toContain('is it the right snapshot?');
    for (const beginning of ['PGDMP\x01', 'toc.dat\0', '--\n-- PostgreSQL database cluster dump\n']) {
      writeFileSync(join(none, 'monday'), beginning.padEnd(100));
      expect((await refusal(none)).stderr).toContain('a logical dump (/monday)');
    }

    const broken = copy();
    const control = readFileSync(join(broken, 'a/global/pg_control'));
    control.writeUInt8(control[30]! ^ 1, 30);
    writeFileSync(join(broken, 'a/global/pg_control'), control);
    expect(await refusal(broken)).toMatchObject({ exitCode: 78, stderr: expect.stringContaining('pg_control') });
    expect(sessions.leftOver()).toEqual([]);
  });
});
