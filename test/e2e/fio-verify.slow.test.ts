/** Minutes of random writes that are read back and verified, on four connections; then the whole disk, copied and compared. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun, startServer } from '../support/cli.ts';
import { copyToImage } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { commandPath, requires } from '../support/requires.ts';

const seconds = Number(process.env.KLOSET_NBD_FIO_SECONDS ?? 300);
const cleanup = cleanupAfterEach();

const need = requires('fio', 'nbdcopy', 'qemu-img');
describe.skipIf(need.missing)(need.title(`fio verifies for ${seconds} s`), () => {
  test.each(['memory', 'directory'])('over an overlay in %s', async (kind) => {
    const folder = temporaryFolder(cleanup);
    const overlay = kind === 'memory' ? 'memory' : join(folder, 'overlay');
    const listen = ['--listen', `unix:${join(folder, 'socket')}`];
    const { uris, stop } = await startServer(cleanup, [
      'latest',
      '--store',
      albumStore,
      '--overlay',
      overlay,
      ...listen,
    ]);
    const workload = ['--rw=randrw', '--bsrange=4k-64k', '--iodepth=32', '--numjobs=4'];
    const regions = ['--size=128m', '--offset_increment=128m', '--time_based', `--runtime=${seconds}`];
    const verifying = ['--verify=crc32c', '--verify_backlog=512', '--verify_fatal=1'];
    await mustRun(
      commandPath('fio'),
      ['--name=verify', '--ioengine=nbd', `--uri=${uris[0]}`, ...workload, ...regions, ...verifying],
      { cwd: folder },
    );
    const image = await copyToImage(cleanup, uris[0]!);
    const compared = await mustRun(commandPath('qemu-img'), ['compare', '-f', 'raw', '-F', 'raw', uris[0]!, image]);
    expect(compared).toContain('Images are identical.');
    expect((await stop()).exitCode).toBe(0);
  });
});
