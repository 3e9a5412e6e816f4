/** Options of `pg`, and signals at the wrong moment. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { builtCli, mustRun } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { makeCluster, runSql } from '../support/pg-cluster.ts';
import { leftOnMachine } from '../support/pg-kill.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');
const psql = () => join(findPostgres15()!, 'psql');

describe.skipIf(need.missing)(need.title('pg and drill'), () => {
  test('--idle ends it when nobody is connected, and not before', async () => {
    const sessions = sessionsIn(cleanup);
    const pg = await sessions.start('latest', '--store', albumStore, '--idle', '3s');
    const slept = await mustRun(psql(), ['-h', pg.host(), '-U', 'postgres', '-qAt', '-c', 'select pg_sleep(6), 7']);
    expect(slept).toBe('|7\n');
    expect(await pg.ended).toBe(0);
    expect(sessions.leftOver()).toEqual([]);
  });

  test("--keep-settings lets the backup's own settings and its roles' act, inside", async () => {
    const outside = temporaryFolder(cleanup);
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, ["alter role postgres set dynamic_library_path = '/mine'"]);
    appendFileSync(
      join(cluster.data, 'postgresql.conf'),
      `listen_addresses = '*'\nseq_page_cost = 3\nautovacuum_naptime = 77\nexternal_pid_file = '${outside}/pid'\n`,
    );
    const store = await storeOfFolder(cleanup, cluster.data);
    const shown = ['autovacuum_naptime', 'autovacuum', 'dynamic_library_path', 'listen_addresses'];
    const words = ['--', psql(), '-qAt', ...shown.flatMap((name) => ['-c', `show ${name}`])];
    const sessions = sessionsIn(cleanup);
    const kept = await sessions.run('pg', '--store', store, '--keep-settings', '--log-level', 'error', ...words);
    expect(kept).toMatchObject({ exitCode: 0, stdout: '77s\non\n/mine\n\n' });
    const usual = await sessions.run('pg', '--store', store, '--log-level', 'error', ...words);
    expect(usual).toMatchObject({ exitCode: 0, stdout: '1min\noff\n$libdir\n\n' });
    expect(existsSync(join(outside, 'pid'))).toBe(false);
  });

  test('--unsafe-network says so, and leaves nothing even after kill -9', async () => {
    const sessions = sessionsIn(cleanup);
    const pg = await sessions.start('latest', '--store', albumStore, '--unsafe-network', '--json');
    expect(JSON.parse(pg.said)).toMatchObject({ contained: false });
    expect(leftOnMachine(sessions.directory).length).toBeGreaterThan(0);
    pg.process.kill('SIGKILL');
    expect(await pg.ended).toBe('SIGKILL');
    const left = () => [...leftOnMachine(sessions.directory), ...sessions.leftOver()];
    await expect.poll(left, { timeout: 30_000 }).toEqual([]);
  });

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)('drill ends in order when %s comes while a check runs', async (signal, status) => {
    const sessions = sessionsIn(cleanup);
    const sql = join(temporaryFolder(cleanup), 'slow.sql');
    writeFileSync(sql, 'select pg_sleep(1000)');
    const env = { ...process.env, KLOSET_NBD_RUN_DIR: sessions.directory };
    const words = [builtCli, 'drill', '--store', albumStore, '--sql', sql, '--log-level', 'error'];
    const child = spawn(process.execPath, words, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = once(child, 'close');
    const said = text(child.stderr);
    // The next check runs until it is ended.
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => line.startsWith('passed   pg_amcheck postgres') && child.kill(signal));
    expect(await ended).toEqual([status, null]);
    expect(await said).toBe(`kloset-nbd: Ended by ${signal}.\n`);
    expect(sessions.leftOver()).toEqual([]);
    await expect.poll(() => leftOnMachine(sessions.directory), { timeout: 30_000 }).toEqual([]);
  });
});
