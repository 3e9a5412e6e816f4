/** What a client sees of a server: its exports, their names, and one and the same image in every run. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportUri, type RunningServer, startServer } from '../support/cli.ts';
import { copyToImage, describeExport, listExports, nbdsh, sha256OfExport, tryNbdsh } from '../support/cli-clients.ts';
import { albumSnapshots, albumStore, cleanupAfterEach, shortId, temporaryFolder } from '../support/fixtures.ts';
import { fsckRemarks } from '../support/mount.ts';
import { requires } from '../support/requires.ts';

const [before, after] = albumSnapshots;
const cleanup = cleanupAfterEach();
/** Little free space, so that whole devices are copied soon. */
const serve = (...args: readonly string[]): Promise<RunningServer> =>
  startServer(cleanup, ['--store', albumStore, '--free', '64M', ...args]);

const needInfo = requires('nbdinfo');
describe.skipIf(needInfo.missing)(needInfo.title('exports'), () => {
  test('all snapshots of the store are listed, with date, tags, size and that writes are volatile', async () => {
    const server = await serve();
    const exports = await listExports(server.uris[0]!);
    for (const snapshot of albumSnapshots) {
      const found = exports.find((one) => one['export-name'] === shortId(snapshot));
      expect(found?.description).toMatch(new RegExp(`^\\d{4}-\\d\\d-\\d\\dT.*${snapshot.tag}.*MiB.*\\(volatile\\)$`));
    }
  });

  test('every name of a snapshot opens it; the empty one is the newest', async () => {
    const { uris } = await serve();
    const sizeOf = async (name: string) => (await describeExport(exportUri(uris[0]!, name)))['export-size'];
    const size = await sizeOf(shortId(after));
    for (const name of ['', 'latest', after.id, 'tag:after', `${shortId(after)}@base`]) {
      expect(await sizeOf(name), name).toBe(size);
    }
  });

  test('a name that is no export is refused, and the server goes on', async () => {
    const { uris } = await serve();
    for (const name of ['tag:none', '00000000', 'no such', `${shortId(after)}@other`]) {
      await expect(describeExport(exportUri(uris[0]!, name)), name).rejects.toThrow();
    }
    await expect(describeExport(uris[0]!)).resolves.toMatchObject({ is_read_only: false });
  });

  test('a disk that is too large to be written is read-only, and the log says why', async () => {
    const { uris, log } = await startServer(cleanup, ['latest', '--store', albumStore, '--size', '16385G']);
    expect(await describeExport(uris[0]!)).toMatchObject({ is_read_only: true, 'export-size': 16_385 * 2 ** 30 });
    expect(log.map(({ msg }) => msg).join('\n')).toMatch(
      /is served read-only: its disk has 16\.0 TiB.* at most 16\.0 TiB/,
    );
  });

  test('naming snapshots exports those only, the first as the default', async () => {
    const { uris } = await serve(shortId(before));
    expect((await listExports(uris[0]!)).map((one) => one['export-name'])).toEqual([
      shortId(before),
      `${shortId(before)}@base`,
    ]);
    await expect(describeExport(exportUri(uris[0]!, shortId(after)))).rejects.toThrow();
  });

  test('a directory of a snapshot can be the root', async () => {
    const whole = await serve('latest');
    const part = await serve('latest:/global');
    const sizeOf = async ({ uris }: RunningServer) => (await describeExport(uris[0]!))['export-size'];
    expect(await sizeOf(part)).toBeLessThan(await sizeOf(whole));
  });
});

const needShell = requires('nbdinfo', 'python3-libnbd');
describe.skipIf(needShell.missing)(needShell.title('one device behind several ways in'), () => {
  test('a TCP and a Unix socket, and two names, show the same writes', async () => {
    const socket = join(temporaryFolder(cleanup), 's');
    const { uris } = await serve('latest', '--listen', 'tcp://127.0.0.1:0', '--listen', `unix:${socket}`, '--shared');
    expect(uris).toHaveLength(2);
    expect(new URL(uris[1]!).searchParams.get('socket')).toBe(socket);
    await nbdsh(uris[0]!, 'h.pwrite(b"written over TCP", 5000)');
    expect(await nbdsh(exportUri(uris[1]!, shortId(after)), 'print(h.pread(16, 5000).decode())')).toBe(
      'written over TCP',
    );
  });

  test('NAME@base stays as the backup was, and takes no writes', async () => {
    const { uris } = await serve('latest');
    const base = exportUri(uris[0]!, 'latest@base');
    await nbdsh(uris[0]!, 'h.pwrite(b"changed" * 100, 4096)');
    expect(await nbdsh(base, 'print(b"changed" in h.pread(4096, 4096))')).toBe('False');
    expect((await describeExport(base)).is_read_only).toBe(true);
    const refused = await tryNbdsh(base, 'h.set_strict_mode(0)\nh.pwrite(b"x" * 512, 0)');
    expect(refused.stderr).toMatch(/EPERM|EROFS|Operation not permitted|Read-only/);
  });

  test('one writer at a time over TCP: another address is refused by policy, but may look', async () => {
    const { uris } = await serve('latest');
    const { port } = new URL(uris[0]!);
    // libnbd does not choose its own address, so a socket does and is handed over.
    const fromElsewhere = [
      'import socket',
      `s = socket.create_connection(("127.0.0.1", ${port}), source_address=("127.0.0.2", 0))`,
      'other = nbd.NBD()',
      'other.set_export_name(EXPORT)',
      'try:',
      '    other.connect_socket(s.detach())',
      '    print("connected", other.is_read_only())',
      'except nbd.Error as error:',
      '    print("refused", error)',
    ].join('\n');
    const attempt = (name: string) => nbdsh(uris[0]!, `EXPORT = ${JSON.stringify(name)}\n${fromElsewhere}`);
    expect(await attempt('latest')).toMatch(/^refused .*policy/);
    expect(await attempt('latest@base')).toBe('connected True');
  });
});

const needCopy = requires('nbdcopy');
describe.skipIf(needCopy.missing)(needCopy.title('the image'), () => {
  test.each(albumSnapshots)('of $tag is the same bytes in every run', async (snapshot) => {
    const hashes = new Set<string>();
    for (const name of [shortId(snapshot), shortId(snapshot), `tag:${snapshot.tag}`]) {
      const server = await serve(name);
      hashes.add(await sha256OfExport(server.uris[0]!));
      await server.stop();
    }
    expect([...hashes]).toHaveLength(1);
  });

  test('of one snapshot is not that of another', async () => {
    const { uris } = await serve();
    const [one, other] = [exportUri(uris[0]!, shortId(before)), exportUri(uris[0]!, shortId(after))];
    expect(await sha256OfExport(one)).not.toBe(await sha256OfExport(other));
  });

  const needCheck = requires('e2fsck');
  test.skipIf(needCheck.missing)(needCheck.title('is a filesystem on which e2fsck remarks nothing'), async () => {
    const server = await startServer(cleanup, ['--store', albumStore]);
    for (const { tag } of albumSnapshots) {
      const image = await copyToImage(cleanup, exportUri(server.uris[0]!, `tag:${tag}`));
      expect(await fsckRemarks(image)).toEqual([]);
    }
  });
});
