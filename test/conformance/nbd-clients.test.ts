/** Real clients, which this project did not write, against the server. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { startServer, type TestServer } from '../support/nbd-fixture.ts';
import { StatusDevice } from '../support/nbd-status-device.ts';
import { commandPath, findPythonWithLibnbd, type Need, requires } from '../support/requires.ts';

const SIZE = 32 * MiB;
const content = new Uint8Array(SIZE);
for (let i = 0; i < 5 * MiB; i++) content[i] = (i * 7 + (i >> 12)) & 0xff;

let running: TestServer;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nbd-clients-'));
  running = await startServer({
    disk: { device: new StatusDevice(content.slice()), description: 'thirty-two megabytes' },
    base: { device: new StatusDevice(content), readOnly: true },
  });
});
afterAll(async () => {
  await running.close();
  rmSync(folder, { recursive: true });
});

const run = async (command: string, ...args: readonly string[]) =>
  (await promisify(execFile)(command, args, { maxBuffer: 64 * MiB, timeout: 50_000 })).stdout;

function withTool(need: Need, title: string, body: () => Promise<void>): void {
  const needed = requires(need);
  test.skipIf(needed.missing)(needed.title(title), body);
}

/** The URIs of an export, on TCP and on the Unix socket. */
const uris = (name: string) => [`${running.tcp}${name}`, running.unix.replace('nbd+unix:///', `nbd+unix:///${name}`)];

describe('clients', () => {
  withTool('nbdinfo', 'nbdinfo lists and describes the exports', async () => {
    for (const uri of uris('')) {
      const { exports } = JSON.parse(await run(commandPath('nbdinfo'), '--list', '--json', uri));
      expect(exports).toMatchObject([
        { 'export-name': 'disk', description: 'thirty-two megabytes', is_read_only: false, can_multi_conn: true },
        {
          'export-name': 'base',
          'export-size': SIZE,
          is_read_only: true,
          contexts: ['base:allocation', 'kloset:overlay'],
        },
      ]);
    }
    const map = JSON.parse(await run(commandPath('nbdinfo'), '--map', '--json', uris('base')[0]!));
    expect(map).toMatchObject([
      { offset: 0, length: 5 * MiB, type: 0 },
      { offset: 5 * MiB, length: 27 * MiB, type: 3 },
    ]);
  });

  withTool('nbdcopy', 'nbdcopy copies the disk over several connections', async () => {
    for (const [i, uri] of uris('base').entries()) {
      const copy = join(folder, `copy${i}`);
      await run(commandPath('nbdcopy'), '--connections=4', uri, copy);
      expect(Buffer.compare(readFileSync(copy), content)).toBe(0);
    }
  });

  withTool('qemu-io', 'qemu-io writes, zeroes, discards and verifies', async () => {
    const commands = ['write -P 0x5a 1M 1M', 'write -z -u 1M 64k', 'read -P 0 1M 64k', 'read -P 0x5a 1088k 960k'];
    commands.push('write -f -P 0x77 3M 4k', 'flush', 'read -P 0x77 3M 4k', 'discard 4M 64k', 'read -P 0 4M 64k');
    for (const uri of uris('disk')) {
      const output = await run(
        commandPath('qemu-io'),
        '-f',
        'raw',
        ...commands.flatMap((command) => ['-c', command]),
        uri,
      );
      expect(output).not.toMatch(/fail|error|verification/i);
    }
  });

  withTool('qemu-img', 'qemu-img finds its own copy equal', async () => {
    const image = join(folder, 'image');
    writeFileSync(image, content);
    const uri = uris('base')[1]!;
    expect(await run(commandPath('qemu-img'), 'compare', '-f', 'raw', '-F', 'raw', uri, image)).toContain('identical');
    content[5 * MiB + 1]! ^= 1;
    await expect(run(commandPath('qemu-img'), 'compare', '-f', 'raw', '-F', 'raw', uri, image)).rejects.toThrow();
    content[5 * MiB + 1]! ^= 1;
  });

  withTool('fio', 'fio verifies what it wrote, 32 requests in flight', async () => {
    const args = [
      '--name=v',
      '--ioengine=nbd',
      `--uri=${uris('disk')[1]}`,
      '--rw=randwrite',
      '--bs=4k',
      '--iodepth=32',
    ];
    args.push('--size=8m', '--offset=8m', '--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--randseed=1');
    const output = await run(
      commandPath('fio'),
      ...args,
      `--aux-path=${folder}`,
      '--output-format=json',
      '--verify_state_save=0',
    );
    const [job] = JSON.parse(output.slice(output.indexOf('{'))).jobs;
    expect([job.error, job.read.io_bytes]).toEqual([0, 8 * MiB]);
  });

  withTool(
    'python3-libnbd',
    'libnbd writes on one connection what another reads, and keeps to what was offered',
    async () => {
      const script = `
import nbd, sys
a, b = nbd.NBD(), nbd.NBD()
for h in (a, b):
    h.add_meta_context("kloset:overlay")
    h.connect_uri(sys.argv[1])
assert a.can_multi_conn() and a.can_fua() and a.can_fast_zero() and a.can_cache() and a.can_df()
a.pwrite(b"x" * 5000, 20 << 20, nbd.CMD_FLAG_FUA)
assert b.pread(5000, 20 << 20) == b"x" * 5000
got = []
b.block_status(1 << 20, 20 << 20, lambda c, o, e, err: got.extend(e))
assert got[:2] == [8192, 1], got
a.cache(4096, 0); a.zero(5000, 20 << 20, nbd.CMD_FLAG_FAST_ZERO); a.trim(4096, 21 << 20); a.flush()
assert b.pread(5000, 20 << 20) == bytes(5000)
print("fine")
`;
      for (const uri of uris('disk')) expect(await run(findPythonWithLibnbd()!, '-c', script, uri)).toBe('fine\n');
    },
  );
});
