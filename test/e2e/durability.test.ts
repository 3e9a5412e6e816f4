/** `--overlay DIR`: what a client was told is durable is there after the server was killed. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type RunningServer, startServer } from '../support/cli.ts';
import { nbdsh } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { attachDevice, fsckRemarks, mountDevice, mountNeeds } from '../support/mount.ts';
import { postgresNeeds, startPostgres } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const serve = (overlay: string): Promise<RunningServer> =>
  startServer(cleanup, ['latest', '--store', albumStore, '--owner', 'root', '--overlay', overlay, '--free', '256M']);
const newOverlay = () => join(temporaryFolder(cleanup), 'overlay');

async function killHard(server: RunningServer): Promise<void> {
  server.kill('SIGKILL');
  await server.ended;
}

const need = requires('python3-libnbd');
describe.skipIf(need.missing)(need.title('after kill -9'), () => {
  /** Where the server has its process id, so that a client can end it right after an answer. */
  const killNow = ({ pid }: RunningServer) => `import os; os.kill(${pid}, 9)`;

  test.each([
    ['a write and a flush', 'h.pwrite(data, 70000)\nh.flush()'],
    ['a write with FUA', 'h.pwrite(data, 70000, nbd.CMD_FLAG_FUA)'],
    [
      'writes in pieces and a flush',
      'for i in range(10): h.pwrite(data[i * 1000:(i + 1) * 1000], 70000 + i * 1000)\nh.flush()',
    ],
  ])('%s are there, each byte of them', async (_, write) => {
    const overlay = newOverlay();
    const data = 'data = bytes(i * 7 % 251 for i in range(10000))';
    const first = await serve(overlay);
    const around = await nbdsh(first.uris[0]!, 'print((h.pread(100, 69900) + h.pread(100, 80000)).hex())');
    await nbdsh(first.uris[0]!, `${data}\n${write}\n${killNow(first)}`);
    expect((await first.ended).signal).toBe('SIGKILL');
    const second = await serve(overlay);
    expect(await nbdsh(second.uris[0]!, `${data}\nprint(h.pread(10000, 70000) == data)`)).toBe('True');
    expect(await nbdsh(second.uris[0]!, 'print((h.pread(100, 69900) + h.pread(100, 80000)).hex())')).toBe(around);
  });

  test('zeroes and trims that were flushed are there', async () => {
    const overlay = newOverlay();
    const first = await serve(overlay);
    const zero =
      'h.pwrite(b"x" * 65536, 1 << 20)\nh.zero(5000, (1 << 20) + 100)\nh.trim(8192, (1 << 20) + 16384)\nh.flush()';
    await nbdsh(first.uris[0]!, `${zero}\n${killNow(first)}`);
    await first.ended;
    const second = await serve(overlay);
    const expected = 'b"x" * 100 + bytes(5000) + b"x" * 11284 + bytes(8192) + b"x" * 40960';
    expect(await nbdsh(second.uris[0]!, `print(h.pread(65536, 1 << 20) == ${expected})`)).toBe('True');
  });

  test('what was written after the last flush is there wholly, in part or not at all: never something else', async () => {
    const overlay = newOverlay();
    const first = await serve(overlay);
    const code = 'h.pwrite(b"a" * 65536, 1 << 20)\nh.flush()\nh.pwrite(b"b" * 65536, 1 << 20)';
    await nbdsh(first.uris[0]!, `${code}\n${killNow(first)}`);
    await first.ended;
    const second = await serve(overlay);
    const found = await nbdsh(second.uris[0]!, 'print(sorted(set(h.pread(65536, 1 << 20))))');
    expect(['[97]', '[98]', '[97, 98]']).toContain(found);
  });

  test('of a server that is starting again and again, nothing is lost', async () => {
    const overlay = newOverlay();
    for (let round = 0; round < 5; round++) {
      const server = await serve(overlay);
      const check = `print(all(h.pread(4096, (1 << 20) + i * 4096) == bytes([i + 1]) * 4096 for i in range(${round})))`;
      expect(await nbdsh(server.uris[0]!, check)).toBe('True');
      await nbdsh(
        server.uris[0]!,
        `h.pwrite(bytes([${round + 1}]) * 4096, (1 << 20) + ${round * 4096})\nh.flush()\n${killNow(server)}`,
      );
      await server.ended;
    }
  });
});

const needPostgres = requires(...mountNeeds, ...postgresNeeds);
describe.skipIf(needPostgres.missing)(
  needPostgres.title('PostgreSQL, its disk gone from one moment to the next'),
  () => {
    test('has every committed row when the disk is back', async () => {
      const overlay = newOverlay();
      const serveToPostgres = () =>
        startServer(cleanup, ['latest', '--store', albumStore, '--owner', 'postgres', '--overlay', overlay]);
      const first = await serveToPostgres();
      const device = await attachDevice(cleanup, first.uris[0]!);
      const mounted = await mountDevice(cleanup, device.path);
      const postgres = await startPostgres(cleanup, mounted.folder);
      await postgres.query('create table committed as select i from generate_series(1, 5000) i');
      await postgres.query('checkpoint');
      // Only in the write-ahead log.
      await postgres.query('insert into committed select i from generate_series(5001, 6000) i');
      await killHard(first);
      // It may well have seen that its disk is gone, and have ended by itself.
      await postgres.stop('immediate').catch(() => undefined);
      await mounted.unmount();
      await device.detach();

      const second = await serveToPostgres();
      const deviceAgain = await attachDevice(cleanup, second.uris[0]!);
      const mountedAgain = await mountDevice(cleanup, deviceAgain.path);
      const again = await startPostgres(cleanup, mountedAgain.folder);
      expect(await again.query('select count(*), sum(i) from committed')).toBe(`6000|${(6000 * 6001) / 2}`);
      await again.stop();
      await mountedAgain.unmount();
      expect(await fsckRemarks(deviceAgain.path)).toEqual([]);
      await deviceAgain.detach();
    });
  },
);
