/** `profile record|show|forget` beside a running server, and what the next server does with a profile. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { BLOCK_SIZE, KiB, MiB } from '../../src/core/units.ts';
import { type RunningServer, runCli, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { RawClient } from '../support/nbd-client.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds } from '../support/postgres.ts';
import { findPostgres15, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
/** The table that is looked for has 464 KiB. */
const STRETCH_BYTES = 256 * KiB;

/** Directories that servers and commands of one test share. */
function surroundings() {
  const env = {
    KLOSET_NBD_RUN_DIR: join(temporaryFolder(cleanup), 'r'),
    KLOSET_NBD_CACHE_DIR: temporaryFolder(cleanup),
  };
  return {
    serve: (...args: readonly string[]) => startServer(cleanup, [...args, '--store', albumStore], { env }),
    profile: (...args: readonly string[]) => runCli(['profile', ...args, '--store', albumStore], { env }),
  };
}

/** Reads a block of each stretch of the default export's disk, and so of every larger file. */
async function readWidely({ uris, waitForLog }: RunningServer): Promise<void> {
  const { deviceBytes } = await waitForLog((line) => line.deviceBytes !== undefined);
  const client = await RawClient.connect(uris[0]!);
  try {
    await (await client.hello()).go('');
    for (let offset = 0; offset < Number(deviceBytes); offset += STRETCH_BYTES) await client.read(offset, BLOCK_SIZE);
  } finally {
    client.destroy();
  }
}

const warmed = ({ msg }: { msg: string }) => /is warm: fetched what PostgreSQL/.test(msg);
const replayed = ({ msg }: { msg: string }) => /is warm: fetched what its profile has/.test(msg);

describe('a profile', () => {
  test('is recorded on a running server, listed, fetched ahead at the next serve of a later snapshot, forgotten', async () => {
    const { serve, profile } = surroundings();
    expect((await profile('show')).stdout).toBe('No profile has been recorded.\n');
    const first = await serve('tag:before');
    await first.waitForLog(warmed);
    const nothing = await profile('record', '--begin');
    expect(nothing).toMatchObject({ exitCode: 0, stdout: '' });
    expect(await profile('record')).toMatchObject({
      exitCode: 64,
      stderr: expect.stringContaining('Nothing has been read'),
    });
    await readWidely(first);
    const recorded = await profile('record', 'tag:before');
    expect(recorded.stdout).toMatch(
      /^Recorded the profile of tar:\/\/db1\/: \d+ chunks of \S+ MiB that were read of 6300a0a8\.\n$/,
    );
    await first.stop();

    const [listed] = JSON.parse((await profile('show', '--json')).stdout);
    expect(listed).toMatchObject({ source: 'tar://db1/', snapshot: expect.stringMatching(/^6300a0a8/) });
    const shown = JSON.parse((await profile('show', 'latest', '--json')).stdout);
    expect(shown.chunks).toHaveLength(listed.chunkCount);
    expect(shown.chunks.map(({ path }: { path: string }) => path)).toContain('/base/16384/16423');

    const second = await serve('latest');
    expect(await second.waitForLog(replayed)).toMatchObject({ snapshot: expect.stringMatching(/^8e457cf5/) });
    await second.stop();

    expect(await profile('forget')).toMatchObject({ exitCode: 64 });
    expect(await profile('forget', 'tag:before')).toMatchObject({ exitCode: 0 });
    expect((await profile('show')).stdout).toBe('No profile has been recorded.\n');
    const third = await serve('latest');
    await third.waitForLog(warmed);
    expect(third.log.filter(replayed)).toEqual([]);
  });

  test('cannot be recorded without a server, of a name that it does not export, or without a cache', async () => {
    const { serve, profile } = surroundings();
    const refusal = async (...args: readonly string[]) => {
      const { exitCode, stderr } = await profile(...args);
      expect(exitCode).toBe(64);
      return stderr;
    };
    expect(await refusal('record')).toContain('No server runs here');
    await serve('tag:before', '--no-cache', '--no-warm');
    expect(await refusal('record', 'nobody')).toContain('There is no export "nobody"');
    expect(await refusal('record')).toContain('runs without one');
    expect(await refusal('show', '--no-cache')).toContain('do without --no-cache');
  });
});

describe('what was read last time', () => {
  const recalled = ({ msg }: { msg: string }) => msg.startsWith('What was read of this store last time');

  test('is in memory again when the next server has started, also of another snapshot; not with --no-warm', async () => {
    const { serve } = surroundings();
    const first = await serve('tag:before');
    await first.waitForLog(warmed);
    await readWidely(first);
    await first.stop();
    expect(first.log.filter(recalled)).toEqual([]);

    const second = await serve('latest');
    const line = await second.waitForLog(recalled);
    expect(line.bytes).toBeGreaterThan(MiB);
    await second.stop();

    const third = await serve('latest', '--no-warm');
    await readWidely(third);
    await third.stop();
    expect(third.log.filter(recalled)).toEqual([]);
  });
});

describe('--no-warm', () => {
  test('leaves all fetching to clients', async () => {
    const { serve } = surroundings();
    const server = await serve('latest', '--no-warm');
    const { stderr } = await server.stop();
    expect(stderr).not.toContain('is warm');
    const { chunksFetched } = server.log.find((line) => line.chunksFetched !== undefined)!;
    // The lists of directories, which the tree is made of.
    expect(chunksFetched).toBeLessThan(60);
  });
});

const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');

describe.skipIf(need.missing)(need.title('pg --profile'), () => {
  test('records what was read until COMMAND ended; the next start fetches that first', async () => {
    const sessions = sessionsIn(cleanup, { KLOSET_NBD_CACHE_DIR: temporaryFolder(cleanup) });
    const psql = join(findPostgres15()!, 'psql');
    const ask = (snapshot: string, ...options: readonly string[]) =>
      sessions.run(
        'pg',
        snapshot,
        '--store',
        albumStore,
        ...options,
        '--',
        psql,
        '-At',
        '-c',
        'select count(*) from photo',
      );
    const first = await ask('tag:before', '--profile');
    expect(first).toMatchObject({ exitCode: 0, stdout: '4000\n' });
    expect(first.stderr).toContain('Recorded the profile of tar://db1/');
    const second = await ask('tag:after');
    expect(second).toMatchObject({ exitCode: 0, stdout: '3920\n' });
    expect(second.stderr).toContain('fetched what its profile has');
    expect(sessions.leftOver()).toEqual([]);
  });
});
