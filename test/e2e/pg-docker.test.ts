/** `kloset-nbd pg --docker`, with a stand-in for the engine that runs what it is told. */
import { chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun, startServer } from '../support/cli.ts';
import { fakeDocker } from '../support/fake-docker.ts';
import { albumStore, cleanupAfterEach } from '../support/fixtures.ts';
import { attachDevice, mountDevice, mountNeeds } from '../support/mount.ts';
import { makeCluster, runSql } from '../support/pg-cluster.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds, postgresUser } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv', 'python3');
const psql = () => join(findPostgres15()!, 'psql');

function sessionsWithDocker() {
  const docker = fakeDocker(cleanup);
  return { docker, sessions: sessionsIn(cleanup, { PATH: `${docker.folder}:${process.env.PATH}` }) };
}

describe.skipIf(need.missing)(need.title('pg --docker'), () => {
  test('runs the official image of the major version, without a network, on the mount', async () => {
    const { docker, sessions } = sessionsWithDocker();
    const words = [
      'pg',
      'tag:before',
      '--store',
      albumStore,
      '--docker',
      '--',
      psql(),
      '-At',
      '-c',
      'table album limit 0',
    ];
    const asked = await sessions.run(...words);
    expect(asked).toMatchObject({ exitCode: 0, stdout: '' });
    expect(asked.stderr).not.toContain('not contained');
    const server = docker.calls().find((call) => call.includes('--name'))!;
    expect(server.slice(0, 9)).toEqual(
      'run --rm --network none --security-opt no-new-privileges --cap-drop ALL --interactive'.split(' '),
    );
    expect(server.slice(-6, -4)).toEqual(['postgres', 'postgres:15']);
    expect(server.filter((word) => word.startsWith('type=bind')).at(-1)).toMatch(
      /source=.*\/mnt\/data,target=.*\/home$/,
    );
    expect(docker.calls().every((call) => call[0] !== 'run' || call[call.indexOf('--network') + 1] === 'none')).toBe(
      true,
    );
    expect(sessions.leftOver()).toEqual([]);
  });

  test('is put on a network where that is asked for, which it says', async () => {
    const { docker, sessions } = sessionsWithDocker();
    const words = ['--docker', '--docker-network', 'lan', '--', psql(), '-At', '-c', 'table album limit 0'];
    const asked = await sessions.run('pg', 'tag:before', '--store', albumStore, ...words);
    expect(asked).toMatchObject({ exitCode: 0, stdout: '' });
    expect(asked.stderr).toContain('PostgreSQL is not contained: --docker-network.');
    const server = docker.calls().find((call) => call.includes('--name'))!;
    expect(server.slice(0, 4)).toEqual(['run', '--rm', '--network', 'lan']);
    expect(sessions.leftOver()).toEqual([]);
  });

  test('finds tablespaces, and drills', async () => {
    const cluster = await makeCluster(cleanup);
    const space = join(cluster.folder, 'space');
    mkdirSync(space);
    const { uid, gid } = postgresUser();
    chownSync(space, uid, gid);
    await runSql(cleanup, cluster, [
      `create tablespace aside location '${space}'`,
      'create table there tablespace aside as select 2 as a',
    ]);
    const store = await storeOfFolder(cleanup, cluster.folder, cluster.folder);
    const { sessions } = sessionsWithDocker();
    const drilled = await sessions.run('drill', '--store', store, '--docker', '--log-level', 'error');
    expect(drilled).toMatchObject({ exitCode: 0, stderr: '' });
    expect(drilled.stdout).toContain('public.there 1');
  });

  test('the container of a killed session is removed by cleanup', async () => {
    const { docker, sessions } = sessionsWithDocker();
    const pg = await sessions.start('--store', albumStore, '--docker');
    const host = pg.host();
    await mustRun(psql(), ['-h', host, '-U', 'postgres', '-d', 'postgres', '-c', 'select 1']);
    pg.process.kill('SIGKILL');
    await pg.ended;
    await sessions.run('cleanup');
    expect(docker.calls().at(-1)).toEqual(['rm', '--force', expect.stringMatching(/^kloset-nbd-/)]);
    expect(sessions.leftOver()).toEqual([]);
  });

  test("with --owner 999 the official image's entrypoint finds nothing to chown", async () => {
    const server = await startServer(cleanup, ['tag:after', '--store', albumStore, '--owner', '999']);
    const device = await attachDevice(cleanup, server.uris[0]!);
    const mounted = await mountDevice(cleanup, device.path);
    // What docker-entrypoint.sh does to PGDATA as root, before it becomes the user.
    const chown = 'mkdir -p "$1"; chmod 00700 "$1"; find "$1" \\! -user 999 -exec chown 999 {} + -print';
    const changed = await mustRun('sh', ['-c', chown, 'sh', mounted.folder]);
    expect(changed).toBe('');
    await mounted.unmount();
    await device.detach();
    server.kill('SIGUSR1');
    const { overlayBytes } = await server.waitForLog((line) => 'overlayBytes' in line);
    expect(overlayBytes).toBeLessThanOrEqual(1024 * 1024);
  });

  test('says what is wrong with an image, or that there is no engine', async () => {
    const { sessions } = sessionsWithDocker();
    const none = await sessions.run(
      'pg',
      '--store',
      albumStore,
      '--docker=none:1',
      '--log-level',
      'error',
      '--',
      'true',
    );
    expect(none).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("Unable to find image 'none:1' locally"),
    });
    const without = sessionsIn(cleanup, { PATH: '/usr/bin:/bin:/usr/sbin:/sbin' });
    const missing = await without.run('pg', '--store', albumStore, '--docker', '--log-level', 'error', '--', 'true');
    expect(missing).toMatchObject({ exitCode: 1, stderr: 'kloset-nbd: docker is not installed.\n' });
  });
});
