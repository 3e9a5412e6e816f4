/** What `npm pack` makes and what a stranger gets from it: everything it needs, and nothing compiled. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { mustRun, runCli, startServer } from '../support/cli.ts';
import { sha256OfExport } from '../support/cli-clients.ts';
import { albumSnapshots, albumStore, cleanupAfterAll, projectRoot, temporaryFolder } from '../support/fixtures.ts';
import { commandPath, requires } from '../support/requires.ts';

/** What a checkout needs to be packed. */
const packingParts = [
  'package.json',
  'package-lock.json',
  '.npmrc',
  'tsconfig.json',
  'LICENSE',
  'README.md',
  'src',
  'node_modules',
];

/**
 * An npm of its own: not the settings that an `npm test` around this passes down, and a registry that answers nobody.
 * What the tarball does not bring cannot come from elsewhere.
 */
const offline: NodeJS.ProcessEnv = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name))),
  npm_config_registry: 'http://127.0.0.1:9/',
  npm_config_fetch_retries: '0',
  npm_config_update_notifier: 'false',
};

const need = requires('npm');
describe.skipIf(need.missing)(need.title('the packed tarball'), () => {
  const cleanup = cleanupAfterAll();
  const { version }: { version: string } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8'));
  const npm = (cwd: string, ...args: readonly string[]) => mustRun(commandPath('npm'), args, { cwd, env: offline });
  let checkout: string;
  let tarball: string;
  let consumer: string;

  beforeAll(async () => {
    // Packing rebuilds dist/ and thins out node_modules/: not under the feet of other tests.
    checkout = temporaryFolder(cleanup);
    for (const part of packingParts.filter((name) => existsSync(join(projectRoot, name)))) {
      cpSync(join(projectRoot, part), join(checkout, part), { recursive: true, verbatimSymlinks: true });
    }
    await npm(checkout, 'pack');
    tarball = join(checkout, `kloset-nbd-${version}.tgz`);
    consumer = temporaryFolder(cleanup);
    await npm(consumer, 'install', tarball);
  });

  test('installs without a network and brings nothing compiled', () => {
    const installed = readdirSync(consumer, { recursive: true, encoding: 'utf8' });
    expect(installed).toContain('node_modules/kloset-nbd/package.json');
    expect(installed.filter((path) => /\.node$|(^|\/)binding\.gyp$/.test(path))).toEqual([]);
  });

  test('holds the program, its licence and its dependencies, but no sources, tests or tools', () => {
    const top = readdirSync(join(consumer, 'node_modules/kloset-nbd'));
    const documents = packingParts.filter((name) => /^(LICENSE|README)/.test(name) && existsSync(join(checkout, name)));
    expect(top.sort()).toEqual([...documents, 'dist', 'node_modules', 'package.json'].sort());
    expect(readdirSync(join(consumer, 'node_modules/kloset-nbd/dist'))).not.toContain('tools');
  });

  test('gives a command that says its version', async () => {
    expect((await mustRun('npx', ['kloset-nbd', '--version'], { cwd: consumer, env: offline })).trim()).toBe(version);
  });

  test('lists the snapshots of a store', async () => {
    const cli = join(consumer, 'node_modules/kloset-nbd/dist/cli/main.js');
    const { stdout, exitCode } = await runCli(['snapshots', '--store', albumStore], { cli });
    expect(exitCode).toBe(0);
    for (const { id } of albumSnapshots) expect(stdout).toContain(id.slice(0, 8));
  });

  const client = requires('nbdcopy');
  test.skipIf(client.missing)(client.title('serves the bytes that the checkout serves'), async () => {
    const cli = join(consumer, 'node_modules/kloset-nbd/dist/cli/main.js');
    const args = ['latest', '--store', albumStore, '--free', '64M'];
    const [installed, built] = [await startServer(cleanup, args, { cli }), await startServer(cleanup, args)];
    expect(await sha256OfExport(installed.uris[0]!)).toBe(await sha256OfExport(built.uris[0]!));
    await installed.stop();
    await built.stop();
  });

  test('is the same when packed again, from a checkout that npm still finds complete', async () => {
    await npm(checkout, 'ls');
    const again = join(temporaryFolder(cleanup), 'again');
    mkdirSync(again);
    await npm(checkout, 'pack', '--pack-destination', again);
    expect(readFileSync(join(again, `kloset-nbd-${version}.tgz`)).equals(readFileSync(tarball))).toBe(true);
  });
});

test('the lock file names no registry', () => {
  const lockfile = readFileSync(join(projectRoot, 'package-lock.json'), 'utf8');
  expect(lockfile).not.toContain('"resolved"');
});
