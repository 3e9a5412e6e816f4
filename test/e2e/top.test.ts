/** `top`: asked of a running server, over what a real client has read. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { ToldRelation, TopReport } from '../../src/cli/top-report.ts';
import { builtCli, mustRun, runCli, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountExport, mountNeeds } from '../support/mount.ts';
import { sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds, startPostgres } from '../support/postgres.ts';
import { commandPath, findPostgres15, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const CLEAR = '\x1b[H\x1b[2J';

/** A directory of servers of its own: `top` finds the one server. */
function sessions() {
  const env = { KLOSET_NBD_RUN_DIR: temporaryFolder(cleanup) };
  return {
    env,
    serve: (...args: readonly string[]) => startServer(cleanup, ['--store', albumStore, ...args], { env }),
    run: (...args: readonly string[]) => runCli(args, { env }),
    async top(...args: readonly string[]): Promise<TopReport> {
      const { stdout, stderr, exitCode } = await runCli(['top', '--json', ...args], { env });
      if (exitCode !== 0) throw new Error(stderr);
      return JSON.parse(stdout);
    },
  };
}

describe('top', () => {
  const copy = requires('nbdcopy');
  test.skipIf(copy.missing)(
    copy.title('says what was read of which disk, once and as JSON, and is told of by status'),
    async () => {
      const here = sessions();
      const server = await here.serve('latest');
      const before = await here.top();
      expect(before.snapshots.map(({ exports, total }) => [exports, total.requests])).toEqual([[['latest'], 0]]);
      await mustRun(commandPath('nbdcopy'), [server.uris[0]!, 'null:']);
      const [snapshot] = (await here.top('latest', '--by', 'bytes')).snapshots;
      expect(snapshot!.total.requests).toBeGreaterThan(0);
      expect(snapshot!.total.requests).toBe(snapshot!.files.reduce((sum, each) => sum + each.requests, 0));
      expect(snapshot!.databases!.reduce((sum, each) => sum + each.requests, 0)).toBe(snapshot!.total.requests);
      const fetched = snapshot!.files.map(({ storeBytes }) => storeBytes);
      expect(fetched).toEqual([...fetched].sort((a, b) => b - a));
      expect(snapshot!.estimate.share).toBeGreaterThan(0);
      expect((await here.top('no-such')).snapshots).toEqual([]);
      expect((await here.top('--rows', '1')).snapshots[0]!.files.length).toBe(1);

      const { stdout } = await here.run('top');
      expect(stdout).toContain(' as latest\n');
      expect(stdout).toMatch(/Fetched .* of 24\.1 MiB/);
      expect(stdout).not.toContain('\x1b');
      const status = JSON.parse((await here.run('status', '--json')).stdout);
      expect(status).toMatchObject([{ kind: 'serve', pid: server.pid, uri: server.uris[0], alive: true }]);
      await server.stop();
      // All of it was read.
      expect(server.log.map(({ msg }) => msg)).toContainEqual(
        expect.stringMatching(/^Disk latest: Fetched .*: a restore would have been faster\.$/),
      );
      expect(JSON.parse((await here.run('status', '--json')).stdout)).toEqual([]);
    },
  );

  test('says what to do where no server runs, or several', async () => {
    const here = sessions();
    const none = await here.run('top');
    expect([none.exitCode, none.stderr]).toEqual([
      64,
      'kloset-nbd: No server runs here: start one with "kloset-nbd serve", as the same user.\n',
    ]);
    const first = await here.serve('latest');
    const second = await here.serve('tag:before');
    const several = await here.run('top');
    expect(several.exitCode).toBe(64);
    expect(several.stderr).toContain('Several servers run here');
    const { pid, snapshots } = await here.top('--pid', String(second.pid));
    expect([pid, snapshots[0]!.exports]).toEqual([second.pid, ['tag:before']]);
    // What a killed one left is in nobody's way, and the next server removes it.
    first.kill('SIGKILL');
    await first.ended;
    expect((await here.top()).pid).toBe(second.pid);
    await here.serve('latest');
    expect(JSON.parse((await here.run('status', '--json')).stdout).length).toBe(2);
  });

  test('asks the worker of --supervise, also when another has taken over', async () => {
    const here = sessions();
    const server = await here.serve('latest', '--supervise', '--overlay', temporaryFolder(cleanup));
    const { pid } = await here.top();
    process.kill(pid, 'SIGKILL');
    await server.waitForLog(({ msg }) => msg === 'A new worker serves.');
    const next = await here.top();
    expect(next.pid).not.toBe(pid);
  });

  const script = requires('unshare'); // script(1) is of the same package.
  test.skipIf(script.missing)(script.title('draws itself anew in a terminal'), async () => {
    const here = sessions();
    await here.serve('latest');
    const command = `${process.execPath} dist/cli/main.js top --interval 100ms`;
    const env = { ...process.env, ...here.env };
    const child = spawn('script', ['-qec', command, '/dev/null'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    cleanup.add(() => void child.kill());
    let shown = '';
    for await (const piece of child.stdout) {
      shown += piece;
      // Drawn twice, and once more begun.
      if (shown.split(CLEAR).length > 3) break;
    }
    expect(shown.split(CLEAR)[2]).toContain(' as latest');
  });
});

const need = requires(...mountNeeds, ...postgresNeeds, 'nbdcopy');
describe.skipIf(need.missing)(need.title('top beside PostgreSQL'), () => {
  test('names every table and index as the server itself does', async () => {
    const here = sessions();
    const server = await here.serve('latest');
    await mustRun(commandPath('nbdcopy'), [server.uris[0]!.replace(/\/?$/, '/latest@base'), 'null:']);
    const mounted = await mountExport(cleanup, server.uris[0]!);
    const postgres = await startPostgres(cleanup, mounted.folder);
    const rows = await postgres.query(
      `select coalesce(current_database(), ''), c.oid, n.nspname, c.relname, c.relkind, pg_relation_filepath(c.oid)
         from pg_class c join pg_namespace n on n.oid = relnamespace where pg_relation_filepath(c.oid) is not null
         and pg_relation_size(c.oid) > 0`,
    );
    const told = new Map<string, ToldRelation>();
    for (const relation of (await here.top()).snapshots[0]!.relations!) {
      told.set(`${relation.database ?? 'shared'}/${relation.filenode}`, relation);
    }
    const kinds: Readonly<Record<string, string>> = { r: 'table', i: 'index', t: 'toast', S: 'sequence' };
    let count = 0;
    for (const row of rows.split('\n')) {
      const [database, oid, schema, name, kind, path] = row.split('|');
      const filenode = path!.split('/').at(-1);
      const relation = told.get(`${path!.startsWith('global/') ? 'shared' : database}/${filenode}`);
      // Files without content are not read by anybody.
      expect(relation, row).toMatchObject({ oid: Number(oid), schema, name, kind: kinds[kind!] });
      count++;
    }
    expect(count).toBeGreaterThan(200);
    expect([...told.values()].filter(({ kind }) => kind === 'unknown')).toEqual([]);
    expect([...told.values()].find(({ name }) => name === 'photo')).toMatchObject({
      database: 'postgres',
      schema: 'public',
    });
    await postgres.stop();
    await mounted.unmount();
  });

  test('tells what a `pg` has cost, and of which clone', async () => {
    const here = sessionsIn(cleanup);
    const psql = join(findPostgres15()!, 'psql');
    const ask = `${psql} -XAtqc 'select sum(length(name)) from photo' >&2; exec ${process.execPath} ${builtCli} top --json`;
    const clone = ['--clones', join(temporaryFolder(cleanup), 'clones'), '--clone', 'mine'];
    for (const [name, ...how] of [['latest'], ['mine', ...clone]] as const) {
      const { stdout } = await here.run('pg', '--store', albumStore, '--no-cache', ...how, '--', 'sh', '-c', ask);
      const { snapshots } = JSON.parse(stdout) as TopReport;
      expect(snapshots.map(({ exports }) => exports)).toEqual([[name]]);
      const photo = snapshots[0]!.relations!.find((relation) => relation.name === 'photo');
      expect(photo!.requests, name).toBeGreaterThan(0);
    }
    expect(here.leftOver()).toEqual([]);
  });
});
