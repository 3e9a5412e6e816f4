/** What an operator gets wrong: one clear line, the exit code that scripts branch on, and no stack trace. */
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli, ServerEndedError, startServer } from '../support/cli.ts';
import {
  albumSnapshots,
  albumStore,
  cleanupAfterEach,
  copyOfStore,
  storePath,
  temporaryFolder,
} from '../support/fixtures.ts';
import { readManifest } from '../support/fixtures-manifest.ts';

const cleanup = cleanupAfterEach();

/** Runs `serve ARGS…`, which must refuse; returns its exit code and what it said. */
async function refusal(...args: readonly string[]): Promise<{ exitCode: number | undefined; message: string }> {
  const error: unknown = await startServer(cleanup, args).catch((reason: unknown) => reason);
  if (!(error instanceof ServerEndedError))
    throw new Error(`serve ${args.join(' ')} is ready, and should have refused`);
  const { exitCode, stdout, stderr } = error.result;
  expect(stdout, 'nothing is ready').toBe('');
  const lines = stderr.split('\n');
  expect(lines.join('\n'), 'no stack').not.toMatch(/^\s+at /m);
  const messages = lines.filter((line) => !line.startsWith('{'));
  expect(messages, 'one line').toHaveLength(1);
  expect(messages[0]).toMatch(/^kloset-nbd: .{10,}/);
  return { exitCode, message: messages[0]! };
}

describe('the store', () => {
  test('that does not exist: 66', async () => {
    const missing = join(temporaryFolder(cleanup), 'nowhere');
    const { exitCode, message } = await refusal('--store', missing);
    expect(exitCode).toBe(66);
    expect(message).toContain(missing);
  });

  test.each(['an empty folder', 'a folder of other things', 'a file'])('that is %s: 66', async (kind) => {
    const path = join(temporaryFolder(cleanup), 'thing');
    if (kind === 'a file') writeFileSync(path, 'no store');
    else mkdirSync(path);
    if (kind === 'a folder of other things') writeFileSync(join(path, 'notes.txt'), 'no store');
    expect((await refusal('--store', path)).exitCode).toBe(66);
  });

  test('without its CONFIG: 66', async () => {
    const store = copyOfStore(cleanup, albumStore);
    rmSync(join(store, 'CONFIG'));
    expect((await refusal('--store', store)).exitCode).toBe(66);
  });

  test('whose CONFIG is cut short: 65', async () => {
    const store = copyOfStore(cleanup, albumStore);
    writeFileSync(join(store, 'CONFIG'), Buffer.alloc(0));
    expect((await refusal('--store', store)).exitCode).toBe(65);
  });

  test('can also be named in the environment and the way plakar does', async () => {
    const env = { PLAKAR_REPOSITORY: albumStore };
    const { stdout, exitCode } = await runCli(['snapshots', '--json'], { env });
    expect(exitCode).toBe(0);
    expect(await runCli(['at', albumStore, 'snapshots', '-json'])).toMatchObject({ stdout, exitCode: 0 });
    const listed: { id: string }[] = JSON.parse(stdout);
    expect(listed.map(({ id }) => id).sort()).toEqual(albumSnapshots.map(({ id }) => id).sort());
  });
});

describe('the snapshot', () => {
  test.each(['00000000', 'tag:nosuch', 'zzzz'])('%s that is not there: 64', async (selector) => {
    expect((await refusal(selector, '--store', albumStore)).exitCode).toBe(64);
  });

  test('that could be several: 64, and they are listed', async () => {
    // No two ids of a fixture begin alike, but all begin with nothing.
    const { exitCode, message } = await refusal('', '--store', storePath('multi-deleted'));
    expect(exitCode).toBe(64);
    for (const { id } of readManifest('multi-deleted')) expect(message).toContain(id.slice(0, 8));
  });

  test.each(['latest:/nowhere', 'latest:/PG_VERSION'])('%s has no such directory: 64', async (selector) => {
    expect((await refusal(selector, '--store', albumStore)).exitCode).toBe(64);
  });
});

describe('options', () => {
  test.each([
    ['--listen', 'tcp://127.0.0.1'],
    ['--listen', 'http://127.0.0.1:1'],
    ['--listen', 'unix:'],
    ['--size', 'big'],
    ['--size', '1M'],
    ['--free', '-1'],
    ['--owner', 'no-such-user-here'],
    ['--owner', '1:2:3'],
    ['--cache-memory', 'much'],
    ['--source', 'other'],
    ['--log-level', 'loud'],
    ['--no-such-option', 'x'],
  ])('%s %s: 64', async (option, value) => {
    const { exitCode } = await refusal('latest', '--store', albumStore, option, value);
    expect(exitCode).toBe(64);
  });

  test('no command at all: 64', async () => {
    const { exitCode, stderr } = await runCli([]);
    expect(exitCode).toBe(64);
    expect(stderr).toMatch(/serve/);
  });

  test('--help explains itself on standard output: 0', async () => {
    for (const args of [['--help'], ['serve', '--help']]) {
      const { exitCode, stdout } = await runCli(args);
      expect(exitCode).toBe(0);
      expect(stdout).toContain('--store');
    }
  });
});

describe('what another server holds', () => {
  test('a port: 64', async () => {
    const { uris } = await startServer(cleanup, ['--store', albumStore]);
    const address = `tcp://${new URL(uris[0]!).host}`;
    const { exitCode, message } = await refusal('--store', albumStore, '--listen', address);
    expect(exitCode).toBe(64);
    expect(message).toContain(new URL(uris[0]!).port);
  });

  test('a Unix socket: 64, and the other goes on', async () => {
    const socket = join(temporaryFolder(cleanup), 's');
    const listen = ['--listen', `unix:${socket}`];
    const first = await startServer(cleanup, ['--store', albumStore, ...listen]);
    expect((await refusal('--store', albumStore, ...listen)).exitCode).toBe(64);
    expect((await first.stop()).exitCode).toBe(0);
    // Its own socket does not stand in the way of the next server, nor would one that a killed server left.
    const second = await startServer(cleanup, ['--store', albumStore, ...listen]);
    second.kill('SIGKILL');
    await second.ended;
    await startServer(cleanup, ['--store', albumStore, ...listen]);
  });

  test('an overlay: 64, until that server is gone, however it went', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const args = ['latest', '--store', albumStore, '--overlay', overlay];
    const first = await startServer(cleanup, args);
    const { exitCode, message } = await refusal(...args);
    expect(exitCode).toBe(64);
    expect(message).toContain(overlay);
    first.kill('SIGKILL');
    await first.ended;
    await startServer(cleanup, args);
  });
});

describe('an overlay directory', () => {
  test('made with other parameters: 64, both named', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const args = ['latest', '--store', albumStore, '--overlay', overlay];
    const first = await startServer(cleanup, [...args, '--size', '2G']);
    await first.stop();
    const { exitCode, message } = await refusal(...args, '--size', '3G');
    expect(exitCode).toBe(64);
    // In bytes, blocks or as people write sizes.
    expect(message).toMatch(/2147483648|524288|2(\.0)? ?Gi?B?/);
    expect(message).toMatch(/3221225472|786432|3(\.0)? ?Gi?B?/);
  });

  test('that is a file: 64', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    writeFileSync(overlay, '');
    expect((await refusal('latest', '--store', albumStore, '--overlay', overlay)).exitCode).toBe(64);
  });

  test('pins its snapshot: a newer one does not take its place', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const older = copyOfStore(cleanup, albumStore);
    rmSync(join(older, 'states/8e'), { recursive: true });
    const first = await startServer(cleanup, ['latest', '--store', older, '--overlay', overlay]);
    await first.stop();
    cpSync(join(albumStore, 'states'), join(older, 'states'), { recursive: true });
    const second = await startServer(cleanup, ['latest', '--store', older, '--overlay', overlay]);
    const { msg } = await second.waitForLog((line) => /is open/.test(line.msg));
    expect(msg).toContain(albumSnapshots[0].id.slice(0, 8));
  });
});
