/** A snapshot of the `postgres+bin` integration: the cluster in /data beside /manifest.json, symlinks recorded as files. */
import { expect, it } from 'vitest';
import { entryTypes } from '../../../src/core/snapshot-tree.ts';
import { cleanupAfterEach } from '../../support/fixtures.ts';
import { openStore, pathsOf } from '../../support/kloset.ts';
import { addSnapshot, DIRECTORY } from '../../support/snapshot-writer.ts';
import { StoreWriter } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();
const empty = [new Uint8Array(0)];

async function openSnapshot(importer: string, path?: string) {
  const store = new StoreWriter();
  addSnapshot(store, {
    importer,
    directory: '/',
    entries: [
      { path: '/', mode: DIRECTORY },
      { path: '/manifest.json', content: [Buffer.from('{}')] },
      { path: '/data', mode: DIRECTORY - 0o755 + 0o700 },
      { path: '/data/PG_VERSION', content: [Buffer.from('15\n')] },
      { path: '/data/pg_tblspc', mode: DIRECTORY },
      // As these importers have it: a regular file of no bytes with a target.
      { path: '/data/pg_tblspc/16400', content: empty, target: '/srv/fast' },
      { path: '/data/pg_wal', content: empty, target: '../wal' },
      { path: '/data/empty', content: empty },
    ],
  });
  const opened = await openStore(await store.finish());
  cleanup.add(() => opened.close());
  return opened.source(opened.snapshots[0]!, path);
}

it.each([
  ['postgres+bin', undefined, '/data'],
  ['postgres+bin', 'data', ''],
  ['tar', undefined, '/data'],
])('%s, root %s: symlinks are symlinks again', async (importer, root, prefix) => {
  const { tree, oddities } = await openSnapshot(importer, root);
  const paths = pathsOf(tree);
  const entryOf = (path: string) => paths.get(`${prefix}${path}`)!;
  for (const [path, target] of [
    ['/pg_tblspc/16400', '/srv/fast'],
    ['/pg_wal', '../wal'],
  ] as const) {
    const entry = entryOf(path);
    expect(tree.type[entry]).toBe(entryTypes.symlink);
    expect(Buffer.from(tree.linkTarget.get(entry)!).toString()).toBe(target);
  }
  expect(tree.type[entryOf('/empty')]).toBe(entryTypes.file);
  expect(paths.has('/manifest.json')).toBe(root === undefined);
  expect(oddities).toEqual([]);
});
