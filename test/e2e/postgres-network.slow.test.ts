/** PostgreSQL on a mounted disk whose store is behind a network that fails in every way known: right answers, or errors. */
import { describe, expect, test } from 'vitest';
import { startServer } from '../support/cli.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { albumSnapshots, albumStore, cleanupAfterEach } from '../support/fixtures.ts';
import { mountExport, mountNeeds } from '../support/mount.ts';
import { startPlakarServerDouble } from '../support/plakar-server-double.ts';
import { postgresNeeds, type RunningPostgres, startPostgres } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

const [oldest] = albumSnapshots;
const cleanup = cleanupAfterEach();

/** Tables read in full, and the album's own numbers; without the table that the test itself makes. */
const QUERIES = [
  'select count(*), md5(string_agg(p::text, chr(10) order by id)) from photo p',
  'select count(*) from photo where album_id = 7',
  "select md5(string_agg(proname, ',' order by oid)) from pg_proc",
  "select md5(string_agg(relname, ',' order by oid)) from pg_class where relname <> 'written'",
  "select md5(string_agg(description, ',' order by objoid, classoid, objsubid)) from pg_description",
];

/** Files that nothing has read so far, of a database that nobody is connected to. */
const UNREAD = ['1255', '2608'].map((file) => `select md5(pg_read_binary_file('base/1/${file}'))`);

async function answersOf(postgres: RunningPostgres, queries = QUERIES): Promise<string[]> {
  const answers: string[] = [];
  for (const query of queries) answers.push(await postgres.query(query));
  return answers;
}

/** A query's answer, or undefined for an I/O error; anything else fails the test. */
async function answerOrEio(postgres: RunningPostgres, query: string): Promise<string | undefined> {
  try {
    return await postgres.query(query);
  } catch (error) {
    expect((error as Error).message).toMatch(/Input\/output error|could not (read|open|access)/);
    return undefined;
  }
}

const need = requires(...mountNeeds, ...postgresNeeds);
describe.skipIf(need.missing)(need.title('PostgreSQL behind a bad network'), () => {
  test('answers right through faults, gets errors through an outage, and answers again', async () => {
    const upstream = await startPlakarServerDouble(cleanup, albumStore);
    const proxy = await startFaultProxy(cleanup, upstream.url);
    // Little memory for chunks: files of other databases, which are much the same, are fetched again.
    const serve = (...args: readonly string[]) =>
      startServer(cleanup, ['tag:before', '--owner', 'postgres', '--no-cache', '--cache-memory', '1M', ...args]);
    const direct = await serve('--store', albumStore);
    const healthy = await startPostgres(cleanup, (await mountExport(cleanup, direct.uris[0]!)).folder);
    const expected = await answersOf(healthy);
    expect(expected[0]).toMatch(new RegExp(`^${oldest.photos}\\|`));
    const expectedUnread = await answersOf(healthy, UNREAD);
    await healthy.stop();

    const server = await serve('--store', proxy.url, '--fetch-timeout', '15s');
    proxy.always = undefined;
    proxy.latencyMs = 100;
    const mounted = await mountExport(cleanup, server.uris[0]!);
    const postgres = await startPostgres(cleanup, mounted.folder);
    expect(await answersOf(postgres)).toEqual(expected);
    for (const fault of ['503', 'reset', 'short body', 'stall'] as const)
      expect(proxy.done.get(fault), fault).toBeGreaterThan(0);

    await postgres.query('create table written as select generate_series(1, 1000) i');
    proxy.always = 'reset';
    proxy.latencyMs = 0;
    const fresh = await Promise.all(UNREAD.map((query) => answerOrEio(postgres, query)));
    expect(fresh).toContain(undefined);
    expect(server.log.some(({ level, msg }) => level >= 40 && /packfile/.test(msg))).toBe(true);
    // What had been read before the outage is still answered, and rightly.
    for (const [i, answer] of fresh.entries()) expect([undefined, expectedUnread[i]]).toContain(answer);
    expect(await postgres.query('select count(*) from written')).toBe('1000');

    proxy.always = 'none';
    expect(await answersOf(postgres)).toEqual(expected);
    expect(await answersOf(postgres, UNREAD)).toEqual(expectedUnread);
    await postgres.stop();
    await mounted.unmount();
    // Mounted anew: what PostgreSQL and the kernel had in memory answers nothing.
    const again = await mountExport(cleanup, server.uris[0]!);
    const restarted = await startPostgres(cleanup, again.folder);
    expect(await answersOf(restarted)).toEqual(expected);
    expect(await answersOf(restarted, UNREAD)).toEqual(expectedUnread);
    expect(await restarted.query('select count(*) from written')).toBe('1000');
    await restarted.stop();
    await again.unmount();
    expect((await server.stop()).exitCode).toBe(0);
  });
});
