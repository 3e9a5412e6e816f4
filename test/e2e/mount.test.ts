/** Snapshots as the kernel sees them: every entry has the bytes and the metadata that the manifests say. */
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportUri, startServer } from '../support/cli.ts';
import { albumSnapshots, albumStore, cleanupAfterEach, shortId, storePath } from '../support/fixtures.ts';
import { differences, expectedOfAlbum, expectedOfSnapshot, readManifest } from '../support/fixtures-manifest.ts';
import { attachDevice, fsckRemarks, mountDevice, mountExport, mountNeeds } from '../support/mount.ts';
import { postgresUser } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();

const need = requires(...mountNeeds);
describe.skipIf(need.missing)(need.title('the album, mounted'), () => {
  test.each(albumSnapshots)('has every entry of $tag', async (snapshot) => {
    const server = await startServer(cleanup, ['--store', albumStore]);
    const { folder, unmount } = await mountExport(cleanup, exportUri(server.uris[0]!, shortId(snapshot)));
    expect(await differences(folder, expectedOfAlbum(snapshot))).toEqual([]);
    await unmount();
    expect((await server.stop()).exitCode).toBe(0);
  });

  test('belongs to whom the operator names', async () => {
    const server = await startServer(cleanup, ['latest', '--store', albumStore, '--owner', '1234:5678']);
    const { folder } = await mountExport(cleanup, server.uris[0]!);
    const owned = expectedOfAlbum(albumSnapshots[1]).map((entry) => ({ ...entry, uid: 1234, gid: 5678 }));
    expect(await differences(folder, owned)).toEqual([]);
    expect(statSync(folder)).toMatchObject({ uid: 1234, gid: 5678 });
  });

  test('has the root of a data directory, not that of the tar stream it came in', async () => {
    const server = await startServer(cleanup, ['latest', '--store', albumStore]);
    const { folder } = await mountExport(cleanup, server.uris[0]!);
    const { uid, gid, mtimeMs } = statSync(join(folder, 'PG_VERSION'));
    const root = statSync(folder);
    expect({ uid: root.uid, gid: root.gid, mtimeMs: root.mtimeMs, mode: (root.mode & 0o7777).toString(8) }).toEqual({
      uid,
      gid,
      mtimeMs,
      mode: '700',
    });
    expect(uid).not.toBe(0);
  });

  test('takes writes, and e2fsck remarks nothing on what they leave', async () => {
    const server = await startServer(cleanup, ['latest', '--store', albumStore, '--free', '64M']);
    const device = await attachDevice(cleanup, server.uris[0]!);
    const mounted = await mountDevice(cleanup, device.path);
    const big = Buffer.alloc(20 * 1024 * 1024, 'some text, again and again; ');
    rmSync(join(mounted.folder, 'base'), { recursive: true });
    mkdirSync(join(mounted.folder, 'new/deeper'), { recursive: true });
    for (let index = 0; index < 500; index++) writeFileSync(join(mounted.folder, `new/deeper/${index}`), `${index}`);
    writeFileSync(join(mounted.folder, 'new/big'), big);
    await mounted.unmount();
    expect(await fsckRemarks(device.path)).toEqual([]);

    const again = await mountDevice(cleanup, device.path);
    const kept = expectedOfAlbum(albumSnapshots[1]).filter(({ path }) => !path.startsWith('/base'));
    const lines = await differences(again.folder, kept);
    // 'new' and 'deeper', their 500 files and the big one are what the manifest does not know.
    expect(lines.filter((line) => !/^\/new.* should not be there$/.test(line))).toEqual([]);
    expect(lines).toHaveLength(503);
    await again.unmount();
    await device.detach();
  });
});

const needPostgresUser = requires(...mountNeeds, 'postgres15');
test.skipIf(needPostgresUser.missing)(needPostgresUser.title('--owner takes the name of a user'), async () => {
  const server = await startServer(cleanup, ['latest', '--store', albumStore, '--owner', 'postgres']);
  const { folder } = await mountExport(cleanup, server.uris[0]!);
  expect(statSync(join(folder, 'PG_VERSION'))).toMatchObject(postgresUser());
});

/** Stores without a passphrase, as directories. */
const stores = ['plain', 'sha256-nocompress', 'gzip', 'zstd', 'manychunks', 'wide', 'tar', 'multi-deleted'];
const moreStores = ['multi-maintained', 'xattr-only-change'];
const needAttributes = requires(...mountNeeds, 'getfattr');
describe.skipIf(needAttributes.missing)(needAttributes.title('small stores, mounted'), () => {
  const cases = [...stores, ...moreStores].flatMap((store) =>
    readManifest(store).map((snapshot) => ({ store, id: snapshot.id.slice(0, 8), snapshot })),
  );
  test.each(cases)('$store $id: all metadata and contents', async ({ store, id, snapshot }) => {
    const server = await startServer(cleanup, [id, '--store', storePath(store), '--free', '16M']);
    const device = await attachDevice(cleanup, server.uris[0]!);
    expect(await fsckRemarks(device.path)).toEqual([]);
    const { folder, unmount } = await mountDevice(cleanup, device.path);
    expect(await differences(folder, expectedOfSnapshot(snapshot))).toEqual([]);
    await unmount();
    await device.detach();
  });
});
