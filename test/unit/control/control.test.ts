/** The control socket: what is asked is answered, whatever else is asked, and what a connection holds is given back. */
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ControlClient } from '../../../src/control/control-client.ts';
import { type ControlCommand, ControlServer } from '../../../src/control/control-server.ts';
import { LineReader } from '../../../src/control/line-reader.ts';
import { AssertionError, OverlayError, UserError } from '../../../src/core/errors.ts';
import { silentLog } from '../../../src/core/log.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';

const cleanup = cleanupAfterEach();

async function start(commands: Record<string, ControlCommand>) {
  const path = join(temporaryFolder(cleanup), 'control');
  const bugs: unknown[] = [];
  const server = await ControlServer.listen({ path, commands, log: silentLog, onBug: (bug) => bugs.push(bug) });
  cleanup.add(() => server.close());
  const client = await ControlClient.connect(path);
  if (client === undefined) throw new Error('nobody listens');
  cleanup.add(() => client.close());
  return { path, server, client, bugs };
}

describe('a control socket', () => {
  it('answers in whatever order the answers are ready, JSON and bytes', async () => {
    const gates: (() => void)[] = [];
    const { client, path } = await start({
      echo: async (given) => given,
      wait: (given) => new Promise((resolve) => gates.push(() => resolve(given.n))),
      bytes: async ({ length }) => new Uint8Array(Number(length)).fill(7),
      nothing: async () => undefined,
    });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(client.pid).toBe(process.pid);
    const waiting = [client.call('wait', { n: 1 }), client.call('wait', { n: 2 })];
    const bytes = (await client.call('bytes', { length: 3_000_000 })) as Buffer;
    expect([bytes.length, bytes[0], bytes.at(-1)]).toEqual([3_000_000, 7, 7]);
    expect(await client.call('bytes', { length: 0 })).toHaveLength(0);
    expect(await client.call('echo', { text: 'ü\n' })).toEqual({ text: 'ü\n' });
    expect(await client.call('nothing')).toBeUndefined();
    for (const open of gates.reverse()) open();
    expect(await Promise.all(waiting)).toEqual([1, 2]);
  });

  it('hands errors over with their class, and says what it does not know', async () => {
    const { client, bugs } = await start({
      user: () => Promise.reject(new UserError('wrong', { exitCode: 66 })),
      full: () => Promise.reject(new OverlayError('no room', { reason: 'full' })),
      broken: () => Promise.reject(new AssertionError('cannot be')),
    });
    await expect(client.call('user')).rejects.toMatchObject({ code: 'USER', message: 'wrong', exitCode: 66 });
    await expect(client.call('full')).rejects.toMatchObject({ code: 'OVERLAY', reason: 'full' });
    await expect(client.call('broken')).rejects.toBeInstanceOf(AssertionError);
    expect(bugs).toHaveLength(1);
    await expect(client.call('other')).rejects.toThrow(/does not know "other"/);
    await expect(client.call('toString')).rejects.toThrow(/does not know/);
  });

  it('answers hundreds of requests that are sent at once', async () => {
    let most = 0;
    let now = 0;
    const { client } = await start({
      count: async ({ n }) => {
        most = Math.max(most, ++now);
        await new Promise((resolve) => setImmediate(resolve));
        now--;
        return n;
      },
    });
    const answers = await Promise.all(Array.from({ length: 500 }, (_, n) => client.call('count', { n })));
    expect(answers).toEqual(Array.from({ length: 500 }, (_, n) => n));
    expect(most).toBeLessThanOrEqual(32);
  });

  it('gives back what a connection held when it ends', async () => {
    const given: string[] = [];
    let back = () => {};
    const isBack = new Promise<void>((resolve) => {
      back = resolve;
    });
    const { client } = await start({
      hold: async (_, session) => {
        session.onEnd(async () => {
          given.push('back');
          back();
        });
      },
    });
    await client.call('hold');
    expect(given).toEqual([]);
    client.close();
    await isBack;
    expect(given).toEqual(['back']);
  });

  it('drops a connection that sends what is no request, and serves the others', async () => {
    const { client, path } = await start({ echo: async (given) => given });
    for (const garbage of ['no json\n', '[]\n', '{"id":"x","command":"echo"}\n', 'x'.repeat(100_000)]) {
      const socket = connect({ path });
      socket.on('error', () => {});
      socket.resume();
      socket.write(garbage);
      await once(socket, 'close');
    }
    expect(await client.call('echo', { still: true })).toEqual({ still: true });
  });

  it('tells who waits that the server has ended', async () => {
    const { client, server } = await start({ echo: async (given) => given });
    await server.close();
    await expect(client.call('echo')).rejects.toThrow(/server ended/);
    expect(await ControlClient.connect(join(temporaryFolder(cleanup), 'nobody'))).toBeUndefined();
  });
});

describe('LineReader', () => {
  it('cuts lines and bytes however they come', () => {
    const stream = Buffer.from('first\n\nbytes:ABCDEthird ü\nrest');
    for (let size = 1; size <= stream.length; size++) {
      const reader = new LineReader(100);
      const lines: string[] = [];
      let bytes: string | undefined;
      for (let at = 0; at < stream.length; at += size) {
        reader.push(stream.subarray(at, at + size));
        for (;;) {
          if (lines.length === 2 && bytes === undefined) {
            bytes = reader.bytes('bytes:ABCDE'.length)?.toString();
            if (bytes === undefined) break;
          }
          const line = reader.line();
          if (line === undefined) break;
          lines.push(line);
        }
      }
      expect([lines, bytes], `in pieces of ${size}`).toEqual([['first', '', 'third ü'], 'bytes:ABCDE']);
    }
  });

  it('refuses a line that does not end', () => {
    const reader = new LineReader(10);
    reader.push(Buffer.alloc(11, 'x'));
    expect(() => reader.line()).toThrow(RangeError);
  });
});
