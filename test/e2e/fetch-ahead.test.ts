/** What is fetched before anybody reads it: NBD_CMD_CACHE through libnbd, and `serve --prefetch`. */
import { describe, expect, test } from 'vitest';
import { runCli, startServer } from '../support/cli.ts';
import { nbdsh } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach } from '../support/fixtures.ts';
import { parsePrometheus, sampleOf } from '../support/prometheus.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();

/** Serves the store; `storeRequests` tells how often it was asked until now. */
async function serve(...args: readonly string[]) {
  // What is warmed up in the background would be counted, too.
  const server = await startServer(cleanup, ['--store', albumStore, '--metrics', '0', '--no-warm', ...args]);
  const told = await server.waitForLog(({ uri }) => String(uri).startsWith('http:'));
  const storeRequests = async () => {
    const text = await (await fetch(`${told.uri}metrics`)).text();
    return sampleOf(parsePrometheus(text), 'kloset_nbd_store_requests_total');
  };
  return { ...server, uri: server.uris[0]!, storeRequests };
}

const step = 32 * 1024 * 1024;
const overAll = (statement: string) =>
  `size = h.get_size()\nfor at in range(0, size, ${step}):\n  length = min(${step}, size - at)\n  ${statement}`;
const readAll = overAll('h.pread(length, at)');
const cacheAll = overAll('h.cache(length, at)');

const need = requires('python3-libnbd');
describe.skipIf(need.missing)(need.title('NBD_CMD_CACHE'), () => {
  test.each([
    ['a snapshot', ['latest']],
    ['snapshots side by side', ['tag:before=first', 'latest=second/half']],
  ])('leaves nothing to fetch for later reads of %s', async (_, selectors) => {
    const { uri, storeRequests } = await serve(...selectors);
    await nbdsh(uri, cacheAll);
    const before = await storeRequests();
    await nbdsh(uri, readAll);
    expect(await storeRequests()).toBe(before);
  });

  test('asks for nothing where the disk was written', async () => {
    const { uri, storeRequests } = await serve('latest');
    const before = await storeRequests();
    await nbdsh(uri, `${overAll('h.zero(length, at)')}\n${cacheAll}`);
    expect(await storeRequests()).toBe(before);
  });
});

describe.skipIf(need.missing)(need.title('--prefetch'), () => {
  test('leaves nothing to fetch for later reads, and says when it is done', async () => {
    const { uri, storeRequests, waitForLog } = await serve('latest', '--prefetch', '/');
    const done = await waitForLog(({ msg }) => msg.startsWith('Done fetching'));
    expect(done.bytes).toBe(done.total);
    expect(done.fetched).toBeGreaterThan(0);
    const before = await storeRequests();
    await nbdsh(uri, readAll);
    expect(await storeRequests()).toBe(before);
  });
});

test('--prefetch is refused for what is not there, and without a snapshot', async () => {
  const args = ['--store', albumStore, '--listen', 'tcp://127.0.0.1:0', '--prefetch'];
  const missing = await runCli(['serve', 'latest', ...args, 'base/nothing']);
  expect([missing.exitCode, missing.stderr.trimEnd().split('\n').at(-1)]).toEqual([
    64,
    'kloset-nbd: --prefetch base/nothing: there is no such file or directory on the disk. Paths begin at its root.',
  ]);
  const unnamed = await runCli(['serve', ...args, 'base']);
  expect(unnamed.exitCode).toBe(64);
  expect(unnamed.stderr).toContain('--prefetch needs to know the disk: name a snapshot, such as latest.');
});
