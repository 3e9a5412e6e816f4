import { describe, expect, test, vi } from 'vitest';
import { CorruptStoreError } from '../../../src/core/errors.ts';
import type { ContentReader } from '../../../src/core/snapshot-tree.ts';
import { BLOCK_SIZE, MiB } from '../../../src/core/units.ts';
import { Ext4Image } from '../../../src/ext4/image.ts';
import { planLayout } from '../../../src/ext4/plan.ts';
import { compareDevice, expectTree } from '../../support/ext4-expect.ts';
import { contentByte, directory, file, makeTree, PatternContent, symlink } from '../../support/ext4-tree.ts';

const identity = { snapshotId: '17'.repeat(32), createdSeconds: 1_750_000_000 };
const request = { free: { bytes: 8 * MiB }, journalBlocks: 1024 };
const tree = makeTree(
  directory([
    ['a', file(10_000)],
    ['b', file(4096)],
    ['c', file(1)],
    ['empty', file(0)],
    ['link', symlink('x'.repeat(100))],
  ]),
);
const [a, b, c] = [1, 2, 3] as const;

function open(content: ContentReader = new PatternContent(tree)) {
  return new Ext4Image(planLayout(tree, request, identity), content);
}

/** Byte offset of a file's data on the device: these files are contiguous. */
function place({ layout }: Ext4Image, entry: number): number {
  return layout.geometry.map.toPhysical(layout.geometry.files + layout.fileStarts[entry]!) * BLOCK_SIZE;
}

async function bytes(image: Ext4Image, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xaa);
  await image.read(offset, target);
  return target;
}

describe('reading', () => {
  test('any offset and length gives the same bytes as whole blocks', async () => {
    const image = open();
    const start = place(image, a) - 3 * BLOCK_SIZE;
    const whole = await bytes(image, start, 12 * BLOCK_SIZE);
    for (const [offset, length] of [
      [0, 0],
      [1, 1],
      [4095, 2],
      [5000, 20_000],
      [3 * BLOCK_SIZE - 1, 10_002],
      [4097, 11 * BLOCK_SIZE - 4097],
    ] as const) {
      expect(await bytes(image, start + offset, length)).toEqual(whole.slice(offset, offset + length));
    }
  });

  test('readNow gives the same bytes if all content is in memory, and says so if not', async () => {
    const pattern = new PatternContent(tree);
    const missing = new Set<number>();
    const image = open({
      read: (entry, offset, target) => pattern.read(entry, offset, target),
      readNow(entry, offset, target) {
        target.forEach((_, i) => {
          target[i] = contentByte(entry, offset + i);
        });
        return !missing.has(entry);
      },
    });
    const start = place(image, a) - 3 * BLOCK_SIZE;
    const whole = await bytes(image, start, 12 * BLOCK_SIZE);
    for (const [offset, length] of [
      [0, 12 * BLOCK_SIZE],
      [4095, 2],
      [3 * BLOCK_SIZE - 1, 10_002],
    ] as const) {
      const target = new Uint8Array(length).fill(0xaa);
      expect(image.readNow(start + offset, target)).toBe(true);
      expect(target).toEqual(whole.slice(offset, offset + length));
    }
    missing.add(b);
    expect(image.readNow(start, new Uint8Array(12 * BLOCK_SIZE))).toBe(false);
    expect(image.readNow(start, new Uint8Array(4 * BLOCK_SIZE))).toBe(true);
    expect(open().readNow(start, new Uint8Array(1))).toBe(false);
  });

  test('a run of one file is one read, cut at the end of the file; behind it are zeroes', async () => {
    const content = new PatternContent(tree);
    const image = open(content);
    const read = await bytes(image, place(image, a) + 100, 5 * BLOCK_SIZE - 100);
    expect(content.reads).toEqual([
      { entry: a, offset: 100, length: 9900 },
      { entry: b, offset: 0, length: 4096 },
      { entry: c, offset: 0, length: 1 },
    ]);
    expect(read[0]).toBe(contentByte(a, 100));
    expect(read.slice(9900, 3 * BLOCK_SIZE - 100)).toEqual(new Uint8Array(3 * BLOCK_SIZE - 10_000));
    expect(read.at(-1)).toBe(0);
  });

  test('only the zeroes behind a file: no read at all', async () => {
    const content = new PatternContent(tree);
    const image = open(content);
    expect(await bytes(image, place(image, c) + 1, 4095)).toEqual(new Uint8Array(4095));
    expect(content.reads).toEqual([]);
  });

  test('pieces of a request run together', async () => {
    let underWay = 0;
    let most = 0;
    const image = open({
      async read() {
        most = Math.max(most, ++underWay);
        await new Promise((resolve) => setImmediate(resolve));
        underWay--;
      },
    });
    await bytes(image, place(image, a), 5 * BLOCK_SIZE);
    expect(most).toBe(3);
  });

  test('a failure is passed on once nothing writes to the target any more', async () => {
    const order: string[] = [];
    const image = open({
      async read(entry) {
        if (entry === a) throw new CorruptStoreError('chunk 3 is damaged');
        await new Promise((resolve) => setTimeout(resolve, 5));
        order.push(`entry ${entry}`);
      },
    });
    await expect(bytes(image, place(image, a), 5 * BLOCK_SIZE)).rejects.toThrow('chunk 3 is damaged');
    order.push('rejected');
    expect(order).toEqual(['entry 2', 'entry 3', 'rejected']);
  });

  test('outside the device, or after close, it is a bug', async () => {
    const image = open();
    await expect(bytes(image, image.sizeBytes - 1, 2)).rejects.toThrow('on the device');
    await image.close();
    await image.close();
    await expect(bytes(image, 0, 1)).rejects.toThrow('open');
  });

  test('close waits for what is in flight', async () => {
    let settle = () => {};
    const image = open({ read: () => new Promise<void>((resolve) => (settle = resolve)) });
    const reading = bytes(image, place(image, c), 1);
    let closed = false;
    const closing = image.close().then(() => {
      closed = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(closed).toBe(false);
    settle();
    await Promise.all([reading, closing]);
  });
});

describe('what a block is', () => {
  test('names kind, file and place in it', () => {
    const image = open();
    const { geometry } = image.layout;
    expect(image.describe(0)).toEqual({ kind: 'superblock', blocks: 1 });
    expect(image.describe(1)).toMatchObject({ kind: 'group-descriptors' });
    expect(image.describe(geometry.map.toPhysical(geometry.metadata))).toEqual({
      kind: 'directory',
      entry: 0,
      offsetBytes: 0,
      blocks: 1,
    });
    expect(image.describe(geometry.map.toPhysical(geometry.metadata + 1))).toMatchObject({ kind: 'symlink', entry: 5 });
    expect(image.describe(place(image, a) / BLOCK_SIZE + 1)).toEqual({
      kind: 'file',
      entry: a,
      offsetBytes: 4096,
      blocks: 2,
    });
    expect(image.describe(place(image, c) / BLOCK_SIZE)).toMatchObject({ kind: 'file', entry: c });
    expect(image.describe(place(image, c) / BLOCK_SIZE + 1)).toMatchObject({ kind: 'free' });
  });

  test('every block: runs join without gap, and those said to be zero are', async () => {
    const image = open();
    for (let block = 0; block < image.sizeBytes / BLOCK_SIZE; ) {
      const { blocks } = image.describe(block);
      expect(blocks).toBeGreaterThan(0);
      block += blocks;
    }
    let next = 0;
    for (const extent of image.extents({ offset: 0, length: image.sizeBytes })) {
      expect(extent.offset).toBe(next);
      next += extent.length;
      if (extent.zero)
        expect((await bytes(image, extent.offset, extent.length)).every((byte) => byte === 0)).toBe(true);
    }
    expect(next).toBe(image.sizeBytes);
  });

  test('extents keep to the range asked for', () => {
    const image = open();
    const start = place(image, c);
    expect([...image.extents({ offset: start + 10, length: 5000 })]).toEqual([
      { offset: start + 10, length: 4086, zero: false },
      { offset: start + 4096, length: 914, zero: true },
    ]);
    expect([...image.extents({ offset: start, length: 0 })]).toEqual([]);
  });
});

describe('the comparer', () => {
  test('finds nothing in the image itself', async () => {
    expect(await compareDevice(open(), expectTree(tree))).toEqual([]);
  });

  test.each([
    ['a byte of a file', (image: Ext4Image) => place(image, a) + 9999, /^a: byte 9999/],
    ['a name', (image: Ext4Image) => directoryOffset(image) + 24 + 3 * 12 + 8 + 1, /missing/],
    [
      'the target of a symlink',
      (image: Ext4Image) => directoryOffset(image) + BLOCK_SIZE + 50,
      /^link: another target/,
    ],
    ['a permission bit', (image: Ext4Image) => tableOffset(image) + 11 * 256, /^a: mode/],
  ])('finds one bit flipped in %s', async (_, offsetIn, complaint) => {
    const image = open();
    const flipped = offsetIn(image);
    const device = {
      async read(offset: number, target: Uint8Array) {
        await image.read(offset, target);
        if (flipped >= offset && flipped < offset + target.length) target[flipped - offset]! ^= 1;
      },
    };
    expect((await compareDevice(device, expectTree(tree))).join('\n')).toMatch(complaint);
  });
});

function directoryOffset({ layout: { geometry } }: Ext4Image): number {
  return geometry.map.toPhysical(geometry.metadata) * BLOCK_SIZE;
}

function tableOffset({ layout: { geometry } }: Ext4Image): number {
  return geometry.map.toPhysical(geometry.tables) * BLOCK_SIZE;
}

describe('a directory so large that hashing it takes long', () => {
  const many = makeTree(
    directory([
      ['a', file(10_000)],
      ['many', directory(Array.from({ length: 100_000 }, (_, i) => [`name ${i}`, file()] as const))],
    ]),
  );
  const openMany = () => new Ext4Image(planLayout(many, request, identity), new PatternContent(many));
  const firstBlockOf = ({ layout }: Ext4Image, entry: number) =>
    layout.geometry.map.toPhysical(layout.geometry.metadata + layout.metadataStarts[entry]!) * BLOCK_SIZE;

  test('keeps nobody waiting', async () => {
    const image = openMany();
    const done: string[] = [];
    const slow = bytes(image, firstBlockOf(image, 2), BLOCK_SIZE).then(() => done.push('directory'));
    const quick = bytes(image, place(image, 1), BLOCK_SIZE).then(() => done.push('file'));
    await Promise.all([slow, quick]);
    expect(done).toEqual(['file', 'directory']);
  });

  test('is hashed once for all who ask at a time, and again only when it was forgotten', async () => {
    const image = openMany();
    const asked = vi.spyOn(image.layout, 'namesOf');
    const start = firstBlockOf(image, 2);
    const alone = await bytes(openMany(), start + 8 * BLOCK_SIZE, 3 * BLOCK_SIZE);
    const [first, second] = await Promise.all([
      bytes(image, start + 8 * BLOCK_SIZE, 2 * BLOCK_SIZE),
      bytes(image, start + 10 * BLOCK_SIZE, BLOCK_SIZE),
    ]);
    expect(Buffer.concat([first, second])).toEqual(Buffer.from(alone));
    await bytes(image, start + 20 * BLOCK_SIZE, 5 * BLOCK_SIZE);
    expect(asked).toHaveBeenCalledTimes(1);
  });

  test('is waited for by close', async () => {
    const image = openMany();
    const target = new Uint8Array(5000).fill(0xaa);
    const reading = image.read(firstBlockOf(image, 2) + BLOCK_SIZE, target);
    await image.close();
    expect(target).toEqual(await bytes(openMany(), firstBlockOf(image, 2) + BLOCK_SIZE, 5000));
    await reading;
  });
});
