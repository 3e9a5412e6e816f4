import { describe, expect, test } from 'vitest';
import { dataDirectoryRoot } from '../../../src/source/data-directory.ts';
import { directory, file, makeTree, type TreeNode } from '../../support/ext4-tree.ts';

const version = file(3, { uid: 26, gid: 27, mode: 0o600, mtime: [1_700_000_123, 456] });
const inside: TreeNode['children'] = [
  ['PG_VERSION', version],
  ['global', directory([['pg_control', file(8192)]])],
];
const rootOf = (children: TreeNode['children'], more: Partial<TreeNode>) =>
  dataDirectoryRoot(makeTree(directory(children, { mtime: [0, 0], ...more })));

describe('the root of a PostgreSQL data directory', () => {
  test.each([
    ['another owner', { uid: 0, mode: 0o750 }],
    ['another owner and a private mode', { uid: 0, mode: 0o700 }],
    ['a mode for everyone', { uid: 26, mode: 0o755 }],
  ])('that has %s is to look like PG_VERSION, and private', (_, root) => {
    expect(rootOf(inside, root)).toEqual({
      mode: 0o700,
      uid: 26,
      gid: 27,
      mtimeSeconds: 1_700_000_123,
      mtimeNanoseconds: 456,
    });
  });

  test.each([0o700, 0o750])('that PostgreSQL starts on (mode %o) stays as it is', (mode) => {
    expect(rootOf(inside, { uid: 26, gid: 99, mode })).toBeUndefined();
  });
});

test('what lacks PG_VERSION or global/pg_control is no data directory', () => {
  expect(rootOf([], { mode: 0o755 })).toBeUndefined();
  expect(rootOf([['PG_VERSION', version]], { mode: 0o755 })).toBeUndefined();
  expect(
    rootOf(
      [
        ['PG_VERSION', version],
        ['global', directory()],
      ],
      { mode: 0o755 },
    ),
  ).toBeUndefined();
  expect(
    rootOf(
      [
        ['PG_VERSION', version],
        ['global', file(1)],
      ],
      { mode: 0o755 },
    ),
  ).toBeUndefined();
  expect(rootOf(inside?.slice(1), { mode: 0o755 })).toBeUndefined();
});
