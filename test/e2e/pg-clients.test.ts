/** Clients of `pg` reach the clone, whatever the backup and the operator's environment say. */
import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { makeCluster } from '../support/pg-cluster.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds, startPostgres } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');
const psql = () => join(findPostgres15()!, 'psql');
const quiet = ['--log-level', 'error'];

describe.skipIf(need.missing)(need.title('clients of pg'), () => {
  test('connect nowhere else, though their environment names a live server', async () => {
    const live = await startPostgres(cleanup, (await makeCluster(cleanup)).data);
    await live.query(`create function mark() returns event_trigger language plpgsql as 'begin end'`);
    await live.query('create event trigger live on ddl_command_end execute function mark()');
    const [, host, , port, , user] = live.clientArguments;
    const services = join(temporaryFolder(cleanup), 'services');
    writeFileSync(services, `[live]\nhost=${host}\nport=${port}\nuser=${user}\n`);
    const environments = [
      { PGSERVICEFILE: services, PGSERVICE: 'live' },
      // Nobody listens there.
      { PGHOSTADDR: '127.0.0.1' },
      { PGTARGETSESSIONATTRS: 'standby', PGREQUIREAUTH: 'scram-sha-256', PGCHANNELBINDING: 'require' },
    ];
    for (const environment of environments) {
      const sessions = sessionsIn(cleanup, environment);
      const words = [...quiet, '--port', '1', '--', psql(), '-XAt', '-c', "select current_setting('cluster_name')"];
      const asked = await sessions.run('pg', '--store', albumStore, ...words);
      expect(asked, JSON.stringify(environment)).toMatchObject({ exitCode: 0, stdout: 'kloset-nbd 8e457cf5\n' });
    }
    // The backup's event triggers are turned off in the clone; the live server has one, too.
    expect(await live.query('select evtenabled from pg_event_trigger')).toBe('O');
  });

  test('find the socket in its place, whatever runs in the server', async () => {
    const live = await startPostgres(cleanup, (await makeCluster(cleanup)).data);
    const socket = join(live.clientArguments[1]!, '.s.PGSQL.5432');
    const sessions = sessionsIn(cleanup);
    const script = join(temporaryFolder(cleanup), 'swap');
    const swap = `cd $PGHOST; mv ../pg ../gone; rm .s.PGSQL.1; ln -s ${socket} .s.PGSQL.1`;
    const lines = [`${psql()} -Xqc "copy (select 1) to program '${swap}'"`, `exec ${psql()} -XAtc 'show cluster_name'`];
    writeFileSync(script, lines.join('\n'));
    for (const how of [[], ['--unsafe-network']]) {
      const asked = await sessions.run('pg', '--store', albumStore, ...how, '--port', '1', '--', 'sh', script);
      expect(asked.stdout, how.join()).toBe('kloset-nbd 8e457cf5\n');
      expect(asked.stderr).toMatch(/ERROR: {2}program .* failed/);
    }
    expect(sessions.leftOver()).toEqual([]);
  });

  test('get no setting of a role, though a search path hides the catalogs, and a role its rights', async () => {
    const cluster = await makeCluster(cleanup);
    const backedUp = await startPostgres(cleanup, cluster.data);
    const hide = 'create schema hides; create table hides.pg_db_role_setting (like pg_catalog.pg_db_role_setting)';
    // Where single-user mode is.
    await mustRun(psql(), [...backedUp.clientArguments, '-d', 'template1', '-Xqc', hide]);
    for (const sql of [
      `create function mark() returns event_trigger language plpgsql as $$ begin raise 'acts'; end $$`,
      'create role nobody',
      'create event trigger marks on ddl_command_start execute function mark()',
      // In one session, as no other one starts after it.
      "alter database postgres set role = 'nobody'; alter role postgres set session_preload_libraries = 'no_such_library'",
    ]) {
      await backedUp.query(sql);
    }
    await backedUp.stop();
    appendFileSync(join(cluster.data, 'postgresql.conf'), "search_path = 'hides, pg_catalog, public'\n");
    const store = await storeOfFolder(cleanup, cluster.data);
    const sql = 'set role none; create table public.made as select 1 as a; table public.made';
    const asked = await sessionsIn(cleanup).run('pg', '--store', store, ...quiet, '--', psql(), '-XqAt', '-c', sql);
    expect(asked.stderr).toBe('');
    expect(asked).toMatchObject({ exitCode: 0, stdout: '1\n' });
  });
});
