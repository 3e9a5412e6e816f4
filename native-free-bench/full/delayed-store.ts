/**
 * A directory store behind HTTP as `plakar server` speaks it (src/kloset/http-store.ts has its oddities), with the
 * latency of a distant object store: every answer is held back so long. It counts what it sends.
 */
import { open, readdir, readFile } from 'node:fs/promises';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from '../../test/support/fixtures.ts';

export interface Traffic {
  requests: number;
  /** Of bodies. */
  bytes: number;
}

export interface DelayedStore {
  readonly url: string;
  /** Since the start, or since it was last set to zero. */
  readonly traffic: Traffic;
}

const ID = /^[0-9a-f]{64}$/;

export async function serveDelayed(cleanup: Cleanup, directory: string, latencyMs: number): Promise<DelayedStore> {
  const traffic: Traffic = { requests: 0, bytes: 0 };
  const server = http.createServer(async (request, response) => {
    traffic.requests++;
    try {
      const [body] = await Promise.all([answer(directory, request), sleep(latencyMs)]);
      traffic.bytes += body.length;
      response.setHeader('content-length', body.length);
      response.end(body);
    } catch (error) {
      fail(response, error);
    }
  });
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanup.add(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, traffic };
}

async function answer(directory: string, { url = '/', headers }: IncomingMessage): Promise<Buffer> {
  const [, kind, id] = /^\/resources\/(packfiles|states|locks)(?:\/([^/]*))?$/.exec(url) ?? [];
  if (kind === undefined) return readFile(join(directory, 'CONFIG'));
  if (id === undefined) return Buffer.from(`${JSON.stringify(await listIds(join(directory, kind)))}\n`);
  if (!ID.test(id)) throw new Error('invalid MAC');
  const path = join(directory, kind, id.slice(0, 2), id);
  // The end is the first byte that is not wanted.
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '') ?? [];
  if (kind !== 'packfiles' || from === undefined) return readFile(path);
  return readRange(path, Number(from), Number(to));
}

async function readRange(path: string, from: number, to: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const target = Buffer.allocUnsafe(Math.max(0, to - from));
    const { bytesRead } = await file.read(target, 0, target.length, from);
    return target.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function listIds(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return names.map((name) => name.split('/').at(-1)!).filter((name) => ID.test(name));
}

/** As the real one: 500 whatever it is. */
function fail(response: ServerResponse, error: unknown): void {
  response.writeHead(500, { 'content-type': 'text/plain' });
  response.end(`${(error as Error).message}\n`);
}
