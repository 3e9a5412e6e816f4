/** `npm run bench` end to end, by a row that needs no program but Node: the figures and files it leaves. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/cli.ts';
import { cleanupAfterEach, projectRoot, temporaryFolder } from '../support/fixtures.ts';

const cleanup = cleanupAfterEach();
const bench = (...args: readonly string[]) =>
  run(process.execPath, ['--import', 'tsx', 'native-free-bench/full/main.ts', ...args], { cwd: projectRoot });

test('chunks of the fixture, near and far', async () => {
  const out = join(temporaryFolder(cleanup), 'results');
  const options = ['--album', '--rows', 'chunks', '--runs', '1', '--latency', '2', '--out', out];
  const { exitCode, stdout, stderr } = await bench(...options);
  expect(exitCode, stderr).toBe(0);
  const { cells } = JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as {
    cells: { metric: string; setting: string; values: number[] }[];
  };
  for (const setting of ['album fixture, plaintext, local', 'album fixture, plaintext, 2 ms away']) {
    const found = cells.filter((cell) => cell.setting === setting);
    expect(found.map(({ metric }) => metric)).toEqual(['chunks-twice', 'chunk-alone', 'chunk-reads']);
    for (const { metric, values } of found) {
      expect(values).toHaveLength(1);
      if (metric === 'chunks-twice') expect(values).toEqual([0]);
      else expect(values[0]).toBeGreaterThan(0);
    }
  }
  expect(readFileSync(join(out, 'results.md'), 'utf8')).toBe(stdout.trimStart().replace(/\n+$/, '\n'));
  expect(stdout).toContain('| chunks fetched twice (album fixture, plaintext, local) | <= 0 | 0 | met |');
});

test('an unknown row is refused with the usage', async () => {
  const { exitCode, stderr } = await bench('--rows', 'everything');
  expect(exitCode).toBe(64);
  expect(stderr).toContain('there is no "everything"');
  expect(stderr).toContain('--store-plain DIR');
});
