/** The disk cache as operators meet it: where it lies, who may have it, and that it changes nothing. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { KiB } from '../../src/core/units.ts';
import { cachedFiles } from '../support/cache.ts';
import { runCli, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { RawClient } from '../support/nbd-client.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
/** With what the log has to say; on a slow machine it tells of progress, too. */
const told = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
  runCli(['at', albumStore, 'inspect', 'tag:after', '--json', ...args], { env });
const inspect = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => told(['--log-level', 'error', ...args], env);

describe('the disk cache', () => {
  test('gives two processes at once, and later ones, what the store gives', async () => {
    const directory = temporaryFolder(cleanup);
    const without = await inspect(['--no-cache']);
    expect(without).toMatchObject({ exitCode: 0, stderr: '' });
    const both = await Promise.all([1, 2, 3].map(() => inspect(['--cache-dir', directory])));
    for (const result of [...both, await inspect(['--cache-dir', directory])]) expect(result).toEqual(without);
    expect(cachedFiles(directory)).toHaveLength(3); // Index, headers, one walk.
  });

  test('is made anew where it is damaged, which the log says', async () => {
    const directory = temporaryFolder(cleanup);
    const before = await inspect(['--cache-dir', directory]);
    for (const file of cachedFiles(directory)) {
      const bytes = readFileSync(file);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(file, bytes);
    }
    const after = await told(['--cache-dir', directory]);
    expect({ ...after, stderr: '' }).toEqual({ ...before, stderr: '' });
    expect(after.stderr.match(/is damaged and is made anew/g)).toHaveLength(3);
    expect(await inspect(['--cache-dir', directory])).toEqual(before);
  });

  test('is refused where others may write to it: 64, one line; the default is done without, with a warning', async () => {
    const home = temporaryFolder(cleanup);
    const directory = join(home, 'kloset-nbd');
    mkdirSync(directory);
    chmodSync(directory, 0o777);
    const asked = await inspect(['--cache-dir', directory]);
    expect(asked).toMatchObject({ exitCode: 64, stdout: '' });
    expect(asked.stderr.trim().split('\n')).toHaveLength(1);
    const byDefault = await told([], { KLOSET_NBD_CACHE_DIR: '', XDG_CACHE_HOME: home });
    expect(byDefault.exitCode).toBe(0);
    expect(byDefault.stderr).toContain('opening goes on without a cache');
    expect(cachedFiles(directory)).toEqual([]);
  });

  test('lies in XDG_CACHE_HOME unless named, and nowhere with --no-cache or none', async () => {
    const home = temporaryFolder(cleanup);
    const env = { KLOSET_NBD_CACHE_DIR: '', XDG_CACHE_HOME: home };
    for (const args of [['--no-cache'], ['--cache-dir', 'none']]) await inspect(args, env);
    expect(cachedFiles(home)).toEqual([]);
    await inspect([], env);
    expect(cachedFiles(join(home, 'kloset-nbd'))).toHaveLength(3);
  });
});

const STEP = 128 * KiB;
const PAGE_BYTES = 4096;

/** Serves a snapshot, and reads a page of each 128 KiB of its disk; `mainThreadBytes`: what the main thread read(2) meanwhile. */
async function readPages(directory: string, options: readonly string[], offsets: readonly number[]) {
  const args = ['--store', albumStore, 'latest', '--no-warm', '--cache-dir', directory, ...options];
  const server = await startServer(cleanup, args);
  const client = await (await RawClient.connect(server.uris[0]!)).hello();
  const { sizeBytes } = await client.go();
  const io = `/proc/${server.pid}/task/${server.pid}/io`;
  const bytesRead = () => Number(/^rchar: (\d+)$/m.exec(readFileSync(io, 'utf8'))![1]);
  const passes: { pages: Buffer; mainThreadBytes: number }[] = [];
  for (const offset of offsets) {
    const before = bytesRead();
    const pages: Buffer[] = [];
    for (let at = offset; at + PAGE_BYTES <= sizeBytes; at += STEP) pages.push(await client.read(at, PAGE_BYTES));
    passes.push({ pages: Buffer.concat(pages), mainThreadBytes: bytesRead() - before });
  }
  client.socket.destroy();
  await server.stop();
  return passes;
}

const need = requires('io-accounting');
describe.skipIf(need.missing)(need.title('pages that an earlier server cached'), () => {
  test.each([
    ['a writable disk', []],
    ['a read-only disk', ['--read-only']],
  ])('are read by the main thread in the turn they are asked for: %s', async (_, options) => {
    const directory = temporaryFolder(cleanup);
    const offsets = [0, 64 * KiB];
    const cold = await readPages(directory, options, offsets);
    // The first pass reads tables of chunks, which no page waits for in its turn.
    // A disk that others keep busy is left alone for a while, so the best of some servers counts.
    const mainThreadBytes: number[] = [];
    while (mainThreadBytes.length < 5 && !mainThreadBytes.some((bytes) => bytes > 20 * 64 * KiB)) {
      const warm = await readPages(directory, options, offsets);
      for (const [index, { pages }] of warm.entries()) expect(pages.equals(cold[index]!.pages)).toBe(true);
      mainThreadBytes.push(warm[1]!.mainThreadBytes);
    }
    expect(Math.max(...mainThreadBytes)).toBeGreaterThan(20 * 64 * KiB);
  });
});
