/** `kloset-nbd drill` on backups that are sound, damaged, or cannot run. */
import { openSync, readdirSync, readFileSync, statSync, unlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { seededRandom } from '../support/overlay-random.ts';
import { makeCluster, runSql } from '../support/pg-cluster.ts';
import { startAndKill } from '../support/pg-kill.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';
import { storeOfFolder } from '../support/store-of-folder.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');

describe.skipIf(need.missing)(need.title('drill'), () => {
  test('proves a sound backup, and reports it as JUnit and JSON', async () => {
    const sessions = sessionsIn(cleanup);
    const junit = join(temporaryFolder(cleanup), 'drill.xml');
    const { exitCode, stdout } = await sessions.run(
      'drill',
      'tag:after',
      '--store',
      albumStore,
      '--json',
      '--junit',
      junit,
    );
    expect(exitCode).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.sound).toBe(true);
    expect(report.checks.map(({ name, result }: { name: string; result: string }) => [name, result])).toEqual([
      ['start and recovery', 'passed'],
      ['pg_amcheck postgres', 'passed'],
      ['row counts postgres', 'passed'],
      ['page checksums', 'passed'],
    ]);
    expect(report.checks[2].text).toBe('public.album 50\npublic.photo 3920');
    expect(report.storeBytes).toBeGreaterThan(0);
    const xml = readFileSync(junit, 'utf8');
    expect(xml).toContain('tests="4" failures="0" errors="0" skipped="0"');
    expect(sessions.leftOver()).toEqual([]);
  });

  test('finds a page that was damaged before the backup was made', async () => {
    const cluster = await makeCluster(cleanup);
    await runSql(cleanup, cluster, [
      "create table big as select g, repeat('x', 200) as t from generate_series(1, 20000) g",
    ]);
    const relation = largestFile(join(cluster.data, 'base'));
    writeSync(openSync(relation, 'r+'), Buffer.from('damage'), 0, 6, 8192 * 3 + 4000);
    const store = await storeOfFolder(cleanup, cluster.data);
    const sessions = sessionsIn(cleanup);
    const { exitCode, stdout } = await sessions.run('drill', '--store', store, '--log-level', 'error');
    expect(exitCode).toBe(65);
    expect(stdout).toMatch(/^failed {3}page checksums/m);
    expect(stdout).toMatch(/is DAMAGED/);
  });

  test('fails a backup that does not recover, and reports that', async () => {
    const sessions = sessionsIn(cleanup);
    const damages = [
      (data: string) => writeFileSync(join(data, 'global/pg_filenode.map'), ''),
      (data: string) => writeSync(openSync(walSegment(data), 'r+'), Buffer.alloc(2 ** 20)),
      (data: string) => unlinkSync(walSegment(data)),
    ];
    for (const damage of damages) {
      const cluster = await makeCluster(cleanup);
      damage(cluster.data);
      const store = await storeOfFolder(cleanup, cluster.data);
      const junit = join(temporaryFolder(cleanup), 'drill.xml');
      const words = ['--store', store, '--json', '--junit', junit, '--log-level', 'error'];
      const { exitCode, stdout } = await sessions.run('drill', ...words);
      expect(exitCode).toBe(65);
      const [check] = JSON.parse(stdout).checks;
      expect(check).toMatchObject({ name: 'start and recovery', result: 'failed' });
      expect(readFileSync(junit, 'utf8')).toMatch(/failures="1".*<failure message=".*<\/failure>/s);
    }
    expect(sessions.leftOver()).toEqual([]);
  });

  test('says which signal ended it while it was starting', async () => {
    const sessions = sessionsIn(cleanup);
    const stages = { examined: (said: string) => said.includes('has a data directory at') };
    const killed = await startAndKill(sessions, {
      words: ['drill', '--store', albumStore],
      random: seededRandom(1),
      stages,
      signals: ['SIGTERM'],
    });
    expect(killed.ended).toBe(143);
  });

  test('runs given SQL, and says 1 where it cannot run at all', async () => {
    const sessions = sessionsIn(cleanup);
    const sql = join(temporaryFolder(cleanup), 'check.sql');

    writeFileSync(sql, 'select 1 / count(*) from photo where false');
    const failed = await sessions.run('drill', '--store', albumStore, '--sql', sql, '--log-level', 'error');
    expect(failed.exitCode).toBe(65);
    expect(failed.stdout).toMatch(/^failed {3}SQL in postgres.*\n.*division by zero/m);
    const bin = temporaryFolder(cleanup);
    const junit = join(temporaryFolder(cleanup), 'drill.xml');
    const words = ['--pg-bin', bin, '--log-level', 'error', '--junit', junit];
    const impossible = await sessions.run('drill', '--store', albumStore, ...words);
    expect(impossible.exitCode).toBe(1);
    expect(readFileSync(junit, 'utf8')).toMatch(/errors="1".*<error message="The drill could not run: .*<\/error>/s);
    expect(impossible.stderr).toMatch(/^kloset-nbd: The drill could not run: .*no PostgreSQL server/);
  });
});

function walSegment(data: string): string {
  return join(data, 'pg_wal', readdirSync(join(data, 'pg_wal')).find((name) => /^[0-9A-F]{24}$/.test(name))!);
}

function largestFile(folder: string): string {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath, entry.name));
  return paths.reduce((a, b) => (statSync(a).size >= statSync(b).size ? a : b));
}
