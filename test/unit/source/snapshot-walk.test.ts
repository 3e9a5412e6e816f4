/** From a snapshot to a tree: by dirpacks and by the file tree, with all that damaged and odd snapshots hold. */
import { describe, expect, it } from 'vitest';
import { entryTypes } from '../../../src/core/snapshot-tree.ts';
import { goMode, resourceTypes } from '../../../src/kloset/format.ts';
import type { KlosetSource } from '../../../src/source/kloset-source.ts';
import type { WalkOptions } from '../../../src/source/snapshot-walk.ts';
import { cleanupAfterEach } from '../../support/fixtures.ts';
import { openStore, pathsOf } from '../../support/kloset.ts';
import type { Encodable } from '../../support/msgpack-writer.ts';
import { addSnapshot, DIRECTORY, type SnapshotParts, type WrittenEntry } from '../../support/snapshot-writer.ts';
import { macOf, StoreWriter } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();
const text = (content: string) => [Buffer.from(content)];
const root: WrittenEntry = { path: '/', mode: DIRECTORY, seconds: 7 };

async function sourceOf(
  parts: SnapshotParts,
  { path, store = new StoreWriter(), ...options }: { path?: string; store?: StoreWriter } & WalkOptions = {},
) {
  addSnapshot(store, parts);
  const opened = await openStore(await store.finish());
  cleanup.add(() => opened.close());
  return opened.source(opened.snapshots[0]!, path, options);
}

/** Every entry as a line: path, type, mode, size, time, first name, target, attributes. */
function lines({ tree }: KlosetSource): string[] {
  const paths = pathsOf(tree);
  const pathOf = new Map([...paths].map(([path, entry]) => [entry, path]));
  const types = Object.fromEntries(Object.entries(entryTypes).map(([name, type]) => [type, name]));
  return [...paths].map(([path, i]) => {
    const target = tree.linkTarget.get(i);
    const first = tree.sameInodeAs.get(i);
    const attributes =
      tree.attributes.get(i)?.map(({ name, value }) => ` ${Buffer.from(name)}=${Buffer.from(value)}`) ?? [];
    return (
      `${path || '/'} ${types[tree.type[i]!]} ${tree.mode[i]!.toString(8)} ${tree.sizeBytes[i]} ${tree.mtimeSeconds[i]}` +
      `${first === undefined ? '' : ` = ${pathOf.get(first)}`}${target === undefined ? '' : ` -> ${Buffer.from(target)}`}${attributes.join('')}`
    );
  });
}
const linesOf = async (entries: readonly WrittenEntry[], more: Partial<SnapshotParts> = {}, path?: string) =>
  lines(await sourceOf({ entries: [root, ...entries], ...more }, path === undefined ? {} : { path }));

describe('a snapshot', () => {
  const entries: WrittenEntry[] = [
    { path: '/d', mode: DIRECTORY + goMode.sticky },
    { path: '/d/\xff\x01', content: text('hello'), attributes: { 'user.b': '2', 'user.a': '1' } },
    { path: '/d/e', mode: DIRECTORY, attributes: { 'user.dir': 'x' } },
    { path: '/d/e/link', mode: goMode.symlink + 0o777, target: '../\xff' },
    { path: '/d/e/fifo', mode: goMode.fifo + 0o600 },
    { path: '/d-', content: text('') },
    { path: '/suid', mode: goMode.setUid + 0o755, content: text('12'), seconds: -5 },
  ];

  it('looks the same by its dirpacks and by its file tree, from every directory', async () => {
    const whole = await linesOf(entries);
    expect(whole).toEqual([
      '/ directory 755 0 7',
      '/d directory 1755 0 0',
      '/d- file 644 0 0',
      '/suid file 4755 2 -5',
      '/d/e directory 755 0 0 user.dir=x',
      '/d/\xff\x01 file 644 5 0 user.a=1 user.b=2',
      '/d/e/fifo fifo 600 0 0',
      `/d/e/link symlink 777 0 0 -> ${Buffer.from('../\xff', 'latin1')}`,
    ]);
    expect(await linesOf(entries, { dirpacks: false })).toEqual(whole);
    for (const path of ['/d', '/d/e', 'd/e']) {
      const part = await linesOf(entries, {}, path);
      expect(part).toHaveLength(path === '/d' ? 5 : 3);
      expect(await linesOf(entries, { dirpacks: false }, path)).toEqual(part);
    }
  });

  it('gives contents by either way, and relative to the directory that was backed up', async () => {
    for (const dirpacks of [true, false]) {
      const source = await sourceOf({ entries: [root, ...entries], dirpacks, directory: '/d' }, { path: '' });
      const target = new Uint8Array(5);
      await source.read(pathsOf(source.tree).get('/\xff\x01')!, 0, target);
      expect(Buffer.from(target).toString()).toBe('hello');
    }
  });

  it('without the entry of its root has a plain one', async () => {
    const [first] = lines(
      await sourceOf({ entries: [{ ...root, mode: DIRECTORY + goMode.sticky, blobMissing: true }] }),
    );
    expect(first).toBe('/ directory 755 0 0');
  });

  it('keeps entries whose blob is missing where a dirpack has them, and counts them where none does', async () => {
    const missing = entries.map((entry) => ({
      ...entry,
      blobMissing: entry.path === '/d/e' || entry.path === '/suid',
    }));
    expect(await linesOf(missing)).toEqual(await linesOf(entries));
    const source = await sourceOf({ entries: [root, ...missing], dirpacks: false });
    expect(lines(source).map((line) => line.split(' ')[0])).toEqual(['/', '/d', '/d-', '/d/\xff\x01']);
    expect(source.oddities).toMatchObject([
      { message: expect.stringMatching(/record is not in the store/), count: 2, example: '/suid' },
      { message: expect.stringMatching(/no other one lists/), count: 1, example: '/d/e' },
    ]);
  });

  it('leaves out what no Linux filesystem has, and counts it', async () => {
    const source = await sourceOf({
      entries: [
        root,
        { path: '/odd', mode: goMode.irregular + 0o644 },
        { path: '/..', content: text('x') },
        { path: '/a\0b', content: text('x') },
        { path: '/ok', content: text('x') },
      ],
    });
    expect(lines(source).slice(1)).toEqual(['/ok file 644 1 0']);
    expect(source.oddities.map(({ count }) => count).sort()).toEqual([1, 2]);
  });

  it('counts directories whose parents do not list them', async () => {
    for (const dirpacks of [true, false]) {
      const source = await sourceOf({
        entries: [
          root,
          { path: '/ok', mode: DIRECTORY },
          { path: '/gone/d', mode: DIRECTORY },
          { path: '/gone/d/f', content: text('x') },
        ],
        dirpacks,
      });
      expect(lines(source).slice(1)).toEqual(['/ok directory 755 0 0']);
      // In the tree of paths, what is in /gone stands under that name, too.
      const count = dirpacks ? 1 : 2;
      expect(source.oddities).toMatchObject([{ message: expect.stringMatching(/no other one lists/), count }]);
    }
  });

  it('tells what could not be read when it was made, of the directory that is shown', async () => {
    const entries = [root, { path: '/d', mode: DIRECTORY }, { path: '/d/ok', content: text('x') }];
    const unread = ['/d/secret', '/d/\xff', '/e'];
    const whole = await sourceOf({ entries, unread });
    expect(whole.oddities).toMatchObject([{ message: expect.stringMatching(/could not be read/), count: 3 }]);
    const below = await sourceOf({ entries, unread }, { path: '/d' });
    expect(below.oddities).toMatchObject([{ count: 2 }]);
    expect((await sourceOf({ entries })).oddities).toEqual([]);
  });

  it('is shown even if the list of what could not be read is damaged', async () => {
    const store = new StoreWriter();
    const blob = store.blob.bind(store);
    store.blob = (type, plain, options) =>
      blob(type, type === resourceTypes.errorNode ? Buffer.from('no tree') : plain, options);
    const source = await sourceOf({ entries: [root], unread: ['/e'] }, { store });
    expect(source.oddities).toMatchObject([{ message: expect.stringMatching(/damaged/), example: '/' }]);
  });

  it('names every entry concerned where that is asked for', async () => {
    const entries = [root, ...['/..', '/a\0b', '/\xff\0'].map((path) => ({ path, content: text('x') }))];
    const [oddity] = (await sourceOf({ entries }, { everyExample: true })).oddities;
    expect(oddity?.examples.map((path) => Buffer.from(path).toString('latin1')).sort()).toEqual([
      '/..',
      '/a\0b',
      '/\xff\0',
    ]);
  });

  it('does not multiply directories of one name, level by level', async () => {
    const twice: WrittenEntry[] = [];
    let path = '';
    for (let level = 0; level < 30; level++) {
      path += '/x';
      twice.push({ path, mode: DIRECTORY }, { path, mode: DIRECTORY, seconds: 9 });
    }
    const source = await sourceOf({ entries: [root, ...twice] });
    expect(source.tree.length).toBe(61);
    expect(source.oddities).toMatchObject([{ message: expect.stringMatching(/occurs twice/), count: 30 }]);
  });

  it('is refused, and named, if a directory lists entries of another', async () => {
    const stray: WrittenEntry = { path: '/d/f', content: text('x'), recordedParent: '/e' };
    for (const dirpacks of [true, false]) {
      const opening = sourceOf({ entries: [root, { path: '/d', mode: DIRECTORY }, stray], dirpacks });
      await expect(opening).rejects.toThrow(/^Snapshot 00000000.* directory \/d holds entries of another/);
    }
  });

  it('with a damaged list of a directory has its entries one by one, and says so', async () => {
    const entries = [root, { path: '/d', mode: DIRECTORY }, { path: '/d/x', content: text('x') }, { path: '/f' }];
    const sound = await sourceOf({ entries });
    const source = await sourceOf({ entries }, { store: spoilDirpacks(new StoreWriter()) });
    expect(lines(source)).toEqual(lines(sound));
    expect(source.oddities).toMatchObject([{ message: expect.stringMatching(/read entry by entry/), count: 2 }]);
    const inside = await sourceOf({ entries }, { path: '/d', store: spoilDirpacks(new StoreWriter()) });
    expect(lines(inside).map((line) => line.split(' ')[0])).toEqual(['/', '/x']);
  });

  it('is refused, and named, if an entry of a damaged list is nowhere else', async () => {
    const missing = { path: '/f', content: text('x'), blobMissing: true };
    const opening = sourceOf({ entries: [root, missing] }, { store: spoilDirpacks(new StoreWriter()) });
    await expect(opening).rejects.toThrow(/^Snapshot 00000000, file \/: .*MAC does not match/);
  });

  it('with a damaged index of directories has all entries one by one, and says so', async () => {
    const entries = [root, { path: '/d', mode: DIRECTORY }, { path: '/d/x', content: text('x') }];
    const store = new StoreWriter();
    const spoiled = without(store, resourceTypes.indexNode);
    const source = await sourceOf({ entries }, { store: spoiled });
    expect(lines(source)).toEqual(lines(await sourceOf({ entries })));
    expect(source.oddities).toMatchObject([{ message: expect.stringMatching(/index of directories is damaged/) }]);
    const again = without(new StoreWriter(), resourceTypes.indexNode);
    const opening = sourceOf({ entries: [root, { path: '/f', blobMissing: true }] }, { store: again });
    await expect(opening).rejects.toThrow(/^Snapshot 00000000: The store holds no indexNode/);
  });
});

describe('names of one inode', () => {
  const file = { content: text('abc'), inode: 42, links: 2, seconds: 100 };
  const groupsOf = async (...entries: WrittenEntry[]) => {
    const { tree } = await sourceOf({ entries: [root, ...entries] });
    return tree.sameInodeAs.size;
  };

  it('are joined by device and inode', async () => {
    expect(
      await linesOf([
        { path: '/a', ...file },
        { path: '/b', ...file },
        { path: '/c', ...file, inode: 43 },
      ]),
    ).toEqual(['/ directory 755 0 7', '/a file 644 3 100', '/b file 644 3 100 = /a', '/c file 644 3 100']);
  });

  it('may be symlinks, fifos and devices, but no directories', async () => {
    for (const mode of [goMode.fifo, goMode.socket, goMode.device, goMode.symlink]) {
      const entry = { mode: mode + 0o644, inode: 42, links: 2, ...(mode === goMode.symlink ? { target: 't' } : {}) };
      expect(await groupsOf({ path: '/a', ...entry }, { path: '/b', ...entry })).toBe(1);
    }
    const directory = { mode: DIRECTORY, inode: 42, links: 2 };
    expect(await groupsOf({ path: '/a', ...directory }, { path: '/b', ...directory })).toBe(0);
  });

  it.each<[string, Partial<WrittenEntry>]>([
    ['the number of names is one', { links: 1 }],
    ['the importer recorded no inode', { inode: 0 }],
    ['the time differs', { seconds: 101 }],
    ['the content differs', { content: text('abd') }],
    ['the size differs', { size: 4 }],
    ['the type differs', { mode: goMode.fifo + 0o644 }],
  ])('are not joined where %s', async (_, change) => {
    expect(await groupsOf({ path: '/a', ...file }, { path: '/b', ...file, ...change })).toBe(0);
  });

  it('share their attributes, also one whose value was lost under another name', async () => {
    const found = await linesOf([
      { path: '/a', ...file, attributes: { 'user.x': '1' }, attributesWithoutValue: ['user.y'] },
      { path: '/b', ...file, attributes: { 'user.x': '1', 'user.y': '2' } },
    ]);
    expect(found.slice(1)).toEqual(['/a file 644 3 100 user.x=1 user.y=2', '/b file 644 3 100 = /a user.x=1 user.y=2']);
  });
});

describe('attributes', () => {
  it('without value are left out and counted', async () => {
    const entry = { path: '/a', content: text('x'), attributes: { 'user.x': '1' }, attributesWithoutValue: ['user.y'] };
    const source = await sourceOf({
      entries: [root, entry, { path: '/b', mode: DIRECTORY, attributesWithoutValue: ['user.z'] }],
    });
    expect(lines(source).slice(1)).toEqual(['/a file 644 1 0 user.x=1', '/b directory 755 0 0']);
    expect(source.oddities).toMatchObject([{ count: 2, example: '/a' }]);
  });

  it('have names with separators, and values of no or many bytes', async () => {
    const attributes = { 'user.a:b/c:': '', 'user.long': 'v'.repeat(70_000), 'trusted.x': '\0' };
    const [, line] = await linesOf([{ path: '/a', content: text('x'), attributes }]);
    expect(line).toBe(`/a file 644 1 0 trusted.x=\0 user.a:b/c:= user.long=${'v'.repeat(70_000)}`);
  });

  it('need no tree where no entry has any', async () => {
    const store = new StoreWriter();
    const record = store.record.bind(store);
    // As an older writer: the header names no tree of attributes.
    store.record = (type, fields, options) =>
      record(type, type === resourceTypes.snapshot ? withoutAttributeTree(fields) : fields, options);
    const entry = { path: '/a', content: text('x'), attributesWithoutValue: ['user.y'] };
    const source = await sourceOf({ entries: [root, entry] }, { store });
    expect(lines(source)).toHaveLength(2);
    expect(source.oddities).toHaveLength(1);
  });
});

function withoutAttributeTree(fields: Encodable): Encodable {
  const header = fields as { sources: readonly [{ root: { root: Uint8Array } }] };
  const [source] = header.sources;
  return { ...header, sources: [{ ...source, root: { root: source.root.root } }] };
}

/** A byte of every dirpack's records is wrong, while the chunk itself is in order. */
function spoilDirpacks(store: StoreWriter): StoreWriter {
  const blob = store.blob.bind(store);
  store.blob = (type, plain, options) => {
    if (type !== resourceTypes.chunk || plain.byteLength < 100) return blob(type, plain, options);
    const changed = Buffer.from(plain);
    changed[60]! ^= 1;
    return blob(type, changed, options);
  };
  return store;
}

/** As `spoilDirpacks`, with blobs of one type not stored at all. */
function without(store: StoreWriter, type: number): StoreWriter {
  const blob = store.blob.bind(store);
  store.blob = (blobType, plain, options) => (blobType === type ? macOf(plain) : blob(blobType, plain, options));
  return store;
}
