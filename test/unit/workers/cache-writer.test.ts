/** The thread that writes cached chunks: a process that ends does not wait for it. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Cleanup, temporaryFolder } from '../../support/fixtures.ts';

/** Closes the cache with writes on their way, as a server does whose disk is slow. */
const closeWithWritesUnderWay = `
  import { createSecretKey } from 'node:crypto';
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
  const writes = Array.from({ length: 8 }, (_, n) => writer.write(fileOf(n), plain));
  await writes[0];
  await writer.close();
  await writer.write(fileOf(9), plain).catch((error) => console.log(error.message));
  clearInterval(alive);
`;

it('lets the process end while writes are under way, and takes none after its end', async () => {
  const cleanup = new Cleanup();
  try {
    const folder = temporaryFolder(cleanup);
    const script = join(folder, 'close.mjs');
    writeFileSync(script, closeWithWritesUnderWay);
    const child = spawnSync(process.execPath, [script, folder], { encoding: 'utf8', timeout: 20_000 });
    expect(child).toMatchObject({ status: 0, stdout: 'the cache is closed\n', stderr: '' });
  } finally {
    await cleanup.run();
  }
});
