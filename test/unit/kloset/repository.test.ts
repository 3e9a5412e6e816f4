/** What a repository does when bytes are wrong or missing, and trees over it. */
import { describe, expect, it } from 'vitest';
import { newReadCounters } from '../../../src/core/counters.ts';
import { CorruptStoreError, StoreUnavailableError, UnsupportedError } from '../../../src/core/errors.ts';
import { toHex } from '../../../src/core/mac.ts';
import { BTree, byteOrder, type KeyOrder, pathOrder } from '../../../src/kloset/btree.ts';
import { blake3 } from '../../../src/kloset/codec/codec.ts';
import { resourceTypes, versions } from '../../../src/kloset/format.ts';
import { Repository } from '../../../src/kloset/repository.ts';
import { listSnapshots } from '../../../src/kloset/snapshot.ts';
import type { KlosetStore } from '../../../src/kloset/store.ts';
import { addSnapshot, addTree, DIRECTORY } from '../../support/snapshot-writer.ts';
import { configFields, envelope, idOf, macOf, StoreWriter } from '../../support/store-writer.ts';

const { object, vfsNode, vfsTree } = resourceTypes;
const keys = {
  passphrase: () => Promise.reject(new Error('not to be asked')),
  deriveKey: () => Promise.reject(new Error('not to be asked')),
};
const open = (store: KlosetStore) => Repository.open(store, { counters: newReadCounters(), keys });

async function caught(work: Promise<unknown>): Promise<Error & { details: Record<string, unknown> }> {
  try {
    await work;
  } catch (error) {
    return error as Error & { details: Record<string, unknown> };
  }
  throw new Error('it did not fail');
}

describe('opening', () => {
  it('has the states listed while CONFIG is on its way, once', async () => {
    const store = await new StoreWriter().finish();
    const { readConfig, list } = store;
    let lists = 0;
    let isListed = () => {};
    const listed = new Promise<void>((resolve) => (isListed = resolve));
    store.list = (...asked) => {
      lists++;
      isListed();
      return list.apply(store, asked);
    };
    store.readConfig = () => listed.then(() => readConfig.call(store));
    await open(store);
    expect(lists).toBe(1);
  });

  it('stops the listing, and forgets its failure, where CONFIG is what is wrong', async () => {
    const store: KlosetStore = await new StoreWriter().finish();
    let stops = 0;
    store.list = (_kind, { signal } = {}) =>
      new Promise((_resolve, reject) => {
        signal!.addEventListener('abort', () => {
          stops++;
          reject(signal!.reason);
        });
      });
    store.readConfig = () => Promise.reject(new StoreUnavailableError('no CONFIG'));
    await expect(open(store)).rejects.toThrow('no CONFIG');
    expect(stops).toBe(1);
    store.list = () => Promise.reject(new StoreUnavailableError('no list'));
    await expect(open(store)).rejects.toThrow('no CONFIG');
  });
});

describe('a blob', () => {
  const plain = Buffer.from('sixteen bytes it is');
  /** The blob in packfiles 1 and 2. */
  async function twoPlaces() {
    const store = new StoreWriter();
    const mac = store.blob(object, plain);
    store.blob(object, plain, { packfile: 2 });
    return { store: await store.finish(), id: { type: object, mac } };
  }
  const spoil = (target: Uint8Array) => {
    target[0]! ^= 1;
  };

  it('that comes wrong once is fetched once more', async () => {
    const { store, id } = await twoPlaces();
    const asked: string[] = [];
    store.onRead = (packfile, _, target) => {
      if (asked.push(packfile) === 1) spoil(target);
    };
    expect(Buffer.from(await (await open(store)).readBlob(id))).toEqual(plain);
    expect(new Set(asked).size).toBe(1);
    expect(asked).toHaveLength(2);
  });

  it.each([
    ['damaged', spoil],
    [
      'not to be had',
      () => {
        throw new StoreUnavailableError('gone');
      },
    ],
  ])('that is %s in one packfile is taken from the other', async (_, fault) => {
    for (const bad of [1, 2]) {
      const { store, id } = await twoPlaces();
      store.onRead = (packfile, __, target) => {
        if (packfile === toHex(idOf(bad))) fault(target);
      };
      expect(Buffer.from(await (await open(store)).readBlob(id))).toEqual(plain);
    }
  });

  it('that is wrong everywhere is never given, and everything about it named', async () => {
    const { store, id } = await twoPlaces();
    store.onRead = (_, __, target) => spoil(target);
    const error = await caught((await open(store)).readBlob(id));
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(error.message).toContain(`object ${toHex(id.mac)} in packfile`);
    expect(error.details).toMatchObject({
      blobType: 'object',
      mac: toHex(id.mac),
      offset: 16,
      length: plain.byteLength,
    });
    expect([toHex(idOf(1)), toHex(idOf(2))]).toContain(error.details.packfile);
    expect(store.reads).toBe(4);
  });

  it('of no length needs no fetch', async () => {
    const store = new StoreWriter();
    const mac = store.blob(object, new Uint8Array(0));
    expect(await (await open(await store.finish())).readBlob({ type: object, mac })).toHaveLength(0);
    expect(store.reads).toBe(0);
  });

  it('under another type or of no place is an error that names it', async () => {
    const { store, id } = await twoPlaces();
    const error = await caught((await open(store)).readBlob({ ...id, type: resourceTypes.chunk }));
    expect(error.message).toContain(`no chunk ${toHex(id.mac)}`);
  });

  it('whose length in the index is beyond belief is refused before memory is taken', async () => {
    const store = new StoreWriter();
    const mac = store.blob(object, new Uint8Array(70_000));
    const repository = await open(await store.finish());
    const fetch = repository.fetchBlob({ type: object, mac }, { plainBytesMax: 100, decode: async (bytes) => bytes });
    expect((await caught(fetch)).message).toMatch(/70000 bytes, more than it can/);
    expect(store.reads).toBe(0);
  });
});

describe('a store', () => {
  it('with a damaged state is refused, the state named', async () => {
    const store = await new StoreWriter().finish();
    const [[id, bytes]] = [...store.states] as [[string, Uint8Array]];
    bytes[20]! ^= 1;
    expect((await caught(open(store))).message).toBe(
      `State ${id} is damaged: its MAC does not match its content. --ignore-damaged-states opens the store without it`,
    );
  });

  it('with a state of a newer version is refused', async () => {
    const store = await new StoreWriter().finish();
    store.states.set(toHex(idOf(5)), envelope(resourceTypes.state, 0x20000, new Uint8Array(100)));
    expect(await caught(open(store))).toBeInstanceOf(UnsupportedError);
  });

  it('with a changed byte anywhere in CONFIG is refused', async () => {
    const store = await new StoreWriter().finish();
    for (let at = 0; at < store.config.byteLength; at++) {
      store.config[at]! ^= 1;
      const error = await caught(open(store));
      expect(error instanceof CorruptStoreError || error instanceof UnsupportedError, `${at}: ${error}`).toBe(true);
      store.config[at]! ^= 1;
    }
    await expect(open(store)).resolves.toBeDefined();
  });

  it('with a header that was swapped for another has lost that snapshot, and no other', async () => {
    const store = new StoreWriter();
    addSnapshot(store, { entries: [{ path: '/', mode: DIRECTORY }], header: { identifier: idOf(2) } });
    addSnapshot(store, { id: 3, entries: [{ path: '/', mode: DIRECTORY }] });
    const { snapshots, damaged } = await listSnapshots(await open(await store.finish(configFields)));
    expect(snapshots.map(({ id }) => id)).toEqual([toHex(idOf(3))]);
    expect(damaged.map(({ id }) => id)).toEqual([toHex(idOf(1))]);
    expect(damaged[0]!.error.message).toMatch(/^Snapshot 00000000 cannot be opened: .*another snapshot's/);
  });

  it('lists its snapshots newest first', async () => {
    const store = new StoreWriter();
    for (const [id, seconds] of [
      [1, 50],
      [2, 70],
      [3, 60],
      [4, 70],
    ]) {
      addSnapshot(store, { id: id!, seconds: seconds!, entries: [{ path: '/', mode: DIRECTORY }] });
    }
    const { snapshots: headers } = await listSnapshots(await open(await store.finish()));
    expect(headers.map(({ id }) => Number.parseInt(id, 16))).toEqual([2, 4, 3, 1]);
  });
});

const types = { tree: vfsTree, node: vfsNode };

async function treeOf(paths: readonly string[], order: KeyOrder, width = 3) {
  const store = new StoreWriter();
  const items = paths.map((path, i) => ({ key: Buffer.from(path, 'latin1'), value: idOf(i + 1) }));
  const mac = addTree(store, types, items, order, width);
  return { items, tree: await BTree.open(await open(await store.finish()), mac, types, order) };
}
async function keysOf(tree: BTree, from?: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of from === undefined ? tree.items() : tree.items(Buffer.from(from, 'latin1'))) {
    found.push(Buffer.from(key).toString('latin1'));
  }
  return found;
}

describe('a tree', () => {
  const paths = ['/', '/a', '/b', '/a/x', '/a/y', '/b/\xff', '/b/c', '/a/x/1', '/a/x/2', '/a-', '/a-/z', '/\xe9'];

  it('compares paths by their slashes, then bytes', () => {
    const sorted = [...paths].sort((a, b) => pathOrder(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')));
    expect(sorted).toEqual([
      '/',
      '/a',
      '/a-',
      '/b',
      '/\xe9',
      '/a-/z',
      '/a/x',
      '/a/y',
      '/b/c',
      '/b/\xff',
      '/a/x/1',
      '/a/x/2',
    ]);
  });

  it.each([
    ['byte', byteOrder],
    ['path', pathOrder],
  ] as const)('in %s order finds every key, and no other', async (_, order) => {
    for (const width of [2, 3, 20]) {
      const { tree, items } = await treeOf(paths, order, width);
      for (const { key, value } of items) expect(await tree.get(key)).toEqual(Buffer.from(value));
      for (const missing of ['', '/aa', '/a/', '/zz', '/a/x/3', '/\xff']) {
        expect(await tree.get(Buffer.from(missing, 'latin1')), missing).toBeUndefined();
      }
    }
  });

  it.each([
    ['byte', byteOrder],
    ['path', pathOrder],
  ] as const)('in %s order gives what comes from any key on', async (_, order) => {
    const { tree } = await treeOf(paths, order, 2);
    const sorted = [...paths].sort((a, b) => order(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')));
    expect(await keysOf(tree)).toEqual(sorted);
    for (const from of [...paths, '/a/', '/zz', '/a/x/3', '']) {
      const expected = sorted.filter((path) => order(Buffer.from(path, 'latin1'), Buffer.from(from, 'latin1')) >= 0);
      expect(await keysOf(tree, from), from).toEqual(expected);
    }
  });

  it('without entries has none', async () => {
    const { tree } = await treeOf([], byteOrder);
    expect([await keysOf(tree), await tree.get(Buffer.from('/'))]).toEqual([[], undefined]);
  });

  /** `levels` inner nodes, each with `fan` pointers to the one below it. */
  async function tower(levels: number, fan: number): Promise<{ tree: BTree; store: StoreWriter }> {
    const store = new StoreWriter();
    let mac = store.record(vfsNode, { keys: null, pointers: null, values: null });
    for (let i = 0; i < levels; i++) {
      mac = store.record(vfsNode, { version: i, keys: Array(fan - 1).fill('k'), pointers: Array(fan).fill(mac) });
    }
    const root = store.record(vfsTree, { Root: mac });
    return { store, tree: await BTree.open(await open(await store.finish()), root, types, byteOrder) };
  }

  it('that is too deep is refused', async () => {
    const { tree } = await tower(13, 1);
    await expect(keysOf(tree)).rejects.toThrow(/deeper than 12/);
    await expect(tree.get(Buffer.from('x'))).rejects.toThrow(/deeper than 12/);
    await expect(keysOf((await tower(11, 1)).tree)).resolves.toEqual([]);
  });

  it('that leads to one node by fifty ways on each level is refused, and not walked', async () => {
    const { tree, store } = await tower(11, 50);
    await expect(keysOf(tree)).rejects.toThrow(/occurs twice/);
    expect(store.reads).toBeLessThan(20);
  });

  it('whose node has keys for another number of values is refused', async () => {
    const store = new StoreWriter();
    const node = store.record(vfsNode, { keys: ['a', 'b'], values: [idOf(1)] });
    const root = store.record(vfsTree, { Root: node });
    const tree = await BTree.open(await open(await store.finish()), root, types, byteOrder);
    await expect(keysOf(tree)).rejects.toThrow(/tree node .* another number/);
    await expect(tree.get(Buffer.from('a'))).rejects.toThrow(CorruptStoreError);
  });
});

it('a store of state version 1.0.0 alone opens', async () => {
  const store = await new StoreWriter().finish();
  store.states.clear();
  const plain = Buffer.concat([Buffer.from([1]), Buffer.from([0, 0, 1, 0]), Buffer.alloc(24)]);
  store.states.set(toHex(idOf(1)), envelope(resourceTypes.state, versions.v1_0_0, plain));
  expect((await open(store)).snapshots()).toEqual([]);
});

it('a store all of whose resources have the older magic opens', async () => {
  const store = new StoreWriter();
  addSnapshot(store, { entries: [{ path: '/', mode: DIRECTORY }] });
  const mac = store.blob(object, Buffer.from('plain'));
  await store.finish();
  const covered = (resource: Uint8Array) => Buffer.concat([Buffer.from('_PLAKAR_'), resource.subarray(8, -32)]);
  store.config = Buffer.concat([covered(store.config), await blake3(covered(store.config))]);
  for (const resources of [store.states, store.packfiles])
    for (const [id, resource] of resources)
      resources.set(id, Buffer.concat([covered(resource), macOf(covered(resource))]));
  const repository = await open(store);
  expect((await listSnapshots(repository)).snapshots).toHaveLength(1);
  expect(Buffer.from(await repository.readBlob({ type: object, mac })).toString()).toBe('plain');
});
