import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../../src/core/errors.ts';
import { type ByteRange, MiB } from '../../../src/core/units.ts';
import { type DigestibleDevice, digestDevice, HashTree, LEAF_BYTES } from '../../../src/exports/device-digest.ts';
import { Random } from '../../support/ext4-random.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** The leaves and roots by which implementations of Certificate Transparency (RFC 6962) are tested. */
const vectors = [
  ['', '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'],
  ['00', 'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125'],
  ['10', 'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77'],
  ['2021', 'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7'],
  ['3031', '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4'],
  ['40414243', '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef'],
  ['5051525354555657', 'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c'],
  ['606162636465666768696a6b6c6d6e6f', '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328'],
] as const;

describe('the hash tree', () => {
  test("gives RFC 6962's roots for one to eight leaves", () => {
    const tree = new HashTree();
    for (const [leaf, root] of vectors) {
      tree.append(HashTree.leafHash(Buffer.from(leaf, 'hex')));
      expect(hex(tree.root())).toBe(root);
    }
    expect(hex(new HashTree().root())).toBe(createHash('sha256').digest('hex'));
  });

  test('takes zeroes in large steps as if they came one by one', () => {
    const zero = HashTree.leafHash(new Uint8Array(LEAF_BYTES));
    const other = HashTree.leafHash(Buffer.from('other'));
    for (let before = 0; before < 9; before++) {
      for (const count of [0, 1, 2, 3, 7, 8, 31, 100]) {
        const [quick, slow] = [new HashTree(), new HashTree()];
        for (let i = 0; i < before; i++) for (const tree of [quick, slow]) tree.append(other);
        quick.appendZeroes(count);
        for (let i = 0; i < count; i++) slow.append(zero);
        for (const tree of [quick, slow]) tree.append(other);
        expect(hex(quick.root()), `${count} behind ${before}`).toBe(hex(slow.root()));
      }
    }
  });
});

/** Bytes in memory; zeroes are told as such where whole kilobytes are zero. */
class BytesDevice implements DigestibleDevice {
  readonly sizeBytes: number;
  readonly reads: ByteRange[] = [];
  readonly #bytes: Uint8Array;
  readonly #failAt: number | undefined;
  readonly #told: boolean;
  pending = 0;

  constructor(bytes: Uint8Array, { failAt, told = true }: { failAt?: number; told?: boolean } = {}) {
    this.sizeBytes = bytes.length;
    this.#bytes = bytes;
    this.#failAt = failAt;
    this.#told = told;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.reads.push({ offset, length: target.length });
    this.pending++;
    await new Promise(setImmediate);
    this.pending--;
    if (offset === this.#failAt) throw new CorruptStoreError('damaged');
    target.set(this.#bytes.subarray(offset, offset + target.length));
  }

  *extents({ offset, length }: ByteRange) {
    const step = 1024;
    for (let at = offset; at < offset + length; at += step) {
      const here = Math.min(step, offset + length - at);
      const zero = this.#told && this.#bytes.subarray(at, at + here).every((byte) => byte === 0);
      yield { offset: at, length: here, zero };
    }
  }

  async close(): Promise<void> {}
}

function sample(): Uint8Array {
  const bytes = new Uint8Array(9 * MiB + 4096);
  bytes.set(new Random(1).bytes(3000), 2 * MiB - 1000); // On both sides of a leaf's edge.
  bytes[6 * MiB + 5] = 1;
  bytes[9 * MiB + 7] = 1;
  return bytes;
}

describe('a device', () => {
  test('has the SHA-256 of its bytes, and the tree over its leaves', async () => {
    const bytes = sample();
    const { sha256, treeRoot, sizeBytes } = await digestDevice(new BytesDevice(bytes));
    expect(sha256).toBe(createHash('sha256').update(bytes).digest('hex'));
    expect(sizeBytes).toBe(bytes.length);
    const tree = new HashTree();
    for (let at = 0; at < bytes.length; at += MiB) tree.append(HashTree.leafHash(bytes.subarray(at, at + MiB)));
    expect(treeRoot).toBe(hex(tree.root()));
  });

  test('is read where it holds something only, and the result is the same as without knowing where', async () => {
    const device = new BytesDevice(sample());
    const digest = await digestDevice(device);
    expect(device.reads.map(({ offset }) => offset / MiB)).toEqual([1, 2, 6, 9]);
    expect(await digestDevice(new BytesDevice(sample(), { told: false }))).toEqual(digest);
  });

  test('shows every changed bit in both digests', async () => {
    const digest = await digestDevice(new BytesDevice(sample()));
    for (const at of [0, 2 * MiB, 5 * MiB - 1, 9 * MiB + 4095]) {
      const changed = sample();
      changed[at]! ^= 4;
      const other = await digestDevice(new BytesDevice(changed));
      expect(other.sha256).not.toBe(digest.sha256);
      expect(other.treeRoot).not.toBe(digest.treeRoot);
    }
  });

  test('tells its progress to the end, and leaves the plain digest out where only the tree is wanted', async () => {
    const told: number[] = [];
    const digest = await digestDevice(new BytesDevice(sample()), {
      treeOnly: true,
      onProgress: (bytes) => told.push(bytes),
    });
    expect(digest.sha256).toBeUndefined();
    expect(told.length).toBeGreaterThan(1);
    expect(told.reduce((all, bytes) => all + bytes, 0)).toBe(9 * MiB + 4096);
  });

  test('that cannot be read rejects with its error once no read is under way', async () => {
    const device = new BytesDevice(sample(), { failAt: 2 * MiB, told: false });
    await expect(digestDevice(device)).rejects.toThrow(CorruptStoreError);
    expect(device.pending).toBe(0);
  });
});
