/** `--supervise`: clients go on while the serving process is killed. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { mustRun, type RunningServer, runCli, startServer } from '../support/cli.ts';
import { nbdsh } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { commandPath, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const serve = (): Promise<RunningServer> => {
  const overlay = join(temporaryFolder(cleanup), 'overlay');
  return startServer(cleanup, ['latest', '--store', albumStore, '--overlay', overlay, '--free', '256M', '--supervise']);
};

/** Children of a process, oldest first: the worker, and the next one that waits to be needed. */
function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
}

/** False for one that has ended, also if nobody has asked for its status yet. */
function isRunning(pid: number): boolean {
  const stat = existsSync(`/proc/${pid}`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : '';
  return stat !== '' && !/\) [ZX] /.test(stat);
}

/** Kills the worker, and waits until the next one serves. */
async function killWorker(server: RunningServer, times: number): Promise<void> {
  process.kill(childrenOf(server.pid)[0]!, 'SIGKILL');
  await server.waitForLog(() => server.log.filter(({ msg }) => msg === 'A new worker serves.').length >= times);
}

const needNbdsh = requires('python3-libnbd');
describe.skipIf(needNbdsh.missing)(needNbdsh.title('a client of libnbd'), () => {
  test('writes, flushes and reads back while its server is killed six times in the middle of requests', async () => {
    const server = await serve();
    const code = `
import os, random
random.seed(7)
base = h.get_size() - 64 * 1024 * 1024
blocks = {}
def worker():
    while True:
        children = open("/proc/${server.pid}/task/${server.pid}/children").read().split()
        if children: return int(children[0])
for kill in range(6):
    cookies = []
    kept = []
    for i in random.sample(range(4096), 64):
        data = random.randbytes(4096)
        blocks[i] = data
        buffer = nbd.Buffer.from_bytearray(bytearray(data))
        kept.append(buffer)
        cookies.append(h.aio_pwrite(buffer, base + 8192 * i))
    cookies.append(h.aio_flush())
    os.kill(worker(), 9)
    while cookies:
        h.poll(-1)
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
    for i, data in blocks.items():
        assert h.pread(4096, base + 8192 * i) == data, (kill, i)
print("verified", len(blocks) > 200)
`;
    expect(await nbdsh(server.uris[0]!, code)).toBe('verified True');
    const deaths = server.log.filter(({ msg }) => msg.startsWith('The worker died'));
    expect(deaths.map(({ signal }) => signal)).toEqual(Array(6).fill('SIGKILL'));
    expect((await server.stop()).exitCode).toBe(0);
  });

  test('finds what another one wrote before a death', async () => {
    const server = await serve();
    const [uri] = server.uris;
    await nbdsh(uri!, 'h.pwrite(b"a" * 4096, 4096)\nh.flush()');
    await killWorker(server, 1);
    expect(await nbdsh(uri!, 'print(h.pread(4096, 4096) == b"a" * 4096)')).toBe('True');
    expect(await nbdsh(uri!, 'print(h.get_structured_replies_negotiated())')).toBe('True');
  });
});

const needFio = requires('fio');
describe.skipIf(needFio.missing)(needFio.title('fio'), () => {
  test('verifies what it wrote, four connections, through three kills', async () => {
    const server = await serve();
    const fio = promisify(execFile)(commandPath('fio'), [
      ...['--name=verify', '--ioengine=nbd', `--uri=${server.uris[0]!}`, '--rw=randrw', '--rwmixwrite=70'],
      ...['--bsrange=4k-64k', '--iodepth=16', '--offset=900m', '--size=16m', '--numjobs=4', '--offset_increment=16m'],
      ...[
        '--loops=2',
        '--verify=crc32c',
        '--verify_fatal=1',
        '--serialize_overlap=1',
        '--fsync=64',
        '--randseed=1',
        '--verify_state_save=0',
      ],
    ]);
    for (let times = 1; times <= 3; times++) await killWorker(server, times);
    await fio;
    expect((await server.stop()).exitCode).toBe(0);
  });
});

const needNbdcopy = requires('nbdcopy');
describe.skipIf(needNbdcopy.missing)(needNbdcopy.title('nbdcopy'), () => {
  test('copies the same disk, killed in between or not', async () => {
    const server = await serve();
    const folder = temporaryFolder(cleanup);
    const copy = mustRun(commandPath('nbdcopy'), [server.uris[0]!, join(folder, 'a')]);
    for (let times = 1; times <= 3; times++) await killWorker(server, times);
    await copy;
    await mustRun(commandPath('nbdcopy'), [server.uris[0]!, join(folder, 'b')]);
    await mustRun('cmp', [join(folder, 'a'), join(folder, 'b')]);
  });
});

describe('the supervisor', () => {
  test('is refused for what does not outlive a process', async () => {
    const { exitCode, stderr } = await runCli(['serve', 'latest', '--store', albumStore, '--supervise']);
    expect(exitCode).toBe(64);
    expect(stderr).toContain('--supervise needs --overlay DIR');
  });

  test('ends as its first worker ends, if that cannot serve', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const missing = await runCli([
      'serve',
      '--store',
      '/nowhere',
      '--listen',
      'tcp://127.0.0.1:0',
      '--overlay',
      overlay,
      '--supervise',
    ]);
    expect(missing.exitCode).toBe(66);
    expect(missing.stderr.match(/kloset-nbd: /g)).toHaveLength(1);
  });

  test('takes its workers along when it is killed', async () => {
    const server = await serve();
    const children = childrenOf(server.pid);
    server.kill('SIGKILL');
    await server.ended;
    // They are not our children: nobody tells us.
    for (const pid of children) await expect.poll(() => isRunning(pid)).toBe(false);
  });

  test('hands SIGUSR1 on: the worker reports', async () => {
    const server = await serve();
    server.kill('SIGUSR1');
    await server.waitForLog(({ msg }) => msg.startsWith('Clients asked for'));
  });
});
