import { describe, expect, test } from 'vitest';
import { UnsupportedError, UserError } from '../../../src/core/errors.ts';
import { BLOCK_SIZE, GiB, MiB } from '../../../src/core/units.ts';
import { Ext4Image } from '../../../src/ext4/image.ts';
import { LAYOUT_VERSION, type LayoutRequest } from '../../../src/ext4/parameters.ts';
import { planLayout } from '../../../src/ext4/plan.ts';
import { Ext4Reader } from '../../support/ext4-reader.ts';
import { directory, file, makeTree, PatternContent, symlink, type TreeNode } from '../../support/ext4-tree.ts';

const identity = { snapshotId: '0123456789abcdef'.repeat(4), createdSeconds: 1_750_000_000.9 };
const small: LayoutRequest = { free: { bytes: MiB }, journalBlocks: 1024 };

function planned(root: TreeNode, request: LayoutRequest = small) {
  const tree = makeTree(root);
  const layout = planLayout(tree, request, identity);
  return { tree, layout, image: new Ext4Image(layout, new PatternContent(tree)) };
}

/** What the independent reader finds, and the kinds of warnings with counts and examples. */
async function shown(root: TreeNode, request: LayoutRequest = small) {
  const { layout, image } = planned(root, request);
  const reader = new Ext4Reader(image);
  await reader.open();
  const warnings = layout.warnings.map(({ kind, count, example }) => [kind, count, example]);
  return { entries: await reader.walk(), warnings };
}

describe('parameters', () => {
  test('are complete, plain and the same every time', () => {
    const first = planned(directory([['a', file(5)]])).layout.parameters;
    expect(JSON.parse(JSON.stringify(first))).toEqual(first);
    expect(planned(directory([['a', file(5)]])).layout.parameters).toEqual(first);
    expect(first).toMatchObject({
      layoutVersion: LAYOUT_VERSION,
      label: 'kloset-01234567',
      path: '/',
      createdSeconds: 1_750_000_000,
    });
  });

  test('each one changes the made UUID, and an asked one stays', () => {
    const uuidOf = (request: LayoutRequest) => planned(directory(), { ...small, ...request }).layout.parameters.uuid;
    const uuids = [{}, { label: 'x' }, { owner: { uid: 1, gid: 2 } }, { modeMask: 0o777 }, { spareInodes: 7 }].map(
      uuidOf,
    );
    expect(new Set(uuids).size).toBe(uuids.length);
    expect(uuids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(uuidOf({ uuid: 'ABCDEF01-2345-6789-abcd-ef0123456789' })).toBe('abcdef01-2345-6789-abcd-ef0123456789');
  });

  test('name the version that was asked for, older ones too; unknown ones are refused', () => {
    const tree = makeTree(directory([['a', file(50_000)]]));
    const versionOf = (layoutVersion: number) => planLayout(tree, small, identity, { layoutVersion }).parameters;
    expect(versionOf(1)).toMatchObject({ layoutVersion: 1 });
    expect(versionOf(1).uuid).not.toBe(versionOf(LAYOUT_VERSION).uuid);
    for (const unknown of [0, 1.5, LAYOUT_VERSION + 1, Number.NaN]) {
      expect(() => versionOf(unknown)).toThrow(UnsupportedError);
    }
  });

  test.each<[LayoutRequest, string]>([
    [{ label: 'seventeen letters' }, 'label'],
    [{ uuid: '1234' }, 'UUID'],
    [{ owner: { uid: 2 ** 32 - 1, gid: 0 } }, 'owner'],
    [{ owner: { uid: 0, gid: 1.5 } }, 'group'],
    [{ modeMask: 0o10000 }, 'mode mask'],
    [{ journalBlocks: 1023 }, 'journal'],
    [{ free: { percent: -1 } }, 'free space'],
    [{ sizeBytes: 100 }, 'size'],
    [{ sizeBytes: MiB }, 'at least'],
    [{ sizeBytes: 64 * MiB, spareInodes: 1_000_000 }, 'at least'],
  ])('%j is refused', (request, named) => {
    expect(() => planned(directory(), request)).toThrow(UserError);
    expect(() => planned(directory(), request)).toThrow(named);
  });
});

describe('size', () => {
  test('is a quarter more than what is used, and at least 1 GiB', () => {
    const { usedBlocks, totalBlocks } = planned(directory(), {}).layout.geometry;
    expect(totalBlocks - usedBlocks).toBe(GiB / BLOCK_SIZE);
    const large = planned(directory([['a', file(10 * GiB)]]), {}).layout.geometry;
    expect(large.totalBlocks - large.usedBlocks).toBe(Math.ceil(large.usedBlocks / 4));
  });

  test('stays within what takes writes if less free space makes it so', () => {
    const terabytes = (count: number) => {
      const bytes = Math.floor((count * 2 ** 40) / 20);
      return directory(Array.from({ length: 20 }, (_, i) => [`${i}`, file(bytes)] as const));
    };
    expect(planned(terabytes(15), {}).image.sizeBytes).toBe(2 ** 44);
    expect(planned(terabytes(17), {}).image.sizeBytes).toBeGreaterThan(2 ** 44);
  });

  test('is what was asked for, whole blocks', () => {
    expect(planned(directory(), { sizeBytes: 10 * GiB + 5000 }).image.sizeBytes).toBe(10 * GiB + 4096);
  });

  test('the least size named by the refusal is enough, and one block less is not', () => {
    const root = directory([['a', file(300 * MiB)]]);
    const refusal = (sizeBytes: number) => {
      try {
        planned(root, { sizeBytes });
        return undefined;
      } catch (error) {
        return Number(/at least (\d+) bytes/.exec((error as Error).message)?.[1]);
      }
    };
    const least = refusal(100 * MiB)!;
    expect(refusal(least)).toBeUndefined();
    expect(refusal(least - BLOCK_SIZE)).toBe(least);
  });

  test('millions of spare inodes make room for themselves', () => {
    const { geometry, lastInode } = planned(directory(), { spareInodes: 3_000_000, free: { bytes: 0 } }).layout;
    expect(geometry.inodesPerGroup * geometry.groupCount - lastInode).toBeGreaterThanOrEqual(3_000_000);
  });
});

describe('lost+found', () => {
  const owned = { uid: 26, gid: 27 };

  test('is added with the owner of the root', async () => {
    const { entries, warnings } = await shown(directory([['a', file()]], owned));
    expect(entries.get('lost+found')).toMatchObject({
      inode: 11,
      mode: 0o40700,
      uid: 26,
      gid: 27,
      size: 16_384,
      links: 2,
    });
    expect(entries.get('')?.links).toBe(3);
    expect(warnings).toEqual([]);
  });

  test('of the snapshot stays as it is', async () => {
    const { entries } = await shown(directory([['lost+found', directory([['#12', file()]], { mode: 0o750 })]], owned));
    expect(entries.get('lost+found')).toMatchObject({ inode: 11, mode: 0o40750, uid: 0, links: 2 });
    expect(entries.has('lost+found/#12')).toBe(true);
  });

  test('that is a file gets another name', async () => {
    const { entries, warnings } = await shown(
      directory([
        ['lost+found', file(7)],
        ['lost+found~2', file(8)],
      ]),
    );
    expect(entries.get('lost+found~3')?.size).toBe(7);
    expect(entries.get('lost+found~2')?.size).toBe(8);
    expect(entries.get('lost+found')?.mode).toBe(0o40700);
    expect(warnings).toEqual([['lost-found-renamed', 1, '/lost+found']]);
  });
});

describe('what cannot be shown is said', () => {
  test('names', async () => {
    const names = ['', '.', '..', 'a/b', 'a\0b', 'n'.repeat(256), 'n'.repeat(300), 'same', 'same', 'same', 'same~2'];
    const { entries, warnings } = await shown(directory(names.map((name, i) => [name, file(i)])));
    const [, , ...found] = [...entries].map(([name, { size }]) => [name, size]).sort();
    expect(found).toEqual([
      ['__', 2],
      ['_~2', 1],
      ['a_b', 4],
      ['a_b~2', 3],
      ['lost+found', 16_384],
      ['n'.repeat(255), 5],
      [`${'n'.repeat(253)}~2`, 6],
      ['same', 7],
      ['same~2', 10],
      ['same~3', 8],
      ['same~4', 9],
    ]);
    expect(entries.get('_')?.size).toBe(0);
    expect(warnings).toEqual([
      ['name-invalid', 7, '/'],
      ['name-duplicate', 2, '/same'],
    ]);
  });

  test('times that e2fsck takes for earlier ones, in every layout version but the first', async () => {
    const [first, end] = [3 * 2 ** 32 - 2 ** 31, 3 * 2 ** 32];
    const seconds = [first - 1, first, first + 1000, end - 1000, end - 1, end];
    const root = directory(seconds.map((at, i) => [`${i}`, file(0, { mtime: [at, 7] })]));
    const timesOf = async (layoutVersion: number) => {
      const layout = planLayout(makeTree(root), small, identity, { layoutVersion });
      const reader = new Ext4Reader(new Ext4Image(layout, new PatternContent(layout.tree)));
      await reader.open();
      const entries = await reader.walk();
      const times = seconds.map((_, i) => [entries.get(`${i}`)?.seconds, entries.get(`${i}`)?.nanoseconds]);
      return { times, warnings: layout.warnings.map(({ kind, count }) => [kind, count]) };
    };
    expect(await timesOf(1)).toEqual({ times: seconds.map((at) => [at, 7]), warnings: [] });
    const [before, after] = [first - 1, end];
    expect(await timesOf(2)).toEqual({
      times: [
        [before, 7],
        [before, 0],
        [before, 0],
        [after, 0],
        [after, 0],
        [after, 7],
      ],
      warnings: [['time-mistaken', 4]],
    });
  });

  test('times, owners, device numbers, targets', async () => {
    const { entries, warnings } = await shown(
      directory([
        ['after', file(0, { mtime: [2 ** 34 - 2 ** 31, 5] })],
        ['before', file(0, { mtime: [-(2 ** 31) - 1, 5] })],
        ['device', { type: 'blockDevice' }],
        ['empty', symlink('')],
        ['long', symlink('x'.repeat(4096))],
        ['nobody', file(0, { uid: 2 ** 32 - 1, gid: 2 ** 40 })],
      ]),
    );
    expect(entries.get('after')).toMatchObject({ seconds: 2 ** 34 - 2 ** 31 - 1, nanoseconds: 0 });
    expect(entries.get('before')).toMatchObject({ seconds: -(2 ** 31), nanoseconds: 0 });
    expect(entries.get('empty')?.target?.toString()).toBe('(empty symlink target)');
    expect(entries.get('long')?.target?.toString()).toBe('(symlink target too long)');
    expect(entries.get('nobody')).toMatchObject({ uid: 65_534, gid: 65_534 });
    expect(warnings).toEqual([
      ['device-number-unknown', 1, '/device'],
      ['time-clamped', 2, '/after'],
      ['owner-too-large', 1, '/nobody'],
      ['link-target-unshowable', 2, '/empty'],
    ]);
  });
});

test('attributes that Linux keeps for files and directories are said to be unreadable elsewhere', async () => {
  const attributes = [['user.a', Buffer.from('x')]] as const;
  const { entries, warnings } = await shown(
    directory([
      ['device', { type: 'fifo', attributes }],
      ['file', file(0, { attributes })],
      ['link', symlink('x', { attributes })],
      ['other', symlink('x', { attributes: [['trusted.a', Buffer.from('x')]] })],
    ]),
  );
  expect(entries.get('link')?.attributes.get('user.a')?.toString()).toBe('x');
  expect(warnings).toEqual([['attribute-unreadable', 2, '/device']]);
});

test('every entry concerned is named where that is asked for', () => {
  const tree = makeTree(
    directory([
      ['d', directory([['..', file()]])],
      ['x\xff/', file()],
      ['z', { type: 'blockDevice' }],
    ]),
  );
  const examplesOf = (everyExample: boolean) =>
    planLayout(tree, small, identity, { everyExample }).warnings.map(({ kind, examples }) => [
      kind,
      ...examples.map((path) => Buffer.from(path).toString('latin1')),
    ]);
  expect(examplesOf(false)).toEqual([
    ['device-number-unknown', '/z'],
    ['name-invalid', '/xÃ¿/'],
  ]);
  expect(examplesOf(true)).toEqual([
    ['device-number-unknown', '/z'],
    ['name-invalid', '/xÃ¿/', '/d/..'],
  ]);
});

describe('owner and mode', () => {
  test('are mapped for every entry', async () => {
    const root = directory([['d', directory([['f', file(0, { uid: 5, mode: 0o6755 })]], { uid: 6 })]], { uid: 7 });
    const { entries } = await shown(root, { ...small, owner: { uid: 70_000, gid: 80_000 }, modeMask: 0o777 });
    for (const { uid, gid } of entries.values()) expect([uid, gid]).toEqual([70_000, 80_000]);
    expect(entries.get('d/f')?.mode).toBe(0o100755);
  });

  test('a mask holds for access control lists, which layout version 1 did not know', async () => {
    // user::rwx user:1000:rwx group::rwx mask::rwx other::rwx
    const acl = Buffer.from(
      '0200000001000700ffffffff02000700e803000004000700ffffffff10000700ffffffff20000700ffffffff',
      'hex',
    );
    const lists = [
      ['system.posix_acl_access', acl],
      ['system.posix_acl_default', acl],
    ] as const;
    const tree = makeTree(directory([['d', directory([], { mode: 0o777, attributes: lists })]]));
    const shownBy = async (layoutVersion: number) => {
      const layout = planLayout(tree, { ...small, modeMask: 0o750 }, identity, { layoutVersion });
      const reader = new Ext4Reader(new Ext4Image(layout, new PatternContent(tree)));
      await reader.open();
      const { mode, attributes } = (await reader.walk()).get('d')!;
      const listOf = (name: string) => attributes.get(`system.posix_acl_${name}`)?.toString('hex');
      return { mode, access: listOf('access'), standard: listOf('default') };
    };
    const masked = '0200000001000700ffffffff02000700e803000004000700ffffffff10000500ffffffff20000000ffffffff';
    expect(await shownBy(2)).toEqual({ mode: 0o40750, access: masked, standard: acl.toString('hex') });
    expect(await shownBy(1)).toMatchObject({ mode: 0o40750, access: acl.toString('hex') });
  });
});
