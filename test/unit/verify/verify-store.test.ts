/** What `kloset-nbd verify` says of sound stores, and of stores of which one blob is damaged or gone. */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../../src/core/log.ts';
import { toHex } from '../../../src/core/mac.ts';
import { silentProgress } from '../../../src/core/progress.ts';
import { deriveKey } from '../../../src/kloset/codec/key-derivation.ts';
import { goMode, resourceTypeName, resourceTypes } from '../../../src/kloset/format.ts';
import { MissingResourceError, TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { parseSelector } from '../../../src/kloset/selector.ts';
import type { KlosetStore } from '../../../src/kloset/store.ts';
import { SoundSet } from '../../../src/verify/sound-set.ts';
import { verifyStore } from '../../../src/verify/verify-store.ts';
import { albumStore, cleanupAfterEach } from '../../support/fixtures.ts';
import { storeAt } from '../../support/kloset.ts';
import { addSnapshot, DIRECTORY, type WrittenEntry } from '../../support/snapshot-writer.ts';
import { idOf, macOf, StoreWriter } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();
const text = (content: string) => [Buffer.from(content)];
const entries: WrittenEntry[] = [
  { path: '/', mode: DIRECTORY },
  { path: '/a', mode: DIRECTORY },
  { path: '/a/one', content: [...text('SHARED'), ...text('ONLY-ONE')], attributes: { 'user.x': 'VALUE' } },
  { path: '/b', mode: DIRECTORY },
  { path: '/b/\xff', content: text('SHARED') },
  { path: '/b/zzz', mode: goMode.symlink + 0o777, target: 'x' },
  { path: '/top', content: text('TOP-1') },
];

/** A store of two snapshots; the second differs in one file. */
async function writtenStore(spoil: (store: StoreWriter) => void = () => {}): Promise<StoreWriter> {
  const store = new StoreWriter();
  spoil(store);
  addSnapshot(store, { id: 1, entries });
  addSnapshot(store, {
    id: 2,
    seconds: 2000,
    entries: [...entries.slice(0, -1), { path: '/top', content: text('TOP-2') }],
  });
  return store.finish();
}

async function verified(store: KlosetStore, { selectors = [] as string[], withData = true } = {}) {
  const keys = { passphrase: async () => Buffer.from(''), deriveKey };
  const chosen = selectors.map(parseSelector);
  const report = await verifyStore({
    store,
    keys,
    selectors: chosen,
    withData,
    log: silentLog,
    progress: silentProgress,
  });
  const lines = report.snapshots.flatMap(({ id, problems }) =>
    problems.listed.map(({ kind, path, chunk }) =>
      [id.slice(-1), kind, path === undefined ? '-' : Buffer.from(path).toString('latin1'), chunk?.index ?? '-'].join(
        ' ',
      ),
    ),
  );
  return { report, lines };
}

/** Spoils blobs of a type whose plain bytes contain `word`; drops them instead if `gone`. */
function spoiled(type: number, word: string, { gone = false } = {}) {
  return (store: StoreWriter) => {
    const blob = store.blob.bind(store);
    store.blob = (blobType, plain, options) => {
      if (blobType !== type || !Buffer.from(plain).includes(word, 0, 'latin1')) return blob(blobType, plain, options);
      if (gone) return macOf(plain);
      const changed = Buffer.from(plain);
      changed[changed.indexOf(word, 0, 'latin1')]! ^= 1;
      return blob(blobType, changed, { name: macOf(plain), ...options });
    };
  };
}

describe('a sound store', () => {
  it('has every chunk read once, whatever shares it', async () => {
    const store = await writtenStore();
    const { report, lines } = await verified(store);
    expect(lines).toEqual([]);
    expect(
      report.snapshots.map(({ id, entryCount, fileCount, fileBytes }) => [
        id.slice(-1),
        entryCount,
        fileCount,
        fileBytes,
      ]),
    ).toEqual([
      ['2', 6, 3, 25],
      ['1', 6, 3, 25],
    ]);
    // SHARED, ONLY-ONE, VALUE, TOP-1, TOP-2.
    expect(report.chunksChecked).toBe(5);
  });

  it('may lack records that stand in lists of directories', async () => {
    const store = new StoreWriter();
    addSnapshot(store, { entries: entries.map((entry) => ({ ...entry, blobMissing: entry.path === '/top' })) });
    const { report, lines } = await verified(await store.finish());
    expect(lines).toEqual([]);
    expect(report.snapshots[0]!.recordsMissing).toBe(1);
  });

  it('may lack the index of directories', async () => {
    const store = new StoreWriter();
    addSnapshot(store, { entries, dirpacks: false });
    const { report, lines } = await verified(await store.finish());
    expect([lines, report.snapshots[0]!.fileCount]).toEqual([[], 3]);
  });

  it('is the fixture', async () => {
    const store = storeAt(albumStore);
    cleanup.add(() => store.close());
    const { report, lines } = await verified(store);
    expect(lines).toEqual([]);
    expect(report.snapshots.map(({ entryCount }) => entryCount)).toEqual([1007, 1007]);
  });
});

describe('what is damaged is named, and all it affects:', () => {
  const { chunk, vfsEntry, vfsNode, indexNode, xattrEntry, xattrNode, snapshot } = resourceTypes;
  it.each([
    [
      'a chunk that files share',
      chunk,
      'SHARED',
      ['2 file /a/one 0', '2 file /b/\xff 0', '1 file /a/one 0', '1 file /b/\xff 0'],
    ],
    ['a chunk of one snapshot', chunk, 'TOP-2', ['2 file /top 0']],
    ['a list of a directory', chunk, 'zzz', ['2 directory /b -', '1 directory /b -']],
    ['a value of an attribute', chunk, 'VALUE', ['2 attribute /a/one user.x 0', '1 attribute /a/one user.x 0']],

    ['a record', vfsEntry, 'zzz', ['2 entry /b/zzz -', '1 entry /b/zzz -']],
    ['a record of an attribute', xattrEntry, 'user.x', ['2 attribute /a/oneuser.x: -', '1 attribute /a/oneuser.x: -']],
    ['a node of the tree of files', vfsNode, '/a/one', ['2 tree - -', '1 tree - -']],
    ['a node of the index of directories', indexNode, '/b', ['2 tree - -', '1 tree - -']],
    ['a node of the tree of attributes', xattrNode, 'user.x', ['2 tree - -', '1 tree - -']],
    ['a header', snapshot, 'identifier', ['1 snapshot - -', '2 snapshot - -']],
  ] as const)('%s', async (_, type, word, wanted) => {
    for (const gone of [false, true]) {
      // A header that no state lists is no snapshot; a record that is nowhere may stand in a list.
      if (gone && (type === snapshot || type === vfsEntry)) continue;
      const { lines } = await verified(await writtenStore(spoiled(type, word, { gone })));
      expect(lines.sort()).toEqual([...wanted].sort());
    }
  });

  it('every type of blob, lost', async () => {
    const sound = await writtenStore();
    for (const [name, type] of Object.entries(resourceTypes)) {
      if (['config', 'lock', 'state', 'packfile', 'signature', 'padding', 'snapshot', 'vfsEntry'].includes(name))
        continue;
      const used = new Set<number>();
      const store = await writtenStore((writer) => {
        const blob = writer.blob.bind(writer);
        writer.blob = (blobType, plain, options) => {
          used.add(blobType);
          return blobType === type ? macOf(plain) : blob(blobType, plain, options);
        };
      });
      if (!used.has(type)) continue;
      const { report } = await verified(store);
      for (const { id, problems } of report.snapshots)
        expect(problems.count, `${id} without ${resourceTypeName(type)}`).toBeGreaterThan(0);
    }
    expect((await verified(sound)).lines).toEqual([]);
  });

  it('a packfile that is gone, without looking at contents too', async () => {
    const store = new StoreWriter();
    const blob = store.blob.bind(store);
    store.blob = (type, plain, options) =>
      blob(type, plain, { ...options, packfile: Buffer.from(plain).equals(Buffer.from('TOP-1')) ? 2 : 1 });
    addSnapshot(store, { entries });
    await store.finish();
    store.onRead = (packfile) => {
      if (packfile === toHex(idOf(2))) throw new MissingResourceError('it is not there');
    };
    expect((await verified(store)).lines).toEqual(['1 file /top 0']);
    expect((await verified(store, { withData: false })).lines).toEqual([]);
  });

  it('chunks that no state lists, without looking at contents too', async () => {
    const store = await writtenStore(spoiled(chunk, 'SHARED', { gone: true }));
    const { lines } = await verified(store, { withData: false });
    expect(lines).toEqual(['2 file /a/one 0', '2 file /b/\xff 0', '1 file /a/one 0', '1 file /b/\xff 0']);
  });

  it('a size that the chunks do not have', async () => {
    const store = new StoreWriter();
    addSnapshot(store, { entries: [entries[0]!, { path: '/f', content: text('abc'), size: 4 }] });
    const { report, lines } = await verified(await store.finish());
    expect(lines).toEqual(['1 file /f -']);
    expect(report.snapshots[0]!.problems.listed[0]!.error.message).toMatch(/4 bytes, its chunks hold 3/);
  });
});

it('looks at what is asked for only', async () => {
  const store = await writtenStore(spoiled(resourceTypes.chunk, 'ONLY-ONE'));
  expect((await verified(store)).lines).toEqual(['2 file /a/one 1', '1 file /a/one 1']);
  expect((await verified(store, { selectors: ['latest'] })).lines).toEqual(['2 file /a/one 1']);
  expect((await verified(store, { selectors: ['latest:/b'] })).lines).toEqual([]);
  expect((await verified(store, { selectors: ['latest:/a/one'] })).lines).toEqual(['2 file /a/one 1']);
  await expect(verified(store, { selectors: ['latest:/nowhere'] })).rejects.toThrow(/holds no \/nowhere/);
});

it('is no verdict when the store goes away', async () => {
  const store = await writtenStore();
  let reads = 0;
  store.onRead = () => {
    if (++reads > 12) throw new TransientStoreError('no answer');
  };
  await expect(verified(store)).rejects.toThrow(/no answer/);
});

describe('the set of sound MACs', () => {
  it('knows what was put in, with its number', () => {
    const set = new SoundSet();
    const macs = Array.from({ length: 5000 }, (_, i) => macOf(Buffer.from(`${i}`)));
    for (const [i, mac] of macs.entries()) set.set(mac, i);
    expect(macs.every((mac, i) => set.get(mac) === i)).toBe(true);
    expect(set.get(macOf(Buffer.from('other')))).toBeUndefined();
    set.set(macs[7]!, 99);
    expect(set.get(macs[7]!)).toBe(99);
  });

  it('forgets what is beyond its bound, and takes nothing for another', () => {
    const set = new SoundSet(100);
    const macs = Array.from({ length: 3000 }, (_, i) => macOf(Buffer.from(`${i}`)));
    for (const [i, mac] of macs.entries()) set.set(mac, i);
    expect(macs.filter((mac) => set.get(mac) !== undefined).length).toBe(100);
    expect(macs.slice(0, 100).every((mac, i) => set.get(mac) === i)).toBe(true);
  });
});
