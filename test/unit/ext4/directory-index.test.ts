import { describe, expect, test } from 'vitest';
import { indexDirectory, indexDirectoryInSlices } from '../../../src/ext4/directory-index.ts';
import { indexedShape, LEAF_BYTES } from '../../../src/ext4/directory-shape.ts';
import { halfMd4, hashSeedWords } from '../../../src/ext4/half-md4.ts';
import { type NameTable, recordBytes } from '../../../src/ext4/names.ts';
import { Random } from '../../support/ext4-random.ts';

const seed = Buffer.from('01020304050607080910111213141516', 'hex');

function table(names: readonly Uint8Array[]): NameTable {
  const start = new Float64Array(names.length + 1);
  names.forEach((name, i) => {
    start[i + 1] = start[i]! + name.length;
  });
  return { bytes: Buffer.concat(names), start, count: names.length };
}

function hashOf(name: Uint8Array) {
  const result = { hash: 0, minor: 0 };
  halfMd4(hashSeedWords(seed), name, 0, name.length, result);
  return result;
}

describe('leaves', () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])('hold every name once, in order, never too many (seed %i)', (n) => {
    const random = new Random(n);
    const most = random.pick([8, 30, 255]);
    const names = Array.from({ length: random.integer(500, 5000) }, () => random.bytes(random.integer(1, most)));
    const sum = names.reduce((bytes, name) => bytes + recordBytes(name.length), 0);
    const { leaves } = indexedShape(sum)!;
    const { order, leafFirst, leafHash } = indexDirectory(table(names), { seed, leaves, leafBytes: LEAF_BYTES });
    expect([...order].sort((a, b) => a - b)).toEqual(names.map((_, i) => i));
    let before = { hash: -1, minor: 0 };
    for (let leaf = 0; leaf < leaves; leaf++) {
      const members = [...order.subarray(leafFirst[leaf], leafFirst[leaf + 1])];
      const bytes = members.reduce((total, name) => total + recordBytes(names[name]!.length), 0);
      expect(members.length).toBeGreaterThan(0);
      expect(bytes).toBeLessThanOrEqual(4084);
      const first = hashOf(names[members[0]!]!).hash;
      expect(leafHash[leaf]).toBe(first === before.hash ? first + 1 : first);
      for (const name of members) {
        const now = hashOf(names[name]!);
        expect(now.hash > before.hash || (now.hash === before.hash && now.minor >= before.minor)).toBe(true);
        before = now;
      }
    }
  });

  test('a leaf that begins with the hash the one before it ends with is marked', () => {
    // Equal names are the cheapest equal hashes; a real directory has none, the index does not mind.
    const names = Array.from({ length: 100 }, () => Buffer.alloc(200, 97));
    const { leaves } = indexedShape(100 * recordBytes(200))!;
    const { leafHash } = indexDirectory(table(names), { seed, leaves, leafBytes: LEAF_BYTES });
    const { hash } = hashOf(names[0]!);
    expect([...leafHash]).toEqual([hash, ...Array(leaves - 1).fill(hash + 1)]);
  });
});

test('made in slices is the same, and others have their turn in between', async () => {
  const names = table(Array.from({ length: 50_000 }, (_, i) => Buffer.from(`name ${i % 49_000}`)));
  const sum = 50_000 * recordBytes(10);
  const options = { seed, leaves: indexedShape(sum)!.leaves, leafBytes: LEAF_BYTES };
  let turns = 0;
  const others = setInterval(() => turns++);
  const index = await indexDirectoryInSlices(names, options);
  clearInterval(others);
  expect(index).toEqual(indexDirectory(names, options));
  expect(turns).toBeGreaterThan(0);
});

test('shapes by bytes of records', () => {
  expect(indexedShape(4060)).toBeUndefined();
  expect(indexedShape(4064)).toEqual({ leaves: 2, nodes: [], blocks: 3 });
  expect(indexedShape(400 * LEAF_BYTES)).toEqual({ leaves: 400, nodes: [], blocks: 401 });
  expect(indexedShape(400 * LEAF_BYTES + 12)).toEqual({ leaves: 401, nodes: [2], blocks: 404 });
  expect(indexedShape(160_000 * LEAF_BYTES)).toEqual({ leaves: 160_000, nodes: [400], blocks: 160_401 });
  expect(indexedShape(160_000 * LEAF_BYTES + 12)).toEqual({ leaves: 160_001, nodes: [2, 401], blocks: 160_405 });
});
