import { describe, expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { type ContentReader, entryPath } from '../../../src/core/snapshot-tree.ts';
import { composeTrees } from '../../../src/source/compose-tree.ts';
import { directory, file, makeTree, PatternContent, symlink, type TreeNode } from '../../support/ext4-tree.ts';

/** A part whose file contents say which part and entry was read. */
function part(root: TreeNode, at: string, number = 0) {
  const content: ContentReader = {
    async read(entry, offset, target) {
      target.set(Uint8Array.of(number, entry, offset));
    },
  };
  return { tree: makeTree(root), content, at };
}

const pathsOf = (tree: ReturnType<typeof makeTree>) =>
  Array.from({ length: tree.length }, (_, i) => entryPath(tree, i));

const cluster = directory(
  [
    ['base', directory([['1', directory([['1259', file(3)]])]])],
    ['PG_VERSION', file(3, { uid: 26, gid: 27 })],
  ],
  { mode: 0o700, uid: 26, gid: 27, mtime: [1_600_000_000, 5] },
);

describe('one tree below a directory', () => {
  test('keeps its root with mode, owner and time; the new root is 0755 of the same owner', () => {
    const { tree } = composeTrees([part(cluster, 'a/pgdata')]);
    expect(pathsOf(tree)).toEqual([
      '/',
      '/a',
      '/a/pgdata',
      '/a/pgdata/PG_VERSION',
      '/a/pgdata/base',
      '/a/pgdata/base/1',
      '/a/pgdata/base/1/1259',
    ]);
    const inode = (entry: number) => [tree.mode[entry], tree.uid[entry], tree.gid[entry], tree.mtimeSeconds[entry]];
    expect(inode(0)).toEqual([0o755, 26, 27, 1_600_000_000]);
    expect(inode(1)).toEqual([0o755, 26, 27, 1_600_000_000]);
    expect(inode(2)).toEqual([0o700, 26, 27, 1_600_000_000]);
    expect(tree.mtimeNanoseconds[0]).toBe(5);
  });

  test('is the tree that somebody would have typed', () => {
    const root = directory(
      [
        ['link', symlink('x', { attributes: [['user.a', Buffer.from('b')]] })],
        ['one', file(7, { link: 'same' })],
        ['sub', directory([['two', file(7, { link: 'same' })]], { attributes: [['user.d', Buffer.from('e')]] })],
      ],
      { mode: 0o1777, attributes: [['user.root', Buffer.from('r')]] },
    );
    const { tree } = composeTrees([part(root, 'z')]);
    expect(normal(tree)).toEqual(normal(makeTree(directory([['z', root]]))));
  });
});

/** Without what the contract leaves open: where the children of an entry without children would begin. */
function normal(tree: ReturnType<typeof makeTree>) {
  return { ...tree, firstChild: tree.firstChild.map((first, i) => (tree.childCount[i] === 0 ? 0 : first)) };
}

describe('several trees', () => {
  test('stand side by side, in the byte order of their names, whatever order they are given in', () => {
    const small = directory([['f', file(1)]], { uid: 5 });
    const { tree } = composeTrees([part(small, 'b'), part(cluster, 'a'), part(directory(), 'B')]);
    expect(pathsOf(tree)).toEqual([
      '/',
      '/B',
      '/a',
      '/b',
      '/a/PG_VERSION',
      '/a/base',
      '/b/f',
      '/a/base/1',
      '/a/base/1/1259',
    ]);
    expect(tree.uid[0]).toBe(5); // As the first that was given.
    expect([...tree.childCount]).toEqual([3, 0, 2, 1, 0, 1, 0, 1, 0]);
  });

  test('can lie at different depths', () => {
    const parts = [part(cluster, 'x/y/deep'), part(cluster, 'x/flat'), part(directory([['f', file(1)]]), 'a')];
    const { tree } = composeTrees(parts);
    const typed = directory(
      [
        ['a', directory([['f', file(1)]])],
        [
          'x',
          directory(
            [
              ['flat', cluster],
              ['y', directory([['deep', cluster]], { ...cluster, children: [['deep', cluster]], mode: 0o755 })],
            ],
            { uid: 26, gid: 27, mtime: [1_600_000_000, 5] },
          ),
        ],
      ],
      { uid: 26, gid: 27, mtime: [1_600_000_000, 5] },
    );
    expect(normal(tree)).toEqual(normal(makeTree(typed)));
  });

  test('keep their contents and their inodes apart', async () => {
    const root = directory([
      ['a', file(9, { link: 'l' })],
      ['d', directory([['b', file(9, { link: 'l' })]])],
    ]);
    const { tree, content, entryOf } = composeTrees([part(root, 'one', 1), part(root, 'two', 2)]);
    const paths = pathsOf(tree);
    const groups = [...tree.sameInodeAs].map(([entry, first]) => [paths[entry], paths[first]]);
    expect(groups).toEqual([
      ['/one/d/b', '/one/a'],
      ['/two/d/b', '/two/a'],
    ]);
    for (const number of [1, 2]) {
      for (const [entry, path] of [
        [1, 'a'],
        [3, 'd/b'],
      ] as const) {
        const composed = paths.indexOf(`/${number === 1 ? 'one' : 'two'}/${path}`);
        expect(entryOf(number - 1, entry)).toBe(composed);
        const target = new Uint8Array(3);
        await content.read(composed, 6, target);
        expect([...target]).toEqual([number, entry, 6]);
      }
    }
  });

  test('pass failed reads on', async () => {
    const tree = makeTree(directory([['f', file(1)]]));
    const { content } = composeTrees([{ tree, content: new PatternContent(tree), at: 'd' }]);
    await expect(content.read(2, 1, new Uint8Array(1))).rejects.toThrow('entry 1 has no bytes');
  });
});

describe('places', () => {
  test.each(['', '/a', 'a/', 'a//b', '.', '..', 'a/../b', 'a\0b', 'x'.repeat(256), 'lost+found', 'lost+found/a'])(
    '%j is refused',
    (at) => {
      expect(() => composeTrees([part(cluster, at)])).toThrow(UserError);
    },
  );

  test.each([
    ['a', 'a', 'both be at "a"'],
    ['a', 'a/b', '"a/b" lies inside "a"'],
    ['a/b/c', 'a', '"a/b/c" lies inside "a"'],
  ])('%j and %j together are refused', (one, other, text) => {
    expect(() => composeTrees([part(cluster, one), part(cluster, other)])).toThrow(text);
  });

  test('of 255 bytes, and names that begin like others, are taken', () => {
    const { tree } = composeTrees(['é'.repeat(127), 'ab', 'a', 'a+/lost+found'].map((at) => part(cluster, at)));
    expect(pathsOf(tree).slice(1, 5)).toEqual(['/a', '/a+', '/ab', `/${'é'.repeat(127)}`]);
  });
});
