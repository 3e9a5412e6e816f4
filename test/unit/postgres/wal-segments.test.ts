import { expect, test } from 'vitest';
import { entryAt } from '../../../src/postgres/data-directories.ts';
import { requireWal } from '../../../src/postgres/wal-segments.ts';
import { directory, file, makeTree, symlink } from '../../support/ext4-tree.ts';

const MiB = 2 ** 20;
const withWal = (...names: string[]) =>
  makeTree(directory([['pg_wal', directory(names.map((name) => [name, file(1)] as const))]]));
const look = (names: readonly string[], first: string, segmentBytes = 16 * MiB) =>
  requireWal(withWal(...names), 0, { first, segmentBytes, root: '/' });

test('the first segment must be there, and is named', () => {
  expect(() => look(['000000010000000000000008'], '000000010000000000000007')).toThrow(
    /lacks the WAL segment 000000010000000000000007.*it has 000000010000000000000008 to .*pg_resetwal/,
  );
  expect(() => look(['archive_status'], '000000010000000000000007')).toThrow('it has none');
});

test('one that is missing between others is named, whatever the size of segments', () => {
  expect(look(['000000010000000000000007', '000000010000000000000008'], '000000010000000000000007')).toEqual({
    bytes: 32 * MiB,
    gap: undefined,
  });
  const hole = ['000000010000000000000007', '000000010000000000000009'];
  expect(look(hole, '000000010000000000000007').gap).toContain('segment 000000010000000000000008 is missing');
  expect(look(hole, '000000010000000000000009').gap).toBeUndefined();
  // The second part ends at 255 with segments of 16 MiB, at 4095 with those of 1 MiB.
  const around = ['0000000100000001000000FF', '000000010000000200000000'];
  expect(look(around, around[0]!).gap).toBeUndefined();
  expect(look(around, around[0]!, MiB).gap).toContain('000000010000000100000100');
  expect(look(['000000010000000100000FFF', around[1]!], '000000010000000100000FFF', MiB).gap).toBeUndefined();
});

test('a new timeline goes on with the numbers of the old one', () => {
  const names = ['000000010000000000000007', '000000020000000000000007', '000000020000000000000008'];
  expect(look(names, names[0]!).gap).toBeUndefined();
});

test('a link is followed to what it meant, and left to others where that is not in the snapshot', () => {
  const linked = (target: string) => {
    const wal = directory([['000000010000000000000008', file(1)]]);
    const tree = makeTree(
      directory([
        ['data', directory([['pg_wal', symlink(target)]])],
        ['wal', wal],
      ]),
    );
    return (first: string) => requireWal(tree, entryAt(tree, 0, ['data'])!, { first, segmentBytes: MiB, root: '/srv' });
  };
  for (const target of ['/srv/wal', '../wal']) {
    expect(() => linked(target)('000000010000000000000007')).toThrow('lacks the WAL segment 000000010000000000000007');
    expect(linked(target)('000000010000000000000008')).toEqual({ bytes: MiB, gap: undefined });
  }
  expect(linked('/wal')('000000010000000000000007')).toEqual({ bytes: 0, gap: undefined });
});
