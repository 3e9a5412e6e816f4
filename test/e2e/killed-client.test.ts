/** A client that is killed while the store is slow: what was fetched for it alone is fetched no further. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { READ_AHEAD_READ_BYTES_MAX, READ_AHEAD_WINDOW_BYTES } from '../../src/kloset/fetch-limits.ts';
import { mustRun, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { until } from '../support/nbd-fixture.ts';
import { startPlakarServerDouble } from '../support/plakar-server-double.ts';
import { commandPath, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires('nbdcopy');

it.skipIf(need.missing)(need.title('kill -9 of a client ends the fetches that only it waited for'), async () => {
  const plakar = await startPlakarServerDouble(cleanup, albumStore);
  const listen = `unix:${join(temporaryFolder(cleanup), 'nbd.sock')}`;
  const args = ['latest', '--store', plakar.url, '--listen', listen, '--free', '16M', '--log-level', 'debug'];
  // What is fetched before anybody asks is for whoever comes next: without room for it there is none.
  args.push('--no-warm', '--cache-memory', '0');
  const server = await startServer(cleanup, args);
  // Metadata is for whoever comes next, too: a first client brings it.
  await mustRun(commandPath('nbdcopy'), [server.uris[0]!, 'null:']);
  const held: ServerResponse[] = [];
  const hold = (request: IncomingMessage, response: ServerResponse): boolean => {
    const [, from = Number.NaN, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const lengthBytes = Number(to) - Number(from);
    const isChunk = lengthBytes > READ_AHEAD_READ_BYTES_MAX && lengthBytes !== READ_AHEAD_WINDOW_BYTES;
    if (isChunk) held.push(response);
    return isChunk;
  };
  plakar.interceptors.push(...Array.from({ length: 10_000 }, () => hold));
  const client = spawn(commandPath('nbdcopy'), [server.uris[0]!, 'null:'], { stdio: 'ignore' });
  await until(() => held.length > 0);
  expect(held.filter(({ closed }) => closed)).toEqual([]);
  client.kill('SIGKILL');
  await once(client, 'exit');
  await until(() => held.every(({ closed }) => closed));
  expect((await server.stop()).exitCode).toBe(0);
  // They did not end by their own time-out.
  expect(server.log.filter(({ level, msg }) => level >= 50 || msg.endsWith('is read again'))).toEqual([]);
});
