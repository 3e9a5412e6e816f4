import { describe, expect, test } from 'vitest';
import { entryPath, type SnapshotTree } from '../../../src/core/snapshot-tree.ts';
import { readFilenodeMap } from '../../../src/postgres/catalog/filenode-map.ts';
import { isNewer, rowsOf } from '../../../src/postgres/catalog/heap-page.ts';
import { layoutOf } from '../../../src/postgres/catalog/layout.ts';
import { relationFileOf } from '../../../src/postgres/catalog/relation-file.ts';
import { RelationNames } from '../../../src/postgres/catalog/relation-names.ts';
import { findDataDirectories } from '../../../src/postgres/data-directories.ts';
import { directory, file, makeTree, type TreeNode } from '../../support/ext4-tree.ts';
import { openFixture } from '../../support/fixture-stores.ts';
import { cleanupAfterEach } from '../../support/fixtures.ts';
import {
  filenodeMap,
  heapPage,
  nameColumn,
  u32Column,
  type WrittenRow,
  XMAX_COMMITTED,
  XMAX_INVALID,
  XMAX_LOCK_ONLY,
  XMIN_COMMITTED,
  XMIN_INVALID,
} from '../../support/pg-heap.ts';

const cleanup = cleanupAfterEach();

describe('rows of a page', () => {
  const columns = Buffer.from('columns!');
  const only = (row: Partial<WrittenRow>, page = heapPage([{ columns, ...row }])) => [...rowsOf(page)];

  test('are believed as far as their hint bits go', () => {
    const liveness = (row: Partial<WrittenRow>) => only(row)[0]?.liveness;
    expect(liveness({})).toBe(2);
    expect(liveness({ xmax: 9, mask: XMIN_COMMITTED | XMAX_LOCK_ONLY })).toBe(2);
    expect(liveness({ xmax: 9, mask: XMIN_COMMITTED | XMAX_INVALID })).toBe(2);
    expect(liveness({ xmax: 9, mask: XMIN_COMMITTED })).toBe(1);
    expect(liveness({ xmax: 9, mask: XMIN_COMMITTED | XMAX_COMMITTED })).toBe(0);
    expect(liveness({ mask: XMIN_INVALID })).toBeUndefined();
    expect(only({ mask: XMIN_COMMITTED | XMIN_INVALID, xmin: 77 })[0]).toMatchObject({ liveness: 2, xmin: 0 });
  });

  test('have their columns behind the header, and before version 12 an oid in front of them', () => {
    const [row] = only({ hiddenOid: 4711 });
    expect(row!.hiddenOid).toBe(4711);
    expect(Buffer.from(row!.columns.buffer, row!.columns.byteOffset, columns.length)).toEqual(columns);
  });

  test('are none where there is no page, and those that would lie outside are left out', () => {
    expect([...rowsOf(new Uint8Array(8192))]).toEqual([]);
    expect([...rowsOf(heapPage([{ columns }]).subarray(0, 4096))]).toEqual([]);
    const outside = heapPage([{ columns }, { columns }]);
    outside.writeUInt32LE(((100 << 17) | (1 << 15) | 8190) >>> 0, 24);
    expect([...rowsOf(outside)].length).toBe(1);
    const lower = heapPage([{ columns }]);
    lower.writeUInt16LE(0xffff, 12);
    expect([...rowsOf(lower)].length).toBeGreaterThanOrEqual(1);
  });

  test('are newer by their transactions, whose numbers go round in a circle', () => {
    const version = (liveness: 0 | 1 | 2, xmin: number) => ({ liveness, xmin });
    expect(isNewer(version(2, 5), version(2, 4))).toBe(true);
    expect(isNewer(version(2, 5), version(2, 0xffffff00))).toBe(true);
    expect(isNewer(version(1, 9), version(2, 4))).toBe(false);
    expect(isNewer(version(2, 0), version(2, 4))).toBe(false);
    expect(isNewer(version(2, 4), version(2, 0))).toBe(true);
  });
});

test('a map of files is read, and one of another form gives none', () => {
  expect(readFilenodeMap(filenodeMap({ 1259: 16400, 1262: 1262 }))).toEqual(
    new Map([
      [1259, 16400],
      [1262, 1262],
    ]),
  );
  expect(readFilenodeMap(Buffer.alloc(512)).size).toBe(0);
  expect(readFilenodeMap(Buffer.alloc(3)).size).toBe(0);
  const claims = filenodeMap({ 1: 2 });
  claims.writeUInt32LE(0xffffffff, 4);
  expect(readFilenodeMap(claims).size).toBeLessThanOrEqual(64);
});

test.each([
  ['8.4', undefined],
  ['nonsense', undefined],
  ['9.1', { hasOidColumn: false, name: 0, relnamespace: 64, relfilenode: 84, reltoastrelid: 100, relkind: 111 }],
  ['9.3', { hasOidColumn: false, name: 0, relnamespace: 64, relfilenode: 84, reltoastrelid: 104, relkind: 115 }],
  ['11', { hasOidColumn: false, name: 0, relnamespace: 64, relfilenode: 84, reltoastrelid: 104, relkind: 111 }],
  ['15', { hasOidColumn: true, name: 4, relnamespace: 68, relfilenode: 88, reltoastrelid: 108, relkind: 115 }],
  ['18', { hasOidColumn: true, name: 4, relnamespace: 68, relfilenode: 88, reltoastrelid: 112, relkind: 119 }],
])('pg_class of version %s has its columns where its header says', (version, expected) => {
  expect(layoutOf(version)).toEqual(expected);
});

describe('files of relations', () => {
  const tree = makeTree(
    directory([
      ['global', directory([['1262', file()]])],
      [
        'base',
        directory([
          [
            '5',
            directory(
              ['1259', '1259_fsm', '1259_vm.2', '2600.1', 't3_88', '9_init', 'PG_VERSION'].map(
                (name) => [name, file()] as const,
              ),
            ),
          ],
        ]),
      ],
      ['elsewhere', directory([['PG_15_202209061', directory([['5', directory([['77', file()]])]])]])],
      ['other', directory([['5', directory([['77', file()]])]])],
    ]),
  );
  const found = (path: string) => relationFileOf(tree, entryOf(tree, path));

  test.each([
    ['/global/1262', { databaseOid: 0, filenode: 1262, fork: 'main', isTemporary: false }],
    ['/base/5/1259', { databaseOid: 5, filenode: 1259, fork: 'main', isTemporary: false }],
    ['/base/5/1259_fsm', { databaseOid: 5, filenode: 1259, fork: 'fsm', isTemporary: false }],
    ['/base/5/1259_vm.2', { databaseOid: 5, filenode: 1259, fork: 'vm', isTemporary: false }],
    ['/base/5/2600.1', { databaseOid: 5, filenode: 2600, fork: 'main', isTemporary: false }],
    ['/base/5/9_init', { databaseOid: 5, filenode: 9, fork: 'init', isTemporary: false }],
    ['/base/5/t3_88', { databaseOid: 5, filenode: 88, fork: 'main', isTemporary: true }],
    ['/elsewhere/PG_15_202209061/5/77', { databaseOid: 5, filenode: 77, fork: 'main', isTemporary: false }],
    ['/base/5/PG_VERSION', undefined],
    ['/other/5/77', undefined],
  ])('%s', (path, expected) => {
    expect(found(path)).toEqual(expected);
  });
});

/** A cluster of one database `a\nb` (oid 5) with the table `s.Odd "name"` (oid 16385), an index, and TOAST with an index. */
function cluster(version: string): { source: { tree: SnapshotTree; read: RelationSource }; directory: number } {
  const layout = layoutOf(version)!;
  const row = (oid: number, columns: Buffer, more: Partial<WrittenRow> = {}): WrittenRow =>
    layout.hasOidColumn
      ? { columns: Buffer.concat([u32Column(oid), columns]), ...more }
      : { columns, hiddenOid: oid, ...more };
  const classRow = (
    oid: number,
    {
      name,
      schema = 11,
      filenode = 0,
      toast = 0,
      kind = 'r',
      ...more
    }: Partial<WrittenRow> & { name: string; schema?: number; filenode?: number; toast?: number; kind?: string },
  ): WrittenRow => {
    const columns = Buffer.alloc(layout.relkind + 1);
    columns.set(nameColumn(name), layout.name);
    columns.writeUInt32LE(schema, layout.relnamespace);
    columns.writeUInt32LE(filenode, layout.relfilenode);
    columns.writeUInt32LE(toast, layout.reltoastrelid);
    columns.write(kind, layout.relkind);
    if (!layout.hasOidColumn) return { columns, hiddenOid: oid, ...more };
    columns.writeUInt32LE(oid, 0);
    return { columns, ...more };
  };
  const dead = { xmax: 800, mask: XMIN_COMMITTED | XMAX_COMMITTED };
  const contents: Record<string, Buffer> = {
    PG_VERSION: Buffer.from(`${version}\n`),
    'global/pg_control': Buffer.alloc(10),
    'global/pg_filenode.map': filenodeMap({ 1262: 1262, 2676: 12676 }),
    'global/1262': heapPage([row(5, nameColumn('a\nb')), row(1, nameColumn('template1'))]),
    'base/5/pg_filenode.map': filenodeMap({ 1259: 9001, 1249: 9002 }),
    'base/5/9001': Buffer.concat([
      heapPage([
        classRow(1259, { name: 'pg_class' }),
        classRow(1249, { name: 'pg_attribute' }),
        classRow(2615, { name: 'pg_namespace', filenode: 9003 }),
        classRow(2610, { name: 'pg_index', filenode: 9004 }),
        classRow(2676, { name: 'pg_authid_rolname_index', kind: 'i' }),
      ]),
      Buffer.alloc(8192),
      heapPage([
        classRow(16385, { name: 'old name', schema: 2200, filenode: 16400, toast: 16386, ...dead }),
        classRow(16385, { name: 'Odd "name"', schema: 2200, filenode: 16400, toast: 16386, xmin: 800 }),
        classRow(16386, { name: 'pg_toast_16385', schema: 99, filenode: 16386, kind: 't' }),
        classRow(16387, { name: 'pg_toast_16385_index', schema: 99, filenode: 16387, kind: 'i' }),
        classRow(16388, { name: 'odd_pkey', schema: 2200, filenode: 16388, kind: 'i' }),
        classRow(16389, { name: 'rolled back', schema: 2200, filenode: 16389, mask: XMIN_INVALID }),
      ]),
    ]),
    'base/5/9003': heapPage([
      row(11, nameColumn('pg_catalog')),
      row(99, nameColumn('pg_toast')),
      row(2200, nameColumn('s')),
    ]),
    'base/5/9004': heapPage([{ columns: u32Column(16387, 16386) }, { columns: u32Column(16388, 16385) }]),
  };
  const tree = makeTree(treeOf(contents));
  const read: RelationSource = async (entry, offset, target) => {
    const content = contents[entryPath(tree, entry).slice('/data/'.length)]!;
    target.set(content.subarray(offset, offset + target.length));
  };
  return { source: { tree, read }, directory: findDataDirectories(tree)[0]! };
}

type RelationSource = (entry: number, offset: number, target: Uint8Array) => Promise<void>;

/** Below `data`, as the recipe has it that puts a manifest.json beside. */
function treeOf(contents: Readonly<Record<string, Buffer>>): TreeNode {
  const below = (prefix: string): TreeNode => {
    const names = new Set(
      Object.keys(contents).flatMap((path) =>
        path.startsWith(prefix) ? path.slice(prefix.length).split('/')[0]! : [],
      ),
    );
    return directory(
      Array.from(names, (name) => {
        const content = contents[`${prefix}${name}`];
        return [name, content === undefined ? below(`${prefix}${name}/`) : file(content.length)] as const;
      }),
    );
  };
  return directory([
    ['data', below('')],
    ['manifest.json', file(2)],
  ]);
}

function entryOf(tree: SnapshotTree, path: string): number {
  for (let entry = 0; entry < tree.length; entry++) if (entryPath(tree, entry) === path) return entry;
  throw new Error(`there is no ${path}`);
}

describe('names of relations', () => {
  test.each(['9.0', '9.1', '9.3', '9.6', '10', '11', '12', '15', '17', '18'])('of version %s', async (version) => {
    const { source, directory } = cluster(version);
    const names = (await RelationNames.open(source, directory))!;
    expect([names.databaseName(5), names.databaseName(1), names.databaseName(2)]).toEqual([
      'a\nb',
      'template1',
      undefined,
    ]);
    expect(names.relation(5, 16400)).toBeUndefined();
    await names.load(5);
    const owner = { schema: 's', name: 'Odd "name"' };
    const told = (filenode: number) => names.relation(5, filenode);
    expect(told(16400)).toEqual({ oid: 16385, ...owner, kind: 'r', owner: undefined });
    expect(told(16386)).toEqual({ oid: 16386, schema: 'pg_toast', name: 'pg_toast_16385', kind: 't', owner });
    expect(told(16387)).toEqual({ oid: 16387, schema: 'pg_toast', name: 'pg_toast_16385_index', kind: 'i', owner });
    expect(told(16388)).toEqual({ oid: 16388, schema: 's', name: 'odd_pkey', kind: 'i', owner });
    expect(told(9002)).toMatchObject({ schema: 'pg_catalog', name: 'pg_attribute' });
    expect(told(16389)).toBeUndefined();
    // What is shared is found by the map of `global`.
    await names.load(0);
    expect(names.relation(0, 12676)).toMatchObject({ name: 'pg_authid_rolname_index' });
  });

  test('of versions that are not known are none, and what is damaged gives none either', async () => {
    const { source, directory } = cluster('15');
    const patched = (path: string, bytes: Buffer) => ({
      ...source,
      read: async (entry: number, offset: number, target: Uint8Array) => {
        if (entry === entryOf(source.tree, path)) target.set(bytes.subarray(offset, offset + target.length));
        else await source.read(entry, offset, target);
      },
    });
    expect(await RelationNames.open(patched('/data/PG_VERSION', Buffer.from('8.4')), directory)).toBeUndefined();
    const names = await RelationNames.open(patched('/data/base/5/9001', Buffer.alloc(30_000, 0xff)), directory);
    await names!.load(5);
    expect([names!.databaseName(5), names!.relation(5, 16400)]).toEqual(['a\nb', undefined]);
  });
});

test('every file of a relation in a real backup has a name', async () => {
  const store = await openFixture('album');
  cleanup.add(() => store.close());
  for (const header of store.snapshots) {
    const source = await store.openSource(header, '/');
    const { tree } = source;
    const read = (entry: number, offset: number, target: Uint8Array) => source.readUncounted(entry, offset, target);
    const names = (await RelationNames.open({ tree, read }, findDataDirectories(tree)[0]!))!;
    let count = 0;
    for (let entry = 0; entry < tree.length; entry++) {
      const found = relationFileOf(tree, entry);
      if (found === undefined) continue;
      await names.load(found.databaseOid);
      const path = entryPath(tree, entry);
      if (found.databaseOid !== 0) expect(names.databaseName(found.databaseOid), path).toBeDefined();
      const relation = names.relation(found.databaseOid, found.filenode);
      expect(relation, path).toBeDefined();
      if (relation!.schema === 'pg_toast') expect(relation!.owner, path).toBeDefined();
      count++;
    }
    expect(count).toBeGreaterThan(900);
    expect(source.costs.total().requests).toBe(0);
  }
});
