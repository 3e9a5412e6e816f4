/** Clients that break the protocol, and servers that are told to end: others get their bytes, nobody waits for ever. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type RunningServer, startServer } from '../support/cli.ts';
import { copyToImage, nbdsh, sha256OfExport } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach } from '../support/fixtures.ts';
import { requires } from '../support/requires.ts';
import { attachRaw, closedByServer, connectRaw, optionBytes, readRequest, receive } from './raw-client.ts';

const cleanup = cleanupAfterEach();
const MiB = 1024 * 1024;
const serve = (...args: readonly string[]): Promise<RunningServer> =>
  startServer(cleanup, ['latest', '--store', albumStore, '--free', '64M', ...args]);

const need = requires('nbdcopy');
describe.skipIf(need.missing)(need.title('while another client goes on'), () => {
  /** Runs `misbehave` against a server in the middle of another client's reading; that one must not notice. */
  async function expectUndisturbed(misbehave: (uri: string) => Promise<void>): Promise<void> {
    const server = await serve();
    const uri = server.uris[0]!;
    const before = await sha256OfExport(uri);
    const during = sha256OfExport(uri);
    await misbehave(uri);
    expect(await during).toBe(before);
    expect((await server.stop()).exitCode).toBe(0);
  }

  test('garbage instead of a handshake ends that connection only', () =>
    expectUndisturbed(async (uri) => {
      for (let round = 0; round < 20; round++) {
        const socket = await connectRaw(cleanup, uri);
        socket.write(randomBytes(1 + round * 100));
        socket.end();
        await closedByServer(socket);
      }
    }));

  test('garbage instead of a request ends that connection only', () =>
    expectUndisturbed(async (uri) => {
      const socket = await attachRaw(cleanup, uri, '');
      socket.write(Buffer.alloc(28, 0xab));
      await closedByServer(socket);
    }));

  test('an option that claims gigabytes ends that connection only', () =>
    expectUndisturbed(async (uri) => {
      const socket = await connectRaw(cleanup, uri);
      socket.write(optionBytes(1, Buffer.alloc(100), 0xfffffff0));
      await closedByServer(socket);
    }));

  test('half a handshake may stay half, and does not hold up the end', () =>
    expectUndisturbed(async (uri) => {
      for (const length of [0, 1, 4, 15, 20, 22]) {
        const socket = await connectRaw(cleanup, uri);
        await receive(socket, 18);
        if (length > 0) socket.write(optionBytes(1, Buffer.from('latest')).subarray(0, length));
      }
    }));

  test('a client that asks for much and reads nothing does not starve it', () =>
    expectUndisturbed(async (uri) => {
      const socket = await attachRaw(cleanup, uri, '');
      for (let index = 0; index < 256; index++) socket.write(readRequest(index, index * MiB * 0.5, MiB));
      // Gone before its sibling ends, so that the server's end has nobody to wait for.
      await sha256OfExport(uri);
      socket.destroy();
    }));
});

const needPython = requires('nbdcopy', 'python3-libnbd');
describe.skipIf(needPython.missing)(needPython.title('SIGTERM'), () => {
  test.each(['SIGTERM', 'SIGINT'])('%s lets requests in flight finish, all of them and right', async (signal) => {
    const server = await serve();
    const image = await copyToImage(cleanup, server.uris[0]!);
    const code = [
      'import os, signal',
      'size, count = 1 << 18, 64',
      `expected = open(${JSON.stringify(image)}, "rb").read(size * count)`,
      'buffers = [nbd.Buffer(size) for _ in range(count)]',
      'cookies = [h.aio_pread(buffer, index * size) for index, buffer in enumerate(buffers)]',
      // With the first answer the server has them all: they came in one piece.
      'while not any(h.aio_command_completed(cookie) for cookie in cookies[:1]): h.poll(-1)',
      `os.kill(${server.pid}, signal.${signal})`,
      'cookies = cookies[1:]',
      'while cookies:',
      '    cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]',
      '    if cookies: h.poll(-1)',
      'print(b"".join(bytes(buffer.to_bytearray()) for buffer in buffers) == expected)',
    ].join('\n');
    expect(await nbdsh(server.uris[0]!, code)).toBe('True');
    expect(await server.ended).toMatchObject({ exitCode: 0 });
  });

  test('ends a server whose clients are idle, and reports what it did', async () => {
    const server = await serve();
    await sha256OfExport(server.uris[0]!);
    const idle = await attachRaw(cleanup, server.uris[0]!, '');
    const { exitCode } = await server.stop();
    expect(exitCode).toBe(0);
    await closedByServer(idle);
    expect(server.log.some((line) => typeof line.askedBytes === 'number' && line.askedBytes > 0)).toBe(true);
  });

  test('a second one does not wait for a client that never takes its answers', async () => {
    const server = await serve();
    const stuck = await attachRaw(cleanup, server.uris[0]!, '');
    for (let index = 0; index < 64; index++) stuck.write(readRequest(index, index * MiB, MiB));
    await receive(stuck, 16);
    server.kill('SIGTERM');
    await server.waitForLog((line) => /^Stopping/.test(line.msg));
    server.kill('SIGTERM');
    await server.ended;
  });
});

test('SIGUSR1 reports and goes on', async () => {
  const server = await serve();
  server.kill('SIGUSR1');
  const first = await server.waitForLog((line) => 'askedBytes' in line);
  expect(first).toMatchObject({ storeBytes: expect.any(Number), overlayBytes: 0 });
  expect((await server.stop()).exitCode).toBe(0);
});
