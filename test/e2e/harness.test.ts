/** The judges the other end-to-end tests rely on: each must pass what is right, and be able to fail. */
import { chmodSync, closeSync, linkSync, mkdirSync, openSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun } from '../support/cli.ts';
import { type Cleanup, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { differences, type ExpectedEntry } from '../support/fixtures-manifest.ts';
import { attachDevice, fsckRemarks, mountDevice, mountNeeds } from '../support/mount.ts';
import { commandPath, requires } from '../support/requires.ts';
import { connectRaw, receive } from './raw-client.ts';

const HELLO_SHA256 = '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03';

describe('the comparison with a manifest', () => {
  const cleanup = cleanupAfterEach();
  const expected: readonly ExpectedEntry[] = [
    { path: '/folder', type: 'dir', mode: 0o750 },
    { path: '/folder/file', type: 'file', mode: 0o4644, size: 6, sha256: HELLO_SHA256 },
    { path: '/folder/again', type: 'file', mode: 0o4644, size: 6, sameInodeAs: '/folder/file' },
    { path: '/link', type: 'symlink', mode: 0o777, linkTarget: 'folder/file' },
  ];

  function layOut(): string {
    const folder = temporaryFolder(cleanup);
    mkdirSync(join(folder, 'folder'));
    chmodSync(join(folder, 'folder'), 0o750);
    writeFileSync(join(folder, 'folder/file'), 'hello\n');
    chmodSync(join(folder, 'folder/file'), 0o4644);
    linkSync(join(folder, 'folder/file'), join(folder, 'folder/again'));
    symlinkSync('folder/file', join(folder, 'link'));
    return folder;
  }

  test('finds nothing where all is well', async () => {
    expect(await differences(layOut(), expected)).toEqual([]);
  });

  test('names a file that has another byte', async () => {
    const folder = layOut();
    writeFileSync(join(folder, 'folder/file'), 'hellO\n');
    expect((await differences(folder, expected)).join()).toContain('/folder/file: sha256 is');
  });

  test.each<[string, Partial<ExpectedEntry>]>([
    ['mode', { mode: 0o644 }],
    ['type', { type: 'fifo' }],
    ['size', { size: 7 }],
    ['uid', { uid: 12345 }],
    ['mtimeNs', { mtimeNs: 1n }],
  ])('names a wrong %s', async (field, change) => {
    const wrong = expected.map((entry) => (entry.path === '/folder/again' ? { ...entry, ...change } : entry));
    const lines = await differences(layOut(), wrong);
    expect(lines.some((line) => line.startsWith(`/folder/again: ${field} is`))).toBe(true);
  });

  test('names another link target, a missing entry, one too many, and a link that is none', async () => {
    const wrong: readonly ExpectedEntry[] = [
      ...expected.slice(0, 2),
      { path: '/link', type: 'symlink', mode: 0o777, linkTarget: 'elsewhere', sameInodeAs: '/folder/file' },
      { path: '/nowhere', type: 'file', mode: 0o644 },
    ];
    expect(await differences(layOut(), wrong)).toEqual([
      '/folder/again should not be there',
      '/link: linkTarget is folder/file, should be elsewhere',
      '/nowhere is missing',
      '/link should be the same file as /folder/file',
    ]);
  });

  const need = requires('getfattr', 'root');
  test.skipIf(need.missing)(need.title('reads attributes, with odd names'), async () => {
    const folder = layOut();
    await mustRun('setfattr', ['-n', 'trusted.a=b é', '-v', 'value', join(folder, 'folder/file')]);
    const withAttributes = (attributes: Record<string, string>) =>
      expected.map((entry) => (entry.sha256 === undefined ? entry : { ...entry, attributes }));
    expect(await differences(folder, withAttributes({ 'trusted.a=b é': '76616c7565' }))).toEqual([]);
    expect(await differences(folder, withAttributes({ 'trusted.a=b é': '00' }))).toHaveLength(1);
    expect(await differences(folder, withAttributes({}))).toHaveLength(1);
  });
});

const need = requires(...mountNeeds, 'nbdkit', 'mkfs.ext4', 'debugfs');
describe.skipIf(need.missing)(need.title('mounting what another NBD server serves'), () => {
  const cleanup = cleanupAfterEach();

  async function makeImage(): Promise<string> {
    const image = join(temporaryFolder(cleanup), 'image');
    closeSync(openSync(image, 'w'));
    truncateSync(image, 16 * 1024 * 1024);
    await mustRun(commandPath('mkfs.ext4'), ['-q', image]);
    return image;
  }

  test('what was written is there at the next mount, and e2fsck remarks nothing', async () => {
    const uri = await serveWithNbdkit(cleanup, await makeImage());
    for (const expected of [[], [{ path: '/file', type: 'file', mode: 0o600, sha256: HELLO_SHA256 }]] as const) {
      const device = await attachDevice(cleanup, uri);
      expect(await fsckRemarks(device.path)).toEqual([]);
      const { folder, unmount } = await mountDevice(cleanup, device.path);
      expect(await differences(folder, expected)).toEqual([]);
      writeFileSync(join(folder, 'file'), 'hello\n', { mode: 0o600 });
      await unmount();
      await device.detach();
    }
  });

  test('e2fsck remarks a wrong count of free blocks', async () => {
    const image = await makeImage();
    expect(await fsckRemarks(image)).toEqual([]);
    await mustRun(commandPath('debugfs'), ['-w', '-R', 'set_super_value free_blocks_count 1', image]);
    expect(await fsckRemarks(image)).not.toEqual([]);
  });
});

/** Serves a file with nbdkit on a Unix socket until the test ends. */
async function serveWithNbdkit(cleanup: Cleanup, file: string): Promise<string> {
  const folder = temporaryFolder(cleanup);
  const [socket, pidFile] = [join(folder, 'socket'), join(folder, 'pid')];
  // Returns once it listens, as a daemon does.
  await mustRun(commandPath('nbdkit'), ['--unix', socket, '--pidfile', pidFile, 'file', file]);
  cleanup.add(() => mustRun('sh', ['-c', 'kill "$(cat "$1")"', 'sh', pidFile]));
  return `nbd+unix:///?socket=${socket}`;
}

describe('the client without manners', () => {
  const cleanup = cleanupAfterEach();

  test('listens no longer for what it has received', async () => {
    const server = createServer((socket) => {
      const timer = setInterval(() => socket.write('x'), 1);
      socket.on('close', () => clearInterval(timer)).on('error', () => undefined);
    });
    cleanup.add(() => void server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const socket = await connectRaw(cleanup, `nbd://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const before = socket.listenerCount('close');
    // One piece of a byte after another: it is looked for more often than it is there.
    expect(await receive(socket, 50)).toHaveLength(50);
    expect(socket.listenerCount('close')).toBe(before);
    expect(socket.listenerCount('readable')).toBeLessThanOrEqual(1);
    socket.destroy();
  });
});
