/** PostgreSQL 15 on a snapshot: it starts, answers what the backup held, and what it writes is kept as promised. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportUri, type RunningServer, startServer } from '../support/cli.ts';
import {
  type AlbumSnapshot,
  albumSnapshots,
  albumStore,
  cleanupAfterEach,
  temporaryFolder,
} from '../support/fixtures.ts';
import { attachDevice, fsckRemarks, mountDevice, mountNeeds } from '../support/mount.ts';
import { postgresNeeds, type RunningPostgres, startPostgres } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();

/** A server's default export, mounted, with PostgreSQL on it. */
async function bringUp(uri: string): Promise<{ postgres: RunningPostgres; takeDown(): Promise<readonly string[]> }> {
  const device = await attachDevice(cleanup, uri);
  const mounted = await mountDevice(cleanup, device.path);
  const postgres = await startPostgres(cleanup, mounted.folder);
  return {
    postgres,
    /** Shuts everything down in order; returns what e2fsck then remarks. */
    async takeDown() {
      await postgres.stop();
      await mounted.unmount();
      const remarks = await fsckRemarks(device.path);
      await device.detach();
      return remarks;
    },
  };
}

const serve = (...args: readonly string[]): Promise<RunningServer> =>
  startServer(cleanup, [...args, '--store', albumStore, '--owner', 'postgres']);

async function expectContents(postgres: RunningPostgres, snapshot: AlbumSnapshot): Promise<void> {
  expect(await postgres.query('select count(*) from photo')).toBe(`${snapshot.photos}`);
  expect(await postgres.query('select count(*) from photo where album_id = 7')).toBe(`${snapshot.photosInAlbum7}`);
  const views = await postgres.query("select count(*) from pg_views where viewname = 'recent'");
  expect(views).toBe(snapshot.hasViewRecent ? '1' : '0');
  if (snapshot.hasViewRecent) await postgres.query('select * from recent');
}

const need = requires(...mountNeeds, ...postgresNeeds);
describe.skipIf(need.missing)(need.title('PostgreSQL'), () => {
  test.each(albumSnapshots)('starts on $tag, answers, and leaves a clean filesystem', async (snapshot) => {
    const server = await serve();
    const { postgres, takeDown } = await bringUp(exportUri(server.uris[0]!, `tag:${snapshot.tag}`));
    await expectContents(postgres, snapshot);
    expect(await takeDown()).toEqual([]);
    expect((await server.stop()).exitCode).toBe(0);
  });

  test('finds its data whole: every page has its checksum, every index its rows', async () => {
    const server = await serve('tag:before');
    const { postgres, takeDown } = await bringUp(server.uris[0]!);
    await postgres.query('create extension amcheck');
    await postgres.query("select bt_index_check(oid, true) from pg_class where relkind = 'i' and relam = 403");
    // A sequential scan of all of each table: a page with another checksum ends it with an error.
    const tables = await postgres.query("select oid::regclass from pg_class where relkind in ('r', 't')");
    await postgres.query(
      tables
        .split('\n')
        .map((table) => `select count(ctid) from ${table}`)
        .join(';'),
    );
    expect(await takeDown()).toEqual([]);
  });

  test('with a directory overlay keeps what it wrote, over its own restarts and the server’s', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const rows = 20_000;
    const first = await serve('latest', '--overlay', overlay);
    const up = await bringUp(first.uris[0]!);
    await up.postgres.query('create table kept as select i, md5(i::text) as m from generate_series(1, 20000) i');
    await up.postgres.query('delete from photo where id % 2 = 0');
    const remaining = await up.postgres.query('select count(*) from photo');
    await up.postgres.query('checkpoint');
    expect(await up.takeDown()).toEqual([]);
    // PostgreSQL alone.
    const again = await bringUp(first.uris[0]!);
    expect(await again.postgres.query('select count(*) from kept')).toBe(`${rows}`);
    await again.postgres.query("update kept set m = 'second' where i <= 100");
    expect(await again.takeDown()).toEqual([]);
    expect((await first.stop()).exitCode).toBe(0);
    // The server too.
    const second = await serve('latest', '--overlay', overlay);
    const last = await bringUp(second.uris[0]!);
    expect(await last.postgres.query("select count(*) from kept where m = 'second'")).toBe('100');
    expect(await last.postgres.query('select count(*) from kept where m = md5(i::text)')).toBe(`${rows - 100}`);
    expect(await last.postgres.query('select count(*) from photo')).toBe(remaining);
    expect(await last.takeDown()).toEqual([]);
  });

  test('with a memory overlay loses what it wrote when the server ends, and the log says so', async () => {
    const first = await serve('latest');
    const up = await bringUp(first.uris[0]!);
    await up.postgres.query('create table lost as select 1');
    await up.takeDown();
    await first.stop();
    expect(first.log.some(({ msg }) => /lost/.test(msg))).toBe(true);
    const second = await serve('latest');
    const { postgres } = await bringUp(second.uris[0]!);
    expect(await postgres.query("select to_regclass('lost') is null")).toBe('t');
  });
});
