import { expect, test } from 'vitest';
import type { ToldCost, TopReport } from '../../../src/cli/top-report.ts';
import { formatTop } from '../../../src/cli/top-text.ts';
import { estimateRestore } from '../../../src/core/restore-estimate.ts';

const cost: ToldCost = {
  requests: 3,
  bytes: 12_288,
  waitSeconds: 0.25,
  chunks: 1,
  storeBytes: 1024,
  decodedBytes: 4096,
  fetchSeconds: 0.2,
};
const report: TopReport = {
  pid: 7,
  uptimeSeconds: 250,
  snapshots: [
    {
      snapshot: 'ab'.repeat(32),
      root: '/',
      exports: ['latest', 'clone\x1b[2J'],
      total: cost,
      files: [
        { path: '/base/5/\x1b[31mred\n', ...cost },
        { path: null, pathHex: '2fff', ...cost },
      ],
      filesTouched: 2,
      databases: [
        { database: 'a\u202eb', ...cost },
        { database: null, ...cost },
      ],
      relations: [
        {
          database: 'a\tb',
          schema: 's',
          name: 'Odd "name"',
          kind: 'table',
          owner: undefined,
          oid: 1,
          filenode: 1,
          ...cost,
        },
        {
          database: 'x',
          schema: 'pg_toast',
          name: 'pg_toast_1',
          kind: 'toast',
          owner: 's.Odd "name"',
          oid: 2,
          filenode: 2,
          ...cost,
        },
        {
          database: undefined,
          schema: undefined,
          name: undefined,
          kind: 'unknown',
          owner: undefined,
          oid: undefined,
          filenode: 99,
          ...cost,
        },
      ],
      namesMissing: 'they are being read',
      estimate: estimateRestore({
        contentBytes: 3 * 1024 * 1024,
        fetchedBytes: 2_000_000,
        distinctFetchedBytes: 1_500_000,
        bytesPerSecond: 1_000_000,
      }),
    },
  ],
};

test('names of any kind stay in their line and their column', () => {
  const text = formatTop(report, { rowsMax: 10, columns: undefined });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there.
  expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\u202e]/);
  expect(text).toContain('abababab:/ as latest, clone\\x1b[2J\n');
  expect(text).toContain(
    'Fetched 1.4 MiB of 3.0 MiB (48 %) in 2.0 s; a restore is estimated at 1.0 s: a restore would have been faster.',
  );
  expect(text).toContain('/base/5/\\x1b[31mred\\x0a  3 ');
  expect(text).toContain('/\\xff ');
  expect(text).toContain('s.Odd "name"');
  expect(text).toContain('toast of s.Odd "name"');
  expect(text).toMatch(/-\s+file 99\s+unknown /);
  expect(text).toContain('Some names are not known: they are being read.\n');
  expect(text).toContain('process 7, up 4 min 10 s');
});

test('lines are cut to the terminal, tables to the rows asked for', () => {
  const text = formatTop(report, { rowsMax: 1, columns: 40 });
  expect(Math.max(...text.split('\n').map((line) => line.length))).toBe(40);
  expect(text).not.toContain('\\xff');
  expect(formatTop({ ...report, snapshots: [] }, { rowsMax: 1, columns: undefined })).toContain('No disk is open yet.');
});
