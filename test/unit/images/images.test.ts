/** Disk images: read back by a reader of our own, which believes nothing, and by qemu-img. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { DeviceExtent } from '../../../src/core/export-device.ts';
import { BLOCK_SIZE, KiB, MiB } from '../../../src/core/units.ts';
import { createImageFile, streamSink } from '../../../src/images/image-sink.ts';
import type { ImageSource } from '../../../src/images/image-source.ts';
import { CLUSTER_BYTES, layoutOf } from '../../../src/images/qcow2-format.ts';
import { type Qcow2Options, writeQcow2Image } from '../../../src/images/qcow2-image.ts';
import { writeRawImage } from '../../../src/images/raw-image.ts';
import { mustRun } from '../../support/cli.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { type Random, runSeed, seededRandom } from '../../support/overlay-random.ts';
import { commandPath, requires } from '../../support/requires.ts';

const cleanup = cleanupAfterEach();

interface Disk {
  readonly source: ImageSource;
  readonly content: Buffer;
  /** What it was before the dirty blocks were written. */
  readonly base: Buffer;
}

/** Runs of blocks: data, zeroes, and data that happens to be zeroes, some of each written since. */
function randomDisk(random: Random, blocks: number): Disk {
  const content = Buffer.alloc(blocks * BLOCK_SIZE);
  const base = Buffer.alloc(blocks * BLOCK_SIZE);
  const extents: DeviceExtent[] = [];
  for (let block = 0; block < blocks; ) {
    const count = Math.min(blocks - block, random.chance(0.3) ? 1 + random.below(200) : 1 + random.below(20));
    const zero = random.chance(0.4);
    const dirty = random.chance(0.3);
    const part = (disk: Buffer) => disk.subarray(block * BLOCK_SIZE, (block + count) * BLOCK_SIZE);
    if (!zero && random.chance(0.8)) random.fill(part(content));
    if (dirty) random.fill(part(base));
    else part(content).copy(part(base));
    extents.push({ length: count * BLOCK_SIZE, zero, hole: zero, dirty });
    block += count;
  }
  return { source: sourceOf(content, extents), content, base };
}

function sourceOf(content: Buffer, extents: readonly DeviceExtent[]): ImageSource {
  return {
    sizeBytes: content.length,
    async read(offset, target) {
      await new Promise((resolve) => setImmediate(resolve));
      expect(offset + target.length).toBeLessThanOrEqual(content.length);
      target.set(content.subarray(offset, offset + target.length));
    },
    async status({ offset }, { extentsMax }) {
      const found: DeviceExtent[] = [];
      let at = 0;
      for (const extent of extents) {
        const end = at + extent.length;
        if (end > offset && found.length < Math.min(extentsMax, 7))
          found.push({ ...extent, length: end - Math.max(at, offset) });
        at = end;
      }
      return found;
    },
  };
}

/** Reads a qcow2 image, and checks that every cluster of the file is used as often as it is counted. */
function readQcow2(image: Buffer, base: Buffer | undefined): Buffer {
  expect([image.readUInt32BE(0), image.readUInt32BE(4), image.readUInt32BE(20)]).toEqual([0x514649fb, 3, 16]);
  const size = Number(image.readBigUInt64BE(24));
  const uses = new Array<number>(image.length / CLUSTER_BYTES).fill(0);
  expect(image.length % CLUSTER_BYTES).toBe(0);
  const use = (offset: number, clusters = 1) => {
    for (let i = 0; i < clusters; i++) uses[offset / CLUSTER_BYTES + i]!++;
    return offset;
  };
  use(0);
  const l1Entries = image.readUInt32BE(36);
  const l1 = use(Number(image.readBigUInt64BE(40)), Math.max(1, Math.ceil((l1Entries * 8) / CLUSTER_BYTES)));
  const content = Buffer.alloc(Math.ceil(size / CLUSTER_BYTES) * CLUSTER_BYTES);
  base?.copy(content);
  const offsetOf = (entry: bigint) => Number(entry & 0x00fffffffffffe00n);
  for (let cluster = 0; cluster * CLUSTER_BYTES < size; cluster++) {
    const table = image.readBigUInt64BE(l1 + Math.floor(cluster / 8192) * 8);
    if (table === 0n) continue;
    expect(table >> 63n).toBe(1n);
    if (cluster % 8192 === 0) use(offsetOf(table));
    const entry = image.readBigUInt64BE(offsetOf(table) + (cluster % 8192) * 8);
    const here = content.subarray(cluster * CLUSTER_BYTES, (cluster + 1) * CLUSTER_BYTES);
    if ((entry & 1n) === 1n) here.fill(0);
    else if (entry !== 0n) image.copy(here, 0, use(offsetOf(entry)), offsetOf(entry) + CLUSTER_BYTES);
  }
  const tableOffset = Number(image.readBigUInt64BE(48));
  use(tableOffset, image.readUInt32BE(56));
  for (let i = 0; i < uses.length; i += 32768) use(Number(image.readBigUInt64BE(tableOffset + (i / 32768) * 8)));
  uses.forEach((count, i) => {
    const block = Number(image.readBigUInt64BE(tableOffset + Math.floor(i / 32768) * 8));
    expect(image.readUInt16BE(block + (i % 32768) * 2), `cluster ${i}`).toBe(count);
    expect(count, `cluster ${i}`).toBe(1);
  });
  return content.subarray(0, size);
}

type Writer = (
  source: ImageSource,
  sink: Parameters<typeof writeRawImage>[1],
  onProgress: (bytes: number) => void,
) => Promise<void>;
const raw: Writer = writeRawImage;
const qcow2 =
  (options: Partial<Qcow2Options> = {}): Writer =>
  (source, sink, onProgress) =>
    writeQcow2Image(source, sink, { ...options, onProgress });

async function toFile(disk: Disk, write: Writer, path = join(temporaryFolder(cleanup), 'image')): Promise<string> {
  const file = await createImageFile(path, { replace: false });
  let told = 0;
  await write(disk.source, file.sink, (bytes) => {
    told += bytes;
  });
  expect(told).toBe(disk.content.length);
  await file.finish();
  return path;
}

async function toPipe(disk: Disk, write: Writer): Promise<Buffer> {
  const stream = new PassThrough();
  const pieces: Buffer[] = [];
  stream.on('data', (piece) => pieces.push(piece));
  await write(disk.source, streamSink(stream), () => {});
  stream.end();
  await new Promise((resolve) => stream.once('end', resolve));
  return Buffer.concat(pieces);
}

const seed = runSeed();
describe(`images (seed ${seed})`, () => {
  it('raw: are the disk, zeroes as holes', async () => {
    for (let round = 0; round < 4; round++) {
      const disk = randomDisk(seededRandom(seed + round), 1 + seededRandom(seed + round).below(3000));
      const path = await toFile(disk, raw);
      expect(readFileSync(path).equals(disk.content)).toBe(true);
      expect((await toPipe(disk, raw)).equals(disk.content)).toBe(true);
    }
    const empty = {
      source: sourceOf(Buffer.alloc(8 * MiB), [{ length: 8 * MiB, zero: true, hole: true, dirty: false }]),
    };
    const path = await toFile({ ...empty, content: Buffer.alloc(8 * MiB), base: Buffer.alloc(0) }, raw);
    expect((await stat(path)).blocks * 512).toBeLessThan(64 * KiB);
  });

  it('qcow2: are the disk, every cluster counted once, to a file and to a pipe', async () => {
    for (let round = 0; round < 4; round++) {
      const disk = randomDisk(seededRandom(seed + round), 1 + seededRandom(seed + round).below(3000));
      const image = readFileSync(await toFile(disk, qcow2()));
      expect(readQcow2(image, undefined).equals(disk.content)).toBe(true);
      expect(readQcow2(await toPipe(disk, qcow2()), undefined).equals(disk.content)).toBe(true);
    }
  });

  it('qcow2 with the delta only: are the disk over its base', async () => {
    for (let round = 0; round < 4; round++) {
      const disk = randomDisk(seededRandom(seed + round), 1 + seededRandom(seed + round).below(3000));
      const image = readFileSync(await toFile(disk, qcow2({ backing: 'base.raw' })));
      expect(readQcow2(image, disk.base).equals(disk.content)).toBe(true);
      expect(image.toString('latin1', 128, 136)).toBe('base.raw');
      expect(readQcow2(await toPipe(disk, qcow2({ backing: 'base.raw' })), disk.base).equals(disk.content)).toBe(true);
      const untouched = {
        ...disk,
        source: {
          ...disk.source,
          status: async () => [{ length: disk.content.length, zero: false, hole: false, dirty: false }],
        },
      };
      expect(readFileSync(await toFile(untouched, qcow2({ backing: 'b' }))).length).toBe(4 * CLUSTER_BYTES);
    }
  });

  it('qcow2: have tables for more than one L2 table and one refcount block', () => {
    const layout = layoutOf(20 * 2 ** 40, 5_000_000);
    expect(layout.l1Entries).toBe(40960);
    expect(layout.l1).toBe(5);
    const total = layout.front + layout.l1 + layout.refcountTable + layout.refcountBlocks;
    expect(layout.refcountBlocks).toBe(Math.ceil(total / 32768));
    expect(layout.refcountTable).toBe(Math.ceil((layout.refcountBlocks * 8) / CLUSTER_BYTES));
  });

  it('qcow2: refuse a name of a backing file that does not fit', async () => {
    const disk = randomDisk(seededRandom(seed), 4);
    const backing = 'x'.repeat(1024);
    await expect(toPipe(disk, qcow2({ backing }))).rejects.toThrow(/1023/);
  });
});

describe('the file of an image', () => {
  it('is there when it is whole, and never replaces another without being told', async () => {
    const folder = temporaryFolder(cleanup);
    const path = join(folder, 'image');
    const disk = randomDisk(seededRandom(1), 40);
    const failing = { ...disk.source, read: () => Promise.reject(new Error('EIO of a chunk')) };
    const file = await createImageFile(path, { replace: false });
    await expect(writeRawImage(failing, file.sink, () => {})).rejects.toThrow('EIO of a chunk');
    await file.discard();
    expect(readdirSync(folder)).toEqual([]);
    const late = await createImageFile(path, { replace: false });
    await writeRawImage(disk.source, late.sink, () => {});
    writeFileSync(path, 'somebody else was quicker');
    await expect(late.finish()).rejects.toThrow(/already/);
    await late.discard();
    expect(readdirSync(folder)).toEqual(['image']);
    await expect(createImageFile(path, { replace: false })).rejects.toThrow(/already.*--force/);
    const replacing = await createImageFile(path, { replace: true });
    await writeRawImage(disk.source, replacing.sink, () => {});
    expect(readFileSync(path, 'utf8')).toBe('somebody else was quicker');
    await replacing.finish();
    expect(readFileSync(path).equals(disk.content)).toBe(true);
    mkdirSync(join(folder, 'directory'));
    await expect(createImageFile(join(folder, 'directory'), { replace: true })).rejects.toThrow(/no regular file/);
    await expect(createImageFile(join(folder, 'none', 'image'), { replace: true })).rejects.toThrow(/cannot write/);
    expect(existsSync(join(folder, 'none'))).toBe(false);
  });

  it('removes what killed processes left of the same image, and nothing else', async () => {
    const folder = temporaryFolder(cleanup);
    const ended = spawnSync('true').pid;
    const stays = [
      `disk.img.${process.ppid}.partial`,
      `other.img.${ended}.partial`,
      `disk.img.${ended}.partial.gz`,
      'disk.img.0.partial',
    ];
    const abandoned = [`disk.img.${ended}.partial`, `disk.img.${process.pid}.partial`];
    for (const name of [...stays, ...abandoned]) writeFileSync(join(folder, name), 'left');
    const file = await createImageFile(join(folder, 'disk.img'), { replace: false });
    await file.finish();
    expect(readdirSync(folder).sort()).toEqual([...stays, 'disk.img'].sort());
  });
});

const need = requires('qemu-img');
describe.skipIf(need.missing)(need.title('images, to QEMU'), () => {
  it('are sound, and the same disk', async () => {
    const random = seededRandom(seed + 99);
    // More than the 512 MiB of one L2 table, most of it empty.
    const content = Buffer.alloc(3 * MiB);
    random.fill(content);
    content.fill(0, 1 * MiB, 2 * MiB);
    const gap = 600 * MiB;
    const extents = [
      { length: content.length, zero: false, hole: false, dirty: true },
      { length: gap, zero: true, hole: true, dirty: true },
      { length: content.length, zero: false, hole: false, dirty: false },
      { length: 4 * KiB, zero: false, hole: false, dirty: true },
    ];
    const sizeBytes = 2 * content.length + gap + 4 * KiB;
    const source: ImageSource = {
      sizeBytes,
      async read(offset, target) {
        for (let i = 0; i < target.length; i++) {
          const at = offset + i;
          const inside = at < content.length ? at : at - gap - content.length;
          target[i] = content[inside % content.length]!;
        }
      },
      status: async ({ offset }) => {
        let at = 0;
        return extents.flatMap((extent) => {
          const end = at + extent.length;
          const found = end > offset ? [{ ...extent, length: end - Math.max(at, offset) }] : [];
          at = end;
          return found;
        });
      },
    };
    const disk = { source, content: { length: sizeBytes } as Buffer, base: Buffer.alloc(0) };
    const folder = temporaryFolder(cleanup);
    const qemuImg = (...args: readonly string[]) => mustRun(commandPath('qemu-img'), args, { cwd: folder });
    await toFile(disk, raw, join(folder, 'disk.raw'));
    await toFile(disk, qcow2(), join(folder, 'disk.qcow2'));
    writeFileSync(join(folder, 'pipe.qcow2'), await toPipe(disk, qcow2()));
    // A base that differs wherever the delta says so.
    const everywhere = Buffer.alloc(content.length, 0xee);
    const base = await createImageFile(join(folder, 'base.raw'), { replace: false });
    await base.sink.write(everywhere);
    await base.sink.skip(gap - content.length);
    await base.sink.write(everywhere);
    await base.sink.write(content);
    await base.sink.write(Buffer.alloc(4 * KiB, 0xee));
    await base.finish();
    await toFile(disk, qcow2({ backing: 'base.raw' }), join(folder, 'delta.qcow2'));
    for (const image of ['disk.qcow2', 'pipe.qcow2', 'delta.qcow2']) {
      expect(await qemuImg('check', image), image).toMatch(/No errors/);
      expect(await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', image, 'disk.raw'), image).toMatch(/identical/);
    }
    const info: Record<string, unknown> = JSON.parse(await qemuImg('info', '--output=json', 'delta.qcow2'));
    expect(info).toMatchObject({ 'backing-filename': 'base.raw', 'backing-filename-format': 'raw' });
    expect((await stat(join(folder, 'disk.qcow2'))).size).toBeLessThan((await stat(join(folder, 'pipe.qcow2'))).size);
  });
});
