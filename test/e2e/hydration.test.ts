/** `--hydrate`: a snapshot is copied as it is stored, killed on the way, and served when its store is gone. */
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun, type RunningServer, runCli, startServer } from '../support/cli.ts';
import { albumSnapshots, albumStore, cleanupAfterEach, copyOfStore, temporaryFolder } from '../support/fixtures.ts';
import { attachDevice, mountDevice, mountNeeds } from '../support/mount.ts';
import { postgresNeeds, startPostgres } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const [before] = albumSnapshots;
const noCache = { env: { KLOSET_NBD_CACHE_DIR: 'none' } };

const serve = (...args: readonly string[]): Promise<RunningServer> =>
  startServer(cleanup, ['tag:before', ...args], noCache);

const isHydrated = ({ msg }: { readonly msg: string }) => msg.includes('is hydrated: ');

/** A copy of the album's store and a directory in which its older snapshot is hydrated; the store is moved away. */
async function hydrateAndLoseStore(): Promise<{ store: string; directory: string }> {
  const store = copyOfStore(cleanup, albumStore);
  const directory = join(temporaryFolder(cleanup), 'hydrated');
  const server = await serve('--store', store, '--hydrate', '--hydrate-dir', directory);
  await server.waitForLog(isHydrated);
  expect((await server.stop()).exitCode).toBe(0);
  renameSync(store, `${store}.away`);
  return { store, directory };
}

const needDigest = requires('flock', 'nbdcopy');
describe.skipIf(needDigest.missing)(needDigest.title('--hydrate'), () => {
  test('killed in the middle it goes on; the disk without the store is the disk with it', {
    timeout: 120_000,
  }, async () => {
    const store = copyOfStore(cleanup, albumStore);
    const directory = join(temporaryFolder(cleanup), 'hydrated');
    const hydrate = ['--store', store, '--hydrate', '--hydrate-dir', directory];
    const first = await serve(...hydrate, '--hydrate-rate', '400K');
    await first.waitForLog(({ msg }) => msg.startsWith('Hydrating snapshot'));
    first.kill('SIGKILL');
    await first.ended;
    const away = `${store}.away`;
    renameSync(store, away);
    const refused = await runCli(['serve', 'tag:before', '--store', store, '--hydrate-dir', directory], noCache);
    expect(refused.exitCode).toBe(66);
    expect(refused.stderr).toMatch(/no whole snapshot: snapshot \w{8} is there by \d+ % .* --hydrate to go on/);
    renameSync(away, store);

    const second = await serve(...hydrate);
    await second.waitForLog(isHydrated);
    await second.stop();
    const told = await mustRun(
      process.execPath,
      ['dist/cli/main.js', 'digest', 'tag:before', '--store', store],
      noCache,
    );
    const sha256 = /^sha256 (\S+)$/m.exec(told)![1];
    renameSync(store, away);
    const third = await serve('--store', store, '--hydrate-dir', directory);
    expect(third.log.filter(({ msg }) => msg.includes('is away'))).toHaveLength(1);
    const digest = await mustRun('sh', ['-c', `nbdcopy '${third.uris[0]}' - | sha256sum`]);
    expect(digest.split(' ')[0]).toBe(sha256);
    const { stderr, exitCode } = await third.stop();
    expect(exitCode).toBe(0);
    expect(stderr).not.toContain('"level":50');
  });
});

const needOptions = requires('flock');
describe.skipIf(needOptions.missing)(needOptions.title('the options of hydration'), () => {
  test.each([
    [['--hydrate'], /--hydrate-dir DIR/],
    [['--hydrate-rate', '1M'], /without --hydrate/],
    [['--hydrate', '--hydrate-dir', '/tmp/x', '--hydrate-rate', '0'], /nothing would ever be fetched/],
  ])('%j is refused with what to do', async (args, message) => {
    const { exitCode, stderr } = await runCli(['serve', 'latest', '--store', albumStore, ...args], noCache);
    expect(exitCode).toBe(64);
    expect(stderr).toMatch(message);
  });

  test('need to know which snapshots', async () => {
    const { exitCode, stderr } = await runCli(
      ['serve', '--store', albumStore, '--hydrate', '--hydrate-dir', '/tmp/x'],
      noCache,
    );
    expect(exitCode).toBe(64);
    expect(stderr).toContain('serve latest --hydrate');
  });
});

const needPostgres = requires('flock', ...mountNeeds, ...postgresNeeds);
describe.skipIf(needPostgres.missing)(needPostgres.title('PostgreSQL on a hydrated snapshot'), () => {
  test('answers when the store is gone', { timeout: 120_000 }, async () => {
    const { store, directory } = await hydrateAndLoseStore();
    const server = await serve('--store', store, '--hydrate-dir', directory, '--owner', 'postgres');
    const device = await attachDevice(cleanup, server.uris[0]!);
    const mounted = await mountDevice(cleanup, device.path);
    const postgres = await startPostgres(cleanup, mounted.folder);
    expect(await postgres.query('select count(*) from photo')).toBe(`${before.photos}`);
    await postgres.stop();
    await mounted.unmount();
    await device.detach();
    expect((await server.stop()).exitCode).toBe(0);
  });
});
