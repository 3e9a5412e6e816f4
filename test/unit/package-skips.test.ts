import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requires } from '../support/requires.ts';
import { summariseSkips } from '../support/skips-reporter.ts';

const skippedFor = (...missing: string[]) => ({
  fullName: `suite [skipped, needs ${missing.map((need) => `${need} (not on PATH; Debian: x)`).join('; needs ')}] > case`,
  note: undefined,
});

test('nothing skipped, nothing said', () => {
  expect(summariseSkips([])).toEqual({ lines: [], unexcused: [] });
});

test('skips are counted by what they need', () => {
  const { lines } = summariseSkips([skippedFor('fio'), skippedFor('root', 'loop'), skippedFor('fio')]);
  expect(lines).toEqual(['2 skipped: needs fio', '1 skipped: needs root, loop']);
});

test('only plakar and the tun device excuse a skip, and nothing beside them', () => {
  const excused = [skippedFor('plakar'), skippedFor('tun')];
  const others = [skippedFor('fio'), skippedFor('plakar', 'root'), { fullName: 'no reason', note: undefined }];
  expect(summariseSkips([...excused, ...others]).unexcused).toEqual(others.map(({ fullName }) => fullName));
});

test('a skip without a named need is reported with its note, or as unexplained', () => {
  const skipped = [
    { fullName: 'a', note: 'the moon is not full' },
    { fullName: 'b', note: undefined },
  ];
  expect(summariseSkips(skipped).lines).toEqual(['1 skipped: the moon is not full', '1 skipped: no reason given']);
});

test('what a requirement writes into a title is what the reporter reads', () => {
  const need = requires('plakar');
  const { unexcused } = summariseSkips([{ fullName: need.title('suite'), note: undefined }]);
  expect(need.title('suite').startsWith('suite')).toBe(true);
  // Where plakar is installed the title has no reason in it, so that a skip would count as unexplained.
  expect(unexcused).toHaveLength(need.missing ? 0 : 1);
});

describe('a run of vitest', () => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  let folder: string;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'skips-'));
    const settings = { include: ['test/support/skips-sample.ts'], reporters: ['./test/support/skips-reporter.ts'] };
    writeFileSync(join(folder, 'config.mjs'), `export default ${JSON.stringify({ root, test: settings })};`);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const runSample = (env: NodeJS.ProcessEnv) => {
    const vitest = join(root, 'node_modules/vitest/vitest.mjs');
    const args = [vitest, 'run', '--config', join(folder, 'config.mjs')];
    const { status, stdout } = spawnSync(process.execPath, args, {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, KLOSET_NBD_NO_SKIPS: '', ...env },
    });
    return { status, lastLine: stdout.trimEnd().split('\n').at(-1) };
  };

  test('passes with skips, and counts them', () => {
    expect(runSample({})).toEqual({ status: 0, lastLine: '1 passed, 0 failed, 2 skipped' });
  });

  test('fails where no skips are allowed, but for those that need plakar alone', () => {
    expect(runSample({ KLOSET_NBD_NO_SKIPS: '1' })).toEqual({ status: 1, lastLine: '1 passed, 1 failed, 1 skipped' });
  });

  test('fails when a test fails', () => {
    expect(runSample({ SKIPS_SAMPLE_FAILS: '1' })).toEqual({ status: 1, lastLine: '0 passed, 1 failed, 2 skipped' });
  });
});
