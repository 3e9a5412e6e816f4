import { describe, expect, test } from 'vitest';
import { entryPath } from '../../../src/core/snapshot-tree.ts';
import { findLeavingLinks } from '../../../src/source/tree-links.ts';
import { directory, file, makeTree, symlink, type TreeNode } from '../../support/ext4-tree.ts';

type Children = NonNullable<TreeNode['children']>;

/** Path -> reason, with the link it leads through and the entry that was meant, where there are such. */
function leaving(children: Children, root = '/') {
  const tree = makeTree(directory(children));
  const found: Record<string, string> = {};
  for (const { entry, reason, via, inside } of findLeavingLinks(tree, root)) {
    const through = via === entry ? '' : ` ${entryPath(tree, via)}`;
    found[entryPath(tree, entry)] = `${reason}${through}${inside === undefined ? '' : ` = ${entryPath(tree, inside)}`}`;
  }
  return found;
}

describe('symlinks leave', () => {
  test('by absolute targets, whatever they point to', () => {
    expect(
      leaving([
        ['a', symlink('/srv/live')],
        ['b', symlink('/')],
        ['c', symlink('//x')],
      ]),
    ).toEqual({
      '/a': 'absolute',
      '/b': 'absolute = /',
      '/c': 'absolute',
    });
  });

  test.each([
    ['..', 'climbs'],
    ['../x', 'climbs'],
    ['./../x', 'climbs'],
    ['d/../../x', 'climbs'],
    ['no/such/../../../x', 'climbs'],
    ['f/../../x', 'climbs'],
    ['d/e/../../../d', 'climbs'],
    ['.', undefined],
    ['d/..', undefined],
    ['d/../f', undefined],
    ['...', undefined],
    ['..x', undefined],
    ['no/such/../..', undefined],
    ['f', undefined],
    ['dangling', undefined],
    ['', undefined],
  ])('from the root with the target %j: %s', (target, reason) => {
    const children: Children = [
      ['d', directory([['e', directory()]])],
      ['f', file(1)],
      ['link', symlink(target)],
    ];
    expect(leaving(children)['/link']).toBe(reason);
  });

  test('only with more `..` than they are deep', () => {
    const deep = (target: string) => leaving([['1', directory([['2', directory([['link', symlink(target)]])]])]]);
    expect(deep('../../x')).toEqual({});
    expect(deep('../../../x')).toEqual({ '/1/2/link': 'climbs' });
  });

  test('through symlinks to directories, counted from where those lead', () => {
    expect(
      leaving([
        ['a', directory([['b', directory([['up', symlink('../..')]])]])],
        ['deep', symlink('a/b')],
        ['fine', symlink('deep/../../a')],
        ['out', symlink('deep/../../../x')],
        ['own', symlink('deep/up/../x')],
        ['up', symlink('../x')],
        ['through', symlink('deep/up/up')],
      ]),
    ).toEqual({ '/out': 'climbs', '/own': 'climbs', '/up': 'climbs', '/through': 'through /up' });
  });

  test('through other symlinks that leave, at the end of the path as well as on the way', () => {
    expect(
      leaving([
        ['live', symlink('/srv')],
        ['end', symlink('live')],
        ['way', symlink('live/x/y')],
        ['twice', symlink('end')],
        ['parent', symlink('live/..')],
      ]),
    ).toEqual({
      '/live': 'absolute',
      '/end': 'through /live',
      '/way': 'through /live',
      '/twice': 'through /live',
      '/parent': 'through /live',
    });
  });

  test('never by going in circles', () => {
    expect(
      leaving([
        ['self', symlink('self')],
        ['a', symlink('b/x')],
        ['b', symlink('a/y')],
        ['grows', symlink('grows/grows/..')],
      ]),
    ).toEqual({});
  });

  test('after forty others no kernel follows them', () => {
    const chain = (length: number): Children => [
      ...Array.from({ length }, (_, i): [string, TreeNode] => [`l${i}`, symlink(`l${i + 1}`)]),
      [`l${length}`, symlink('/srv')],
    ];
    expect(leaving(chain(39))['/l0']).toBe('through /l39');
    expect(leaving(chain(40))['/l0']).toBeUndefined();
    expect(leaving(chain(40))['/l1']).toBe('through /l40');
  });

  test('whatever bytes names are made of', () => {
    const name = Uint8Array.of(0xff, 0x80);
    const tree = makeTree(
      directory([
        [name, directory([['in', symlink('..')]])],
        ['a', symlink(Buffer.concat([name, Buffer.from('/in/f')]))],
        ['b', symlink(Buffer.concat([name, Buffer.from('/../..')]))],
        ['f', file(1)],
      ]),
    );
    const found = [...findLeavingLinks(tree, '/')].map(({ entry, reason }) => [entryPath(tree, entry), reason]);
    expect(found).toEqual([['/b', 'climbs']]);
  });

  test('not if they are shown under another target: empty and too long ones', () => {
    expect(leaving([['long', symlink(`/${'x'.repeat(4095)}`)]])).toEqual({});
    expect(leaving([['long', symlink(`/${'x'.repeat(4094)}`)]])).toEqual({ '/long': 'absolute' });
  });
});

describe('what an absolute target meant where the snapshot was taken', () => {
  const children: Children = [
    ['data', directory([['f', file(1)]])],
    ['alias', symlink('data')],
    ['back', symlink('/var/lib/data')],
    ['link', symlink('/var/lib/data/f')],
    ['by alias', symlink('/var/lib/alias/./f')],
    ['by absolute', symlink('/var/lib/back/f')],
    ['with dots', symlink('/var/x/../lib//data/')],
    ['beside', symlink('/var/libx/data/f')],
    ['above', symlink('/var')],
    ['gone', symlink('/var/lib/none')],
  ];

  test('is told if the tree has it', () => {
    expect(leaving(children, '/var/lib')).toEqual({
      '/above': 'absolute',
      '/back': 'absolute = /data',
      '/beside': 'absolute',
      '/by absolute': 'absolute = /data/f',
      '/by alias': 'absolute = /data/f',
      '/gone': 'absolute',
      '/link': 'absolute = /data/f',
      '/with dots': 'absolute = /data',
    });
  });

  test('depends on where the tree was', () => {
    expect(leaving(children, '/')['/link']).toBe('absolute');
    expect(
      leaving(
        [
          ['x', symlink('/f')],
          ['f', file(1)],
        ],
        '/',
      )['/x'],
    ).toBe('absolute = /f');
  });
});
