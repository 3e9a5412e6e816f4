/** `kloset-nbd doctor`: each line is `ok`, or `missing` with what to do. */
import { readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findProgram } from '../../src/attach/program.ts';
import { builtCli, run } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { sessionsIn } from '../support/pg-session.ts';

const cleanup = cleanupAfterEach();

interface Told {
  readonly what: string;
  readonly state: 'ok' | 'missing';
  readonly needed: boolean;
  readonly text: string;
}

test('every line says what there is or what to do, and the store is opened', async () => {
  const sessions = sessionsIn(cleanup);
  const lines = (await sessions.run('doctor', '--store', albumStore)).stdout.trimEnd().split('\n');
  for (const line of lines) expect(line).toMatch(/^(ok|missing) +\S.{21} \S/);
  const told: Told[] = JSON.parse((await sessions.run('doctor', '--store', albumStore, '--json')).stdout);
  expect(told.map(({ what }) => what)).toEqual(lines.map((line) => line.slice(9, 31).trimEnd()));
  expect(told.find(({ what }) => what === 'store')).toMatchObject({
    state: 'ok',
    text: expect.stringMatching(/album.*, \d+ snapshots/),
  });
  expect(sessions.leftOver()).toEqual([]);
});

test('what a machine without programs lacks is named with its package, and what is needed fails', async () => {
  const bin = temporaryFolder(cleanup);
  for (const name of ['sh', 'cat']) symlinkSync(findProgram(name)!, join(bin, name));
  const env = { PATH: bin, HOME: bin, KLOSET_NBD_RUN_DIR: join(bin, 's') };
  const { stdout, exitCode } = await run(process.execPath, [builtCli, 'doctor', '--json', '--store', '/nowhere'], {
    env,
  });
  const told = new Map((JSON.parse(stdout) as Told[]).map((each) => [each.what, each]));
  expect(told.get('store')).toMatchObject({
    state: 'missing',
    needed: true,
    text: expect.stringContaining('/nowhere'),
  });
  expect(told.get('flock')).toMatchObject({
    state: 'missing',
    text: expect.stringContaining('apt-get install util-linux'),
  });
  expect(told.get('namespaces')).toMatchObject({ state: 'missing', text: expect.stringContaining('unshare') });
  expect(exitCode).toBe(1);
  expect(readdirSync(bin).sort()).not.toContain('s');
});
