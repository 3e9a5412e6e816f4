/** What is fetched before PostgreSQL asks, and in which order. */
import { describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../../src/core/errors.ts';
import { entryPath } from '../../../src/core/snapshot-tree.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { FILE_BYTES_MAX } from '../../../src/warmup/limits.ts';
import { planWarmUp } from '../../../src/warmup/plan.ts';
import { makeTree, symlink, type TreeNode } from '../../support/ext4-tree.ts';
import { relationMap, treeOf } from '../../support/postgres-tree.ts';

type Files = Readonly<Record<string, number | string | Uint8Array | TreeNode>>;

const label = (location: string, segment: string) => `START WAL LOCATION: ${location} (file ${segment})\n`;

/** One database besides the templates; nothing that a start leaves alone is missing. */
const cluster: Files = {
  PG_VERSION: '15\n',
  backup_label: label('0/4F000028', '00000001000000000000004F'),
  'postgresql.conf': 'port = 5433\n',
  'pg_hba.conf': 'local all all trust\n',
  backup_manifest: 2 * MiB,
  'global/pg_control': 8 * KiB,
  'global/pg_filenode.map': relationMap([[1262, 1262]]),
  'global/1262': 8 * KiB,
  'global/1260': 8 * KiB,
  'pg_wal/00000001000000000000004E': 16 * MiB,
  'pg_wal/00000001000000000000004F': 16 * MiB,
  'pg_xact/0000': 256 * KiB,
  'pg_xact/0001': 8 * KiB,
  'pg_multixact/offsets/0000': 8 * KiB,
  'base/1/PG_VERSION': '15\n',
  'base/1/pg_filenode.map': relationMap([[1259, 1259]]),
  'base/1/1259': 112 * KiB,
  'base/1/1259_vm': 8 * KiB,
  'base/1/1249': 8 * MiB,
  'base/1/2608': 112 * KiB,
  'base/4/pg_filenode.map': relationMap([[1259, 1259]]),
  'base/4/1259': 112 * KiB,
  'base/5/pg_filenode.map': relationMap([[1259, 24601]]),
  'base/5/24601': 112 * KiB,
  'base/5/1259': 8 * KiB,
  'base/5/16396': 1024 * MiB,
};

/** `PATH FROM-TO`, `PATH` for a whole file; contents are those that are given as such. */
async function planned(files: Files, { root = '/', needsTemplate1 = true } = {}): Promise<string[]> {
  const tree = makeTree(treeOf(files));
  const readUncounted = async (entry: number, offset: number, target: Uint8Array) => {
    const content = files[entryPath(tree, entry).slice(1)];
    const isGiven = typeof content === 'string' || content instanceof Uint8Array;
    target.set(Buffer.from(isGiven ? content : new Uint8Array(target.length)).subarray(offset, target.length));
  };
  const found: string[] = [];
  for await (const { entry, from, to } of planWarmUp({ tree, root, readUncounted }, { needsTemplate1 })) {
    const isWhole = from === 0 && to === tree.sizeBytes[entry];
    found.push(`${entryPath(tree, entry)}${isWhole ? '' : ` ${from}-${to}`}`);
  }
  return found;
}

/** The files of `cluster` below another directory. */
const below = (folder: string): Files =>
  Object.fromEntries(Object.entries(cluster).map(([path, content]) => [`${folder}/${path}`, content]));

const order = [
  '/global/pg_control',
  '/PG_VERSION',
  '/backup_label',
  '/postgresql.conf',
  '/pg_wal/00000001000000000000004F',
  '/global/pg_filenode.map',
  '/pg_xact/0001',
  '/pg_multixact/offsets/0000',
  '/global/1260',
  '/global/1262',
  '/pg_hba.conf',
  '/base/1/pg_filenode.map',
  '/base/5/pg_filenode.map',
  '/base/1/PG_VERSION',
  '/base/1/1259',
  '/base/1/1259_vm',
  `/base/1/1249 0-${FILE_BYTES_MAX}`,
  '/base/5/24601',
];

describe('a warm-up', () => {
  test('goes as PostgreSQL does: how to start, the WAL, what is shared, template1, the databases', async () => {
    expect(await planned(cluster)).toEqual(order);
  });

  test('leaves template1 out where nobody asks for it', async () => {
    const expected = order.filter((path) => !path.startsWith('/base/1/'));
    expect(await planned(cluster, { needsTemplate1: false })).toEqual(expected);
  });

  test('finds data directories wherever they lie, and leaves other files alone', async () => {
    const files = { ...below('srv/data'), 'srv/other.bin': 5, 'etc/passwd': 9 };
    expect(await planned(files)).toEqual(order.map((path) => `/srv/data${path}`));
    expect(await planned({ 'etc/passwd': 9 })).toEqual([]);
  });

  test('begins in the middle of a segment where recovery does', async () => {
    const files = { ...cluster, backup_label: label('2/4FA00028', '00000001000000000000004F') };
    expect(await planned(files)).toContain(`/pg_wal/00000001000000000000004F ${0xa00028}-${16 * MiB}`);
  });

  test('takes the start from pg_control where the server was stopped', async () => {
    const { backup_label: _, ...files } = cluster;
    const control = new Uint8Array(8 * KiB);
    const view = new DataView(control.buffer);
    view.setUint32(40, 0x4e000028, true);
    view.setUint32(48, 1, true);
    expect(await planned({ ...files, 'global/pg_control': control })).toContain('/pg_wal/00000001000000000000004E');
  });

  test('leaves the WAL to reading where nothing says where it begins', async () => {
    const found = await planned({ ...cluster, backup_label: 'nothing of use' });
    expect(found).toEqual(order.filter((path) => !path.startsWith('/pg_wal')));
  });

  test('goes by the numbers of the catalogs where a map is damaged', async () => {
    const found = await planned({ ...cluster, 'base/5/pg_filenode.map': new Uint8Array(512) });
    expect(found).toContain('/base/5/1259');
    expect(found).not.toContain('/base/5/24601');
  });

  test('follows links of tablespaces and of the WAL that stay in the snapshot, and no others', async () => {
    const { 'pg_wal/00000001000000000000004E': _, 'pg_wal/00000001000000000000004F': wal, ...rest } = cluster;
    const inSpace = {
      'space/PG_15_202209061/16500/pg_filenode.map': relationMap([]),
      'space/PG_15_202209061/16500/2662': 8 * KiB,
      'space/PG_15_202209061/16501/16999': 8 * KiB,
    };
    const data = Object.fromEntries(Object.entries(rest).map(([path, content]) => [`data/${path}`, content]));
    const found = await planned(
      {
        ...data,
        ...inSpace,
        'wal/00000001000000000000004F': wal!,
        'data/pg_wal': symlink('/srv/wal'),
        'data/pg_tblspc/16400': symlink('/srv/space'),
        'data/pg_tblspc/16401': symlink('/elsewhere/space'),
        'data/pg_tblspc/16402': symlink('/srvspace'),
      },
      { root: '/srv' },
    );
    expect(found).toContain('/wal/00000001000000000000004F');
    expect(found.slice(-2)).toEqual(['/data/base/5/24601', '/space/PG_15_202209061/16500/2662']);
  });

  test('ends with the error of a file that says what to read next', async () => {
    const tree = makeTree(treeOf(cluster));
    const readUncounted = () => Promise.reject(new CorruptStoreError('damaged'));
    const all = async () => {
      for await (const _ of planWarmUp({ tree, root: '/', readUncounted }));
    };
    await expect(all()).rejects.toThrow('damaged');
  });
});
