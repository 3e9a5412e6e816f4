/** What an operator sees of an overlay that fills up, and of one that is encrypted. */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type RunningServer, startServer } from '../support/cli.ts';
import { nbdsh } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach, storePath, temporaryFolder } from '../support/fixtures.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires('python3-libnbd');
/** Of the encrypted fixture. */
const PASSPHRASE = 'fixture passphrase 1';
const serve = (...args: readonly string[]) => startServer(cleanup, ['latest', '--store', albumStore, ...args]);

/** Resolves once the server has logged a line that matches. */
async function hasLogged({ log }: RunningServer, pattern: RegExp): Promise<void> {
  while (!log.some(({ msg }) => pattern.test(msg ?? ''))) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe.skipIf(need.missing)(need.title('an overlay that has reached its limit'), () => {
  const MARK = 'import os; data = os.urandom(1 << 20)';

  test('lets writes wait, and go on when the limit is raised; no client sees an error', async () => {
    const folder = temporaryFolder(cleanup);
    const limitFile = join(folder, 'limit');
    writeFileSync(limitFile, '512K\n');
    const server = await serve('--overlay', join(folder, 'overlay'), '--overlay-limit', `@${limitFile}`);
    const write = nbdsh(
      server.uris[0]!,
      `${MARK}\nh.pwrite(data, 1 << 20)\nh.flush()\nprint(h.pread(1 << 20, 1 << 20) == data)`,
    );
    await hasLogged(server, /reached its limit.*writes wait/);
    server.kill('SIGUSR1');
    await hasLogged(server, /Health: degraded: writes wait for space/);
    writeFileSync(limitFile, 'much\n');
    server.kill('SIGHUP');
    await hasLogged(server, /limit of overlays stays/);
    writeFileSync(limitFile, '8M\n');
    server.kill('SIGHUP');
    expect(await write).toBe('True');
    await hasLogged(server, /has space again/);
    expect((await server.stop()).exitCode).toBe(0);
    expect(server.log.some(({ msg }) => /Health: ok/.test(msg ?? ''))).toBe(true);
  });

  test('ends in order while a write waits: that write fails, what was flushed is there', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const server = await serve('--overlay', overlay, '--overlay-limit', '512K');
    const write = nbdsh(server.uris[0]!, `h.pwrite(b"a" * 4096, 8192)\nh.flush()\n${MARK}\nh.pwrite(data, 1 << 20)`);
    const outcome = write.then(
      () => 'taken',
      () => 'failed',
    );
    await hasLogged(server, /reached its limit.*writes wait/);
    expect((await server.stop()).exitCode).toBe(0);
    expect(await outcome).toBe('failed');
    const again = await serve('--overlay', overlay);
    expect(await nbdsh(again.uris[0]!, 'print(h.pread(4096, 8192) == b"a" * 4096)')).toBe('True');
  });

  test('fails them with --on-full fail', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const server = await serve('--overlay', overlay, '--overlay-limit', '512K', '--on-full', 'fail');
    const code = `${MARK}\ntry:\n  h.pwrite(data, 1 << 20)\nexcept nbd.Error as error:\n  print(error.errno)`;
    expect(await nbdsh(server.uris[0]!, code)).toBe('ENOSPC');
  });
});

describe.skipIf(need.missing)(need.title('what is written beside an encrypted store'), () => {
  const MARKER = 'nobody without the key shall read this ';
  const WRITE = `data = b"${MARKER}" * 4000\nh.pwrite(data, 1 << 20)\nh.flush()\nprint(h.pread(len(data), 1 << 20) == data)`;

  /** Serves the encrypted fixture; everything it writes is in `folder`. */
  function serveEncrypted(folder: string, ...args: readonly string[]): Promise<RunningServer> {
    const keyfile = join(folder, 'keyfile');
    writeFileSync(keyfile, PASSPHRASE);
    const store = ['--store', storePath('encrypted'), '--keyfile', keyfile];
    return startServer(cleanup, ['latest', ...store, '--temp-dir', folder, ...args]);
  }

  /** Contents of a process's open files below a folder, also of those without a name. */
  function openFiles(pid: number, folder: string): Buffer[] {
    const descriptors = `/proc/${pid}/fd`;
    const ours = readdirSync(descriptors).filter((fd) => readlinkSync(join(descriptors, fd)).startsWith(folder));
    return ours.map((fd) => readFileSync(join(descriptors, fd)));
  }

  test.each([
    ['overlays in a directory', (folder: string) => ['--overlay', join(folder, 'overlay')]],
    ['the file of overlays in memory', () => ['--overlay-memory-limit', '16K']],
  ])('%s show nothing of it', async (_, options) => {
    for (const encryption of ['auto', 'off']) {
      const folder = temporaryFolder(cleanup);
      const server = await serveEncrypted(folder, ...options(folder), '--overlay-encryption', encryption);
      expect(await nbdsh(server.uris[0]!, WRITE)).toBe('True');
      const files = openFiles(server.pid, folder);
      expect(files.reduce((bytes, { length }) => bytes + length, 0)).toBeGreaterThan(100_000);
      expect(
        files.some((bytes) => bytes.includes(MARKER)),
        encryption,
      ).toBe(encryption === 'off');
      expect((await server.stop()).exitCode).toBe(0);
      if (!options(folder).includes('--overlay')) continue;
      const again = await serveEncrypted(folder, ...options(folder));
      expect(await nbdsh(again.uris[0]!, `print(h.pread(39, 1 << 20) == b"${MARKER}")`)).toBe('True');
      await again.stop();
    }
  });
});
