/** A clone's NAME@TOKEN: the clone as it was attached, or none. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportUri, runCli, startServer } from '../support/cli.ts';
import { describeExport, nbdsh, tryNbdsh } from '../support/cli-clients.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires('nbdinfo', 'python3-libnbd');

describe.skipIf(need.missing)(need.title('clones'), () => {
  test('keep their token over a restart of the server, and lose it with what was written', async () => {
    const clones = ['--clones', join(temporaryFolder(cleanup), 'clones'), '--store', albumStore];
    expect(await runCli(['clone', 'create', 'mine', 'latest', ...clones])).toMatchObject({ exitCode: 0 });
    const first = await startServer(cleanup, ['latest', ...clones]);
    const { description } = await describeExport(exportUri(first.uris[0]!, 'mine'));
    const name = / attach as (mine@[0-9a-f]{32})$/.exec(description!)![1]!;
    await nbdsh(exportUri(first.uris[0]!, name), 'h.pwrite(b"x" * 512, 0); h.flush()');
    await first.stop();

    const second = await startServer(cleanup, ['latest', ...clones]);
    expect(await nbdsh(exportUri(second.uris[0]!, name), 'print(h.pread(512, 0) == b"x" * 512)')).toBe('True');
    await second.stop();

    expect(await runCli(['clone', 'reset', 'mine', ...clones])).toMatchObject({ exitCode: 0 });
    const third = await startServer(cleanup, ['latest', ...clones]);
    const refused = await tryNbdsh(exportUri(third.uris[0]!, name), 'h.get_size()');
    expect(refused.exitCode).not.toBe(0);
    expect(await nbdsh(exportUri(third.uris[0]!, 'mine'), 'print(h.pread(512, 0) == bytes(512))')).toBe('True');
  });
});
