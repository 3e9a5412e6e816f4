/** The tar that pg_basebackup writes, backed up by plakar as it is: its snapshot starts as it comes. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun, startServer } from '../support/cli.ts';
import { cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountExport, mountNeeds } from '../support/mount.ts';
import { makeCluster } from '../support/pg-cluster.ts';
import { privatePlakarEnvironment } from '../support/plakar-server-real.ts';
import { postgresNeeds, type RunningPostgres, startPostgres } from '../support/postgres.ts';
import { commandPath, findPostgres15, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();

const answersOf = (postgres: RunningPostgres) =>
  postgres.query('select count(*), md5(string_agg(r::text, chr(10) order by i)) from rows r');

const need = requires(...mountNeeds, ...postgresNeeds, 'plakar');
describe.skipIf(need.missing)(need.title('a tar of pg_basebackup'), () => {
  test('starts, answers what the cluster did, and takes writes', async () => {
    const folder = temporaryFolder(cleanup);
    const original = await startPostgres(cleanup, (await makeCluster(cleanup)).data);
    await original.query("create table rows as select i, repeat('x', i % 100) t from generate_series(1, 50000) i");
    const expected = await answersOf(original);
    const flags = ['-D', folder, '--format', 'tar', '--wal-method', 'fetch', '--checkpoint', 'fast'];
    const address = original.clientArguments;
    await mustRun(join(findPostgres15()!, 'pg_basebackup'), [...address, ...flags]);
    await original.stop();

    const store = join(folder, 'store');
    const env = privatePlakarEnvironment(cleanup);
    for (const words of [
      ['create', '-plaintext'],
      ['backup', `tar:${join(folder, 'base.tar')}`],
    ])
      execFileSync(commandPath('plakar'), ['at', store, ...words], { env, stdio: 'pipe' });

    const server = await startServer(cleanup, ['latest', '--store', store]);
    const mounted = await mountExport(cleanup, server.uris[0]!);
    const postgres = await startPostgres(cleanup, mounted.folder);
    expect(await answersOf(postgres)).toBe(expected);
    await postgres.query('update rows set t = upper(t); checkpoint');
    expect(await answersOf(postgres)).not.toBe(expected);
    expect(await postgres.query("select count(*) from rows where t ~ 'x'")).toBe('0');
    await postgres.stop();
    await mounted.unmount();
    expect((await server.stop()).exitCode).toBe(0);
  });
});
