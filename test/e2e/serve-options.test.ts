/** Options of `serve` that change what clients are offered, seen by stock clients. */
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { exportUri, runCli, startServer } from '../support/cli.ts';
import { describeExport, nbdsh, tryNbdsh } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { requires } from '../support/requires.ts';
import { attachRaw } from './raw-client.ts';

const cleanup = cleanupAfterEach();
const serve = (...args: readonly string[]) => startServer(cleanup, ['latest', '--store', albumStore, ...args]);

const needInfo = requires('nbdinfo');
const needNbdsh = requires('python3-libnbd');

describe.skipIf(needInfo.missing)(needInfo.title('--read-only'), () => {
  test('offers disks that take no writes, and no overlay is made', async () => {
    const { uris, log } = await serve('--read-only');
    const info = await describeExport(uris[0]!);
    expect(info).toMatchObject({ is_read_only: true, can_multi_conn: true, can_fua: false });
    expect(info.description).not.toContain('volatile');
    expect(log.some(({ msg }) => msg.includes('read-only'))).toBe(true);
  });

  test('goes with --supervise, and not with --overlay DIR', async () => {
    const { uris } = await serve('--read-only', '--supervise');
    expect(await describeExport(uris[0]!)).toMatchObject({ is_read_only: true });
    const args = ['serve', 'latest', '--store', albumStore, '--read-only', '--overlay', temporaryFolder(cleanup)];
    const { exitCode, stderr } = await runCli(args);
    expect([exitCode, stderr.trimEnd().split('\n').at(-1)]).toEqual([
      64,
      'kloset-nbd: --read-only makes no overlay: leave out --overlay, or --read-only to see what it holds.',
    ]);
  });
});

describe.skipIf(needNbdsh.missing)(needNbdsh.title('--minimum-block-size'), () => {
  test('is told, and requests that do not keep to it are refused; other sizes are no option', async () => {
    const { uris } = await serve('--minimum-block-size', '512');
    const code = 'h.set_strict_mode(0); print(h.get_block_size(nbd.SIZE_MINIMUM), len(h.pread(512, 512)))';
    expect(await nbdsh(uris[0]!, code)).toBe('512 512');
    const refused = await tryNbdsh(uris[0]!, 'h.set_strict_mode(0); h.pread(512, 100)');
    expect(refused.stderr).toContain('Invalid argument');
    const { exitCode } = await runCli(['serve', 'latest', '--store', albumStore, '--minimum-block-size', '1024']);
    expect(exitCode).toBe(64);
  });
});

describe('--idle-timeout', () => {
  test('disconnects a client that asks nothing, and must be a number of seconds', async () => {
    const { uris, waitForLog } = await serve('--idle-timeout', '1');
    const idle = await attachRaw(cleanup, uris[0]!, '');
    idle.resume();
    await once(idle, 'close');
    expect(await waitForLog(({ msg }) => msg.includes('nothing was asked or read for 1000 ms'))).toBeDefined();
    for (const wrong of ['soon', '-1', '25d', '597h']) {
      const { exitCode } = await runCli(['serve', 'latest', '--store', albumStore, `--idle-timeout=${wrong}`]);
      expect(exitCode, wrong).toBe(64);
    }
  });
});

describe.skipIf(needNbdsh.missing)(needNbdsh.title('the name to attach by'), () => {
  test('is in the log, and reaches no other disk after a restart that lost writes', async () => {
    const first = await serve();
    const { attachAs } = await first.waitForLog((line) => line.attachAs !== undefined);
    const name = String(attachAs);
    await nbdsh(exportUri(first.uris[0]!, name), 'h.pwrite(b"x" * 512, 0)');
    await first.stop();
    const second = await serve();
    const refused = await tryNbdsh(exportUri(second.uris[0]!, name), 'h.get_size()');
    expect(refused.exitCode).not.toBe(0);
    const told = await second.waitForLog(({ msg }) => msg === 'an export could not be opened');
    expect(JSON.stringify(told)).toContain("this disk's writes were lost when the server ended");
  });
});
