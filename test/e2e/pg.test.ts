/** `kloset-nbd pg` from the command line to psql, and the same way down. */
import { chmodSync, chownSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun, run } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, projectRoot, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds, postgresUser } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');
const psql = () => join(findPostgres15()!, 'psql');
const countPhotos = ['-At', '-c', 'select count(*) from photo'];

describe.skipIf(need.missing)(need.title('pg'), () => {
  test('runs COMMAND against a snapshot, hands its exit status on, and leaves nothing', async () => {
    const sessions = sessionsIn(cleanup);
    const counted = await sessions.run('pg', 'tag:before', '--store', albumStore, '--', psql(), ...countPhotos);
    expect(counted.stdout).toBe('4000\n');
    expect(counted.exitCode).toBe(0);
    // Room for WAL and for what COMMAND writes, though the database is small.
    expect(counted.stderr).toMatch(/is open: \d+ entries on a disk of 16\.\d GiB/);
    const script = 'test -n "$PGHOST" -a -n "$PGPORT" -a "$PGUSER" = postgres && exit 7';
    const failed = await sessions.run('pg', 'tag:after', '--store', albumStore, '--', 'sh', '-c', script);
    expect(failed.exitCode).toBe(7);
    expect(sessions.leftOver()).toEqual([]);
  });

  test('waits for its end without COMMAND, tells programs where it is, and takes everything down', async () => {
    const sessions = sessionsIn(cleanup);
    const pg = await sessions.start('tag:after', '--store', albumStore, '--json', '--read-only-role');
    const { host, port, user, databases, contained } = JSON.parse(pg.said);
    expect({ port, user, databases, contained }).toEqual({
      port: 5432,
      user: 'kloset_reader',
      databases: ['postgres'],
      contained: true,
    });
    const ask = (sql: string) => mustRun(psql(), ['-h', host, '-U', user, '-d', 'postgres', '-At', '-c', sql]);
    expect(await ask('select count(*) from photo')).toBe('3920\n');
    await expect(ask('create table mine (a int)')).rejects.toThrow('read-only transaction');
    const status = JSON.parse((await sessions.run('status', '--json')).stdout);
    expect(status).toMatchObject([{ kind: 'pg', alive: true, pid: pg.process.pid, host }]);
    pg.process.kill('SIGTERM');
    expect(await pg.ended).toBe(0);
    expect(sessions.leftOver()).toEqual([]);
  });

  test('keeps the backup from the host: no network, no file outside, no socket of another server', async () => {
    const sessions = sessionsIn(cleanup);
    const sql = `create table seen (line text);
      copy seen from program 'wc -l < /proc/net/dev; ls /var/lib/postgresql /tmp; touch /etc/kloset-nbd-was-here || echo refused';
      table seen`;
    const { stdout } = await sessions.run('pg', '--store', albumStore, '--', psql(), '-At', '-c', sql);
    // Two head lines and the loopback device, which is down; then a directory of the session's own below /tmp.
    expect(stdout).toMatch(/^CREATE TABLE\nCOPY \d+\n3\n/);
    expect(stdout).toMatch(/\nrefused\n$/);
  });

  test('goes on with a clone where it was left, also after kill -9', async () => {
    const sessions = sessionsIn(cleanup);
    const at = ['--store', albumStore, '--clone', 'mine', '--clones', join(temporaryFolder(cleanup), 'clones')];
    const sql = (text: string) => ['--log-level', 'error', '--', psql(), '-At', '-c', text];
    await sessions.run('pg', 'tag:before', ...at, ...sql('create table mine as select 5 as a'));
    const pg = await sessions.start(...at);
    await mustRun(psql(), ['-h', pg.host(), '-U', 'postgres', '-c', 'insert into mine values (6)']);
    pg.process.kill('SIGKILL');
    await pg.ended;
    const again = await sessions.run('pg', ...at, ...sql('select a from mine order by a; select count(*) from photo'));
    expect(again).toMatchObject({ exitCode: 0, stdout: '5\n6\n4000\n' });
    const other = await sessions.run('pg', 'tag:after', ...at, ...sql('select 1'));
    expect(other).toMatchObject({ exitCode: 64, stderr: expect.stringContaining('is of snapshot 6300a0a8') });
  });

  test('leaves nothing that runs after kill -9, and cleanup removes the rest', async () => {
    const sessions = sessionsIn(cleanup);
    const pg = await sessions.start('latest', '--store', albumStore);
    const host = pg.host();
    pg.process.kill('SIGKILL');
    expect(await pg.ended).toBe('SIGKILL');
    const cleaned = await sessions.run('cleanup');
    expect(cleaned.stdout).toMatch(/^removed .* \(pg of latest\)\n$/);
    expect(sessions.leftOver()).toEqual([]);
    await expect(mustRun(psql(), ['-h', host, '-U', 'postgres', ...countPhotos])).rejects.toThrow('No such file');
    expect((await sessions.run('cleanup')).stdout).toBe('There is nothing to clean up.\n');
  });

  test('brings one table back into a server that lost it', async () => {
    const sessions = sessionsIn(cleanup);
    const live = await sessions.start('tag:after', '--store', albumStore);
    const into = `psql -h ${live.host()} -p 5432 -U postgres -d postgres -q -v ON_ERROR_STOP=1`;
    const lose = ['-h', live.host(), '-U', 'postgres', '-d', 'postgres', '-c', 'drop table photo cascade'];
    await mustRun(psql(), lose);
    const other = sessionsIn(cleanup);
    const pipe = `set -o pipefail; pg_dump -t photo postgres | ${into}`;
    const back = await other.run('pg', 'tag:before', '--store', albumStore, '--', 'bash', '-c', pipe);
    expect(back).toMatchObject({ exitCode: 0, stderr: expect.stringMatching(/Fetched [\d.]+ [KM]iB from the store/) });
    const counted = await mustRun(psql(), ['-h', live.host(), '-U', 'postgres', '-d', 'postgres', ...countPhotos]);
    expect(counted).toBe('4000\n');
  });

  test('says in one line what is wrong before anything runs', async () => {
    const sessions = sessionsIn(cleanup);
    const refused = await sessions.run('pg', 'tag:none', '--store', albumStore, '--log-level', 'error', '--', 'true');
    expect(refused.exitCode).toBe(64);
    expect(refused.stderr).toMatch(/^kloset-nbd: [^\n]*\n$/);
    const json = await sessions.run('pg', '--store', albumStore, '--json', '--', 'true');
    expect(json).toMatchObject({ exitCode: 64, stdout: '' });
    const missing = await sessions.run('pg', '--store', albumStore, '--log-level', 'error', '--', 'no-such-program');
    expect(missing).toMatchObject({ exitCode: 64 });
    expect(missing.stderr).toMatch(/^kloset-nbd: no-such-program cannot be started/);
    expect(sessions.leftOver()).toEqual([]);
  });
});

const needWithoutRoot = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'fuse2fs');
describe.skipIf(needWithoutRoot.missing)(needWithoutRoot.title('pg without root'), () => {
  test('starts in a user namespace by nbdfuse and fuse2fs, contained all the same', async () => {
    const user = postgresUser();
    const folder = temporaryFolder(cleanup);
    const project = join(folder, 'project');
    const own = join(folder, 'own');
    for (const path of [project, own]) mkdirSync(path);
    chmodSync(folder, 0o755);
    chownSync(own, user.uid, user.gid);
    // The checkout may lie where that user does not come, and the device be for root alone.
    await mustRun('mount', ['--bind', projectRoot, project]);
    cleanup.add(() => mustRun('umount', [project]));
    const { mode } = statSync('/dev/fuse');
    chmodSync('/dev/fuse', 0o666);
    cleanup.add(() => chmodSync('/dev/fuse', mode & 0o777));
    const store = join(project, 'fixtures/stores/album');
    const words = ['pg', '--store', store, '--no-cache', '--', psql(), '-At', '-c', 'select count(*) from photo'];
    const env = { PATH: process.env.PATH, HOME: own, KLOSET_NBD_RUN_DIR: join(own, 's') };
    const asked = await run(process.execPath, [join(project, 'dist/cli/main.js'), ...words], {
      ...user,
      cwd: own,
      env,
    });
    expect(asked).toMatchObject({ exitCode: 0, stdout: '3920\n' });
    expect(asked.stderr).toContain('nbdfuse and fuse2fs');
    expect(asked.stderr).not.toContain('not contained');
    expect(readdirSync(join(own, 's'))).toEqual([]);
  });
});
