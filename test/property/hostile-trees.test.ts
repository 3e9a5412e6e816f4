/** Trees that no backup makes: whoever can write MACs, in a plaintext store everybody, can make them. */
import { describe, expect, it } from 'vitest';
import { BTree, pathOrder } from '../../src/kloset/btree.ts';
import { resourceTypes } from '../../src/kloset/format.ts';
import { openStore } from '../support/kloset.ts';
import { encodeMsgpack, Str } from '../support/msgpack-writer.ts';
import { addSnapshot, DIRECTORY, type WrittenEntry } from '../support/snapshot-writer.ts';
import { StoreWriter } from '../support/store-writer.ts';

const types = { tree: resourceTypes.vfsTree, node: resourceTypes.vfsNode };
const self = new Uint8Array(32).fill(7);

/** A tree of which every node is the same one. */
function treeOf(node: Buffer): Promise<BTree> {
  const descriptor = encodeMsgpack({ Version: 0, Order: 50, Count: 0, Root: self });
  const readBlob = async ({ type }: { type: number }) => (type === types.tree ? descriptor : node);
  return BTree.open({ readBlob }, self, types, pathOrder);
}

describe('a node that points to itself', () => {
  it.each([
    ['once', [self]],
    ['fifty times', Array.from({ length: 50 }, () => self)],
  ])('%s is refused', async (_, pointers) => {
    const keys = pointers.slice(1).map((_pointer, i) => new Str(`/${String.fromCharCode(0x41 + i)}`));
    const tree = await treeOf(encodeMsgpack({ keys, pointers }));
    await expect(tree.get(Buffer.from('/x'))).rejects.toThrow(/deeper than 12 levels/);
    await expect(tree.items().next()).rejects.toThrow(/occurs twice/);
    const damage: unknown[] = [];
    for await (const _item of tree.items(undefined, { onDamage: (error) => damage.push(error) })) expect.unreachable();
    expect(damage.length).toBe(pointers.length);
  });
});

describe('directories', () => {
  it('300 deep are walked without a deep stack', async () => {
    const entries: WrittenEntry[] = [{ path: '/', mode: DIRECTORY }];
    let path = '';
    for (let depth = 0; depth < 300; depth++) {
      path += '/d';
      entries.push({ path, mode: DIRECTORY });
    }
    const store = new StoreWriter();
    addSnapshot(store, { entries });
    const opened = await openStore(await store.finish(), { inThread: true });
    const { tree } = await opened.source(opened.snapshots[0]!);
    expect(tree.length).toBe(301);
    await opened.close();
  });

  it('that list themselves as their own child are refused', async () => {
    const store = new StoreWriter();
    addSnapshot(store, {
      entries: [
        { path: '/', mode: DIRECTORY },
        { path: '/d', mode: DIRECTORY },
        { path: '/d/d', mode: DIRECTORY, recordedParent: '/' },
      ],
    });
    const opened = await openStore(await store.finish(), { inThread: true });
    await expect(opened.source(opened.snapshots[0]!)).rejects.toThrow(/directory \/d holds entries of another/);
    await opened.close();
  });
});
