/** `kloset-nbd attach`, `detach` and `status` against a running server. */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportUri, mustRun, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds } from '../support/postgres.ts';
import { commandPath, requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds);
const needPostgres = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv', 'mkfs.ext4');

describe.skipIf(needPostgres.missing)(needPostgres.title('attach beside pg'), () => {
  test('is detached while a pg runs that was started later', async () => {
    const server = await startServer(cleanup, ['--store', albumStore, 'latest']);
    const sessions = sessionsIn(cleanup);
    const folder = temporaryFolder(cleanup);
    await sessions.run('attach', server.uris[0]!, folder);
    const [{ device }] = JSON.parse((await sessions.run('status', '--json')).stdout);
    await sessionsIn(cleanup).start('--store', albumStore);
    expect(await sessions.run('detach', folder)).toMatchObject({ exitCode: 0, stdout: `detached ${folder}\n` });
    expect(existsSync(`/sys/block/${device.slice('/dev/'.length)}/loop/backing_file`)).toBe(false);
  });

  test('is not kept by a pg that was making its namespace when it was attached', async () => {
    const folder = temporaryFolder(cleanup);
    const [image, mountPoint, bin] = ['image', 'mnt', 'bin'].map((name) => join(folder, name));
    for (const path of [mountPoint!, bin!]) mkdirSync(path);
    writeFileSync(image!, Buffer.alloc(2 ** 23));
    await mustRun(commandPath('mkfs.ext4'), ['-q', '-F', image!]);
    const unshare = `#!/bin/sh\nmount -o loop ${image} ${mountPoint}\nexec ${commandPath('unshare')} "$@"\n`;
    writeFileSync(join(bin!, 'unshare'), unshare, { mode: 0o755 });
    cleanup.add(() => mustRun('sh', ['-c', `umount ${mountPoint} 2>&1 || true`]));
    await sessionsIn(cleanup, { PATH: `${bin}:${process.env.PATH}` }).start('--store', albumStore);
    const device = (await mustRun('findmnt', ['-n', '-o', 'SOURCE', mountPoint!])).trim();
    await mustRun('umount', [mountPoint!]);
    await expect.poll(() => existsSync(`/sys/block/${basename(device)}/loop/backing_file`)).toBe(false);
  });

  test('one whose nbdfuse died is cleaned up, and what was mounted in its place stays', async () => {
    const sessions = sessionsIn(cleanup);
    const folder = temporaryFolder(cleanup);
    const server = await startServer(cleanup, ['--store', albumStore, 'latest']);
    await sessions.run('attach', server.uris[0]!, folder);
    const [{ pid }] = JSON.parse((await sessions.run('status', '--json')).stdout);
    process.kill(pid, 'SIGKILL');
    await mustRun('umount', ['--lazy', folder]);
    await mustRun('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
    cleanup.add(() => mustRun('umount', [folder]));
    await expect.poll(async () => (await sessions.run('cleanup')).stdout).toMatch(/^removed /);
    expect(sessions.leftOver()).toEqual([]);
    await mustRun('findmnt', ['--mountpoint', folder]);
  });
});

describe.skipIf(need.missing)(need.title('attach'), () => {
  test('mounts, keeps what is written, and detaches as often as one likes', async () => {
    const server = await startServer(cleanup, ['--store', albumStore]);
    const uri = exportUri(server.uris[0]!, 'tag:after');
    const sessions = sessionsIn(cleanup);
    const folder = temporaryFolder(cleanup);
    const attached = await sessions.run('attach', uri, folder);
    // By the name that never means another disk.
    expect(attached.stdout).toMatch(/^attached nbd:\S+%40[0-9a-f]{32} as \/dev\/(loop|nbd)\d+ at /);
    expect(readFileSync(join(folder, 'PG_VERSION'), 'utf8')).toBe('15\n');
    writeFileSync(join(folder, 'mine'), 'kept');
    const [status] = JSON.parse((await sessions.run('status', '--json')).stdout);
    expect(status).toMatchObject({
      kind: 'attach',
      export: 'tag:after',
      snapshot: '8e457cf5',
      mountPoint: folder,
      alive: true,
    });
    expect(readFileSync(`/sys/block/${status.device.slice('/dev/'.length)}/bdi/max_ratio`, 'utf8')).toBe('10\n');

    const second = await sessions.run('attach', uri, temporaryFolder(cleanup));
    expect(second.exitCode).toBe(64);
    expect(second.stderr).toContain(`attached for writing at ${folder}`);
    const byAnotherName = exportUri(server.uris[0]!, '8e457cf5').replace('127.0.0.1', 'localhost');
    const third = await sessions.run('attach', byAnotherName, temporaryFolder(cleanup));
    expect(third.exitCode).toBe(64);
    expect(third.stderr).toContain(`attached for writing at ${folder}`);

    expect((await sessions.run('detach', folder)).stdout).toBe(`detached ${folder}\n`);
    expect(readdirSync(folder)).toEqual([]);
    const again = await sessions.run('detach', folder);
    expect(again).toMatchObject({ exitCode: 0, stdout: `nothing of kloset-nbd is attached at ${folder}\n` });
    expect(sessions.leftOver()).toEqual([]);

    await sessions.run('attach', uri, folder, '--read-only');
    expect(readFileSync(join(folder, 'mine'), 'utf8')).toBe('kept');
    expect(() => writeFileSync(join(folder, 'more'), '')).toThrow('EROFS');
    await sessions.run('detach', folder);
  });

  test('detach refuses what is in use, and says so', async () => {
    const server = await startServer(cleanup, ['--store', albumStore, 'latest']);
    const sessions = sessionsIn(cleanup);
    const folder = temporaryFolder(cleanup);
    await sessions.run('attach', server.uris[0]!, folder);
    const inUse = await mustRun(
      'sh',
      ['-c', `cd ${folder} && ${process.execPath} ${process.cwd()}/dist/cli/main.js detach . 2>&1; echo $?`],
      {
        env: { ...process.env, KLOSET_NBD_RUN_DIR: sessions.directory },
      },
    );
    expect(inUse).toMatch(/^kloset-nbd: Unmounting .*busy.*\n1\n$/s);
    expect((await sessions.run('detach', folder)).exitCode).toBe(0);
  });

  test('warns of symlinks that leave the tree', async () => {
    const folder = temporaryFolder(cleanup);
    symlinkSync('/etc/passwd', join(folder, 'absolute'));
    symlinkSync('../../up', join(folder, 'climbs'));
    symlinkSync('absolute', join(folder, 'stays'));
    const server = await startServer(cleanup, ['--store', await storeOfFolder(cleanup, folder), 'latest']);
    const sessions = sessionsIn(cleanup);
    const mountPoint = temporaryFolder(cleanup);
    const { stderr } = await sessions.run('attach', server.uris[0]!, mountPoint);
    expect(stderr).toContain('absolute -> /etc/passwd');
    expect(stderr).toContain('climbs -> ../../up');
    expect(stderr).not.toContain('stays');
    const warned = await server.waitForLog(({ msg }) => msg.includes('symlinks leave it'));
    expect(warned).toMatchObject({ level: 40, count: 3, example: '/absolute -> /etc/passwd' });
    await sessions.run('detach', mountPoint);
  });

  test('refuses what cannot be', async () => {
    const sessions = sessionsIn(cleanup);
    const folder = temporaryFolder(cleanup);
    const nowhere = await sessions.run('attach', 'latest', join(folder, 'none'));
    expect(nowhere).toMatchObject({ exitCode: 64, stderr: expect.stringContaining('does not exist: create it') });
    const nonsense = await sessions.run('attach', 'http://127.0.0.1/', folder);
    expect(nonsense).toMatchObject({ exitCode: 64, stderr: expect.stringContaining('write nbd://HOST:PORT/NAME') });
    const nobody = await sessions.run('attach', 'nbd+unix:///?socket=/nowhere/sock', folder);
    expect(nobody.exitCode).toBe(1);
    expect(sessions.leftOver()).toEqual([]);
  });
});
