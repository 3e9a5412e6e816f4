/** The thread that writes cached chunks: a process that ends does not wait for it. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Cleanup, temporaryFolder } from '../../support/fixtures.ts';

/** A writer in a process of its own, which begins with this. */
const aWriter = `
  import { createSecretKey } from 'node:crypto';
  import { readdirSync, readFileSync } from 'node:fs';
  import { join } from 'node:path';
  import { ThreadedChunkWriter } from '${new URL('../../../dist/workers/cache-writer.js', import.meta.url).href}';
  const directory = process.argv[2];
  const writer = new ThreadedChunkWriter({
    directory, bytesMax: 2 ** 30, key: createSecretKey(Buffer.alloc(32, 1)), isEncrypted: true,
  });
  const plain = new Uint8Array(new SharedArrayBuffer(8 << 20));
  const pathsOf = (n) => ({ path: join(directory, 'chunk' + n), storedPath: join(directory, 'stored' + n) });
  const fileOf = (n) => ({ ...pathsOf(n), sealName: 'chunk' + n, salt: Buffer.alloc(32, n) });
  const alive = setInterval(() => {}, 1000); // The thread itself keeps nobody alive.
`;

/** Closes the cache with writes on their way, as a server does whose disk is slow. */
const closeWithWritesUnderWay = `${aWriter}
  const writes = Array.from({ length: 8 }, (_, n) => writer.write(fileOf(n), plain));
  await writes[0];
  await writer.close();
  await writer.write(fileOf(9), plain).catch((error) => console.log(error.message));
  clearInterval(alive);
`;

/** Says how nice the process's threads are after a read, and after writes of either kind. */
const howNiceThreadsAre = `${aWriter}
  const nicest = () => Math.max(...readdirSync('/proc/self/task').map((id) => {
    const [, fields] = readFileSync('/proc/self/task/' + id + '/stat', 'utf8').split(') ');
    return Number(fields.split(' ')[16]);
  }));
  await writer.read(fileOf(1), plain.byteLength, []);
  const before = nicest();
  await writer.writeStored(fileOf(1), plain.subarray(0, 100));
  console.log(before, nicest());
  await writer.close();
  clearInterval(alive);
`;

/** Runs a script in a process of its own, with a cache's directory. */
async function runAlone(script: string): Promise<SpawnSyncReturns<string>> {
  const cleanup = new Cleanup();
  try {
    const folder = temporaryFolder(cleanup);
    const path = join(folder, 'script.mjs');
    writeFileSync(path, script);
    return spawnSync(process.execPath, [path, folder], { encoding: 'utf8', timeout: 20_000 });
  } finally {
    await cleanup.run();
  }
}

it('lets the process end while writes are under way, and takes none after its end', async () => {
  const ended = { status: 0, stdout: 'the cache is closed\n', stderr: '' };
  expect(await runAlone(closeWithWritesUnderWay)).toMatchObject(ended);
});

it('writing stands behind what clients wait for, recalling does not', async () => {
  const { status, stdout, stderr } = await runAlone(howNiceThreadsAre);
  const [before, after] = stdout.split(' ').map(Number);
  // Whoever runs the tests may be nice, too.
  expect([status, after! - before!], stderr).toEqual([0, 10]);
});
