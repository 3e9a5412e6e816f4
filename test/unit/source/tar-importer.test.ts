/** What tar importers record is corrected (kloset-format 11.7); the fixture holds every case. */
import { afterAll, describe, expect, it } from 'vitest';
import { entryTypes } from '../../../src/core/snapshot-tree.ts';
import type { KlosetSource } from '../../../src/source/kloset-source.ts';
import { storePath } from '../../support/fixtures.ts';
import { openStore, pathsOf, storeAt } from '../../support/kloset.ts';

const opened = openStore(storeAt(storePath('tar')));
afterAll(async () => (await opened).close());

async function openTar(path?: string): Promise<{ source: KlosetSource; at: (path: string) => number }> {
  const store = await opened;
  const source = await store.source(store.snapshots.find(({ tags }) => tags.includes('tar'))!, path);
  const paths = pathsOf(source.tree);
  return {
    source,
    at: (wanted) => {
      const entry = paths.get(wanted);
      if (entry === undefined) throw new Error(`${wanted} is not among ${[...paths.keys()].join(' ')}`);
      return entry;
    },
  };
}

async function text(source: KlosetSource, entry: number): Promise<string> {
  const content = new Uint8Array(source.tree.sizeBytes[entry]!);
  await source.read(entry, 0, content);
  return Buffer.from(content).toString();
}

/** All entries as `path type target`. */
async function listing(path?: string): Promise<string[]> {
  const { source } = await openTar(path);
  const names = Object.fromEntries(Object.entries(entryTypes).map(([name, type]) => [type, name]));
  return [...pathsOf(source.tree)].map(([entryPath, entry]) => {
    const target = source.tree.linkTarget.get(entry);
    const same = source.tree.sameInodeAs.get(entry);
    const arrow = target === undefined ? '' : ` -> ${Buffer.from(target)}`;
    const equals = same === undefined ? '' : ` = ${[...pathsOf(source.tree)].find(([, other]) => other === same)![0]}`;
    return `${entryPath || '/'} ${names[source.tree.type[entry]!]} ${source.tree.mode[entry]!.toString(8)}${arrow}${equals}`;
  });
}

describe('a snapshot of the tar importer', () => {
  it('shows symlinks, hard links and special bits as the archive had them', async () => {
    expect(await listing()).toEqual([
      '/ directory 750',
      '/dot directory 750',
      '/implicit directory 750',
      '/top directory 755',
      '/dot/slash.txt file 644',
      '/implicit/parent directory 750',
      '/top/blk blockDevice 644',
      `/top/${Buffer.from('café').toString('latin1')} file 644`,
      '/top/chr characterDevice 644',
      '/top/dir directory 1777',
      '/top/empty file 644',
      '/top/fifo fifo 644',
      '/top/file.txt file 644',
      '/top/suid file 4755',
      '/top/sym symlink 777 -> file.txt',
      '/implicit/parent/file file 644',
      '/top/dir/hard file 644 = /top/file.txt',
      '/top/dir/symabs symlink 777 -> /etc/passwd',
    ]);
  });

  it('gives a hard link the content of its member', async () => {
    const { source, at } = await openTar();
    expect(source.tree.sizeBytes[at('/top/dir/hard')]).toBe(9);
    expect(await text(source, at('/top/dir/hard'))).toBe(await text(source, at('/top/file.txt')));
  });

  it('gives it the content too where the member lies outside the served directory', async () => {
    expect(await listing('/top/dir')).toEqual([
      '/ directory 1777',
      '/hard file 644',
      '/symabs symlink 777 -> /etc/passwd',
    ]);
    const whole = await openTar();
    const part = await openTar('top/dir');
    const content = await text(part.source, part.at('/hard'));
    expect(content).toHaveLength(9);
    expect(content).toBe(await text(whole.source, whole.at('/top/file.txt')));
  });

  it('refuses a root that is no directory, or is not there', async () => {
    await expect(openTar('/top/file.txt')).rejects.toThrow(/is not a directory/);
    await expect(openTar('/nowhere')).rejects.toThrow(/holds no directory \/nowhere/);
  });
});
