import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { type Listener, listen } from '../../../src/nbd/listener.ts';

let folder: string;
const listeners: Listener[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nbd-listen-'));
});
afterEach(() => {
  for (const listener of listeners.splice(0)) listener.close();
  rmSync(folder, { recursive: true });
});

async function start(address: Parameters<typeof listen>[0]): Promise<Listener> {
  const listener = await listen(address, { tlsRequired: false, accept: (socket) => socket.destroy() });
  listeners.push(listener);
  return listener;
}

/** What a listen that must fail says; a UserError with the exit code of usage. */
async function refusal(address: Parameters<typeof listen>[0]): Promise<string> {
  const error = await listen(address, { tlsRequired: false, accept: () => {} }).then(
    () => expect.unreachable('it listens'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).exitCode).toBe(64);
  return (error as UserError).message;
}

describe('TCP', () => {
  test('port 0 takes a free one and says which', async () => {
    expect((await start({ host: '127.0.0.1', port: 0 })).uri).toMatch(/^nbd:\/\/127\.0\.0\.1:[1-9]\d*\/$/);
  });

  test('a port in use: what, and what to do', async () => {
    const { uri } = await start({ host: '127.0.0.1', port: 0 });
    const port = Number(new URL(uri.replace('nbd:', 'http:')).port);
    expect(await refusal({ host: '127.0.0.1', port })).toBe(
      `port ${port} of 127.0.0.1 is in use: stop the program that has it, or choose another port (0 takes a free one)`,
    );
  });

  test('an address this machine does not have', async () => {
    expect(await refusal({ host: '192.0.2.1', port: 0 })).toContain('this machine does not have that address');
  });
});

describe('Unix sockets', () => {
  test('are for their owner alone, in a directory left as it is, and gone after close', async () => {
    const inner = join(folder, 'inner');
    mkdirSync(inner);
    chmodSync(inner, 0o755);
    const path = join(inner, 'a b%c.sock');
    const umask = process.umask();
    const { uri, close } = await start({ path });
    expect(uri).toBe(`nbd+unix:///?socket=${inner}/a%20b%25c.sock`);
    expect([statSync(path).mode & 0o777, statSync(inner).mode & 0o777]).toEqual([0o600, 0o755]);
    expect(process.umask()).toBe(umask);
    close();
    expect(existsSync(path)).toBe(false);
  });

  test('a socket that somebody answers on is left alone', async () => {
    const path = join(folder, 'busy');
    const other = createServer().listen(path);
    await new Promise((resolve) => other.once('listening', resolve));
    expect(await refusal({ path })).toContain('is in use: stop the program that has it');
    expect(existsSync(path)).toBe(true);
    await new Promise((resolve) => other.close(resolve));
  });

  test('a socket file left over from a crash is replaced', async () => {
    const path = join(folder, 'stale');
    const leave = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    expect(() => execFileSync(process.execPath, ['-e', leave])).toThrow();
    expect(statSync(path).isSocket()).toBe(true);
    await start({ path });
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('a file that is no socket is never removed', async () => {
    const path = join(folder, 'file');
    writeFileSync(path, 'precious');
    expect(await refusal({ path })).toContain('is in use');
    expect(statSync(path).size).toBe(8);
  });

  test('no directory, or a path longer than sockets can have', async () => {
    expect(await refusal({ path: join(folder, 'missing', 's') })).toContain('does not exist: create it first');
    const longest = `${folder}/${'s'.repeat(107 - folder.length - 1)}`;
    await start({ path: longest });
    expect(await refusal({ path: `${longest}s` })).toContain('more than 107 bytes');
  });
});
