import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE, KiB, MiB } from '../../src/core/units.ts';
import { openLogDevice } from '../../src/device/directory-overlays.ts';
import { nodeFileSystem, type OverlayFileSystem } from '../../src/device/file-system.ts';
import { FORMAT_VERSION } from '../../src/device/log-format.ts';
import type { OverlayDevice } from '../../src/device/overlay.ts';
import type { SpaceOptions } from '../../src/device/space-gate.ts';
import { SpaceLimit } from '../../src/device/space-limit.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { firstDifference } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

const directory = mkdtempSync(join(tmpdir(), 'overlay-space-'));
afterAll(() => rmSync(directory, { recursive: true }));
const SIZE = 16 * MiB;
const segmentBytes = 1 * MiB;
const metadata = {
  formatVersion: FORMAT_VERSION,
  overlayId: '00000000000000aa',
  exportKey: 'space',
  sizeBytes: SIZE,
  createdMs: 0,
  identity: { snapshotId: '', path: '/', layout: {} },
};
const open = () =>
  openLogDevice(directory, metadata, new MemoryDevice(SIZE), {
    fileSystem: nodeFileSystem,
    log: silentLog,
    segmentBytes,
  });
const bytesIn = (folder: string) =>
  readdirSync(folder).reduce((bytes, name) => bytes + statSync(join(folder, name)).size, 0);
const bytesOnDisk = () => bytesIn(directory);

/** The compactor works behind the requests: waits until the files no longer change. */
async function settled(device: OverlayDevice, bytes = bytesOnDisk): Promise<void> {
  for (let before = -1; before !== bytes(); ) {
    before = bytes();
    await device.flush();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const PIECE = 64 * KiB;

/** An overlay in a directory of its own, with its fdatasyncs counted. */
async function openCounted(space: SpaceOptions) {
  const folder = mkdtempSync(join(tmpdir(), 'overlay-counted-'));
  let syncs = 0;
  const fileSystem: OverlayFileSystem = {
    ...nodeFileSystem,
    async open(path, access) {
      const file = await nodeFileSystem.open(path, access);
      const sync = () => {
        syncs++;
        return file.sync();
      };
      return { ...file, sync };
    },
  };
  const about = { ...metadata, overlayId: '00000000000000ad' };
  const device = await openLogDevice(folder, about, new MemoryDevice(SIZE), {
    ...space,
    fileSystem,
    log: silentLog,
    segmentBytes,
  });
  const remove = async () => {
    await device.close();
    rmSync(folder, { recursive: true });
  };
  return { device, bytes: () => bytesIn(folder), syncs: () => syncs, remove };
}

/** Writes other bytes to the same mebibyte with each call, a piece at a time. */
function overwriter(device: OverlayDevice): () => Promise<void> {
  const data = Buffer.alloc(PIECE);
  let writes = 0;
  return () => {
    for (let at = 0; at < PIECE; at += BLOCK_SIZE) data.writeUInt32LE(writes + 1, at);
    return device.write((writes++ * PIECE) % MiB, data, { fua: false });
  };
}

describe('the space of a directory overlay', () => {
  const seed = runSeed();
  it(`comes back when blocks are overwritten, and moving costs little (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    let device = await open();
    const content = Buffer.alloc(SIZE);
    const data = Buffer.alloc(64 * KiB);
    for (let write = 0; write < 1600; write++) {
      // Four fifths of the writes go to one eighth of the pieces, as a database's do.
      const piece = random.chance(0.8) ? random.below(8) : random.below(64);
      for (let at = 0; at < data.length; at += BLOCK_SIZE) data.writeUInt32LE(write * 16 + 1, at);
      await device.write(piece * data.length, data, { fua: write % 8 === 0 });
      data.copy(content, piece * data.length);
    }
    await settled(device);
    const { acknowledgedBytes, writtenBytes, storedBytes } = device.stats();
    expect(acknowledgedBytes).toBeGreaterThan(60 * MiB);
    expect(writtenBytes / acknowledgedBytes).toBeLessThanOrEqual(1.3);
    expect(writtenBytes, 'blocks were moved').toBeGreaterThan(acknowledgedBytes * 1.05);
    expect(storedBytes, 'for 4 MiB').toBeLessThan(14 * MiB);
    expect(bytesOnDisk()).toBeLessThan(15 * MiB);
    expect(await firstDifference(device, content)).toBe(undefined);
    await device.close();
    device = await open();
    expect(device.readOnlyReason).toBe(undefined);
    expect(await firstDifference(device, content)).toBe(undefined);

    await device.trim({ offset: 0, length: SIZE }, { fua: true });
    await settled(device);
    expect(bytesOnDisk(), 'trimmed as a whole').toBeLessThan(64 * KiB);
    await device.close();
    device = await open();
    expect(await firstDifference(device, Buffer.alloc(SIZE))).toBe(undefined);
    await device.close();
  });

  it('comes back without a FLUSH, too, but no fdatasync is spent on a little of it', async () => {
    const { device, bytes, syncs, remove } = await openCounted({});
    const overwrite = overwriter(device);
    for (let written = 0; written < 6 * MiB; written += PIECE) await overwrite();
    expect(syncs()).toBe(0);
    expect(bytes()).toBeGreaterThan(6 * MiB);
    for (let written = 0; written < 12 * MiB; written += PIECE) await overwrite();
    await vi.waitFor(() => expect(bytes()).toBeLessThan(9 * MiB), 10_000);
    expect(syncs()).toBeGreaterThan(0);
    const settle = async () => {
      await device.flush();
      expect(bytes()).toBeLessThan(3 * MiB);
    };
    await vi.waitFor(settle, 10_000);
    await remove();
  });

  it('comes back before a limit is reached, also if nobody flushes', async () => {
    const limit = 8 * MiB;
    const overlayLimit = new SpaceLimit(limit);
    const { device, remove } = await openCounted({ overlayLimit, onFull: 'fail' });
    const overwrite = overwriter(device);
    for (let written = 0; written < 24 * MiB; written += PIECE) {
      await overwrite();
      while (device.stats().storedBytes > 0.85 * limit) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await remove();
  });

  it('a block of zeroes and a zeroed range of any length cost an index record', async () => {
    const device = await open();
    const before = device.stats().writtenBytes;
    await device.write(8 * BLOCK_SIZE, Buffer.alloc(1 * MiB), { fua: false });
    await device.writeZeroes({ offset: 0, length: SIZE }, { fua: false, mayTrim: false });
    await device.trim({ offset: 0, length: SIZE }, { fua: true });
    // The head of the new segment, and three records.
    expect(device.stats().writtenBytes - before).toBeLessThanOrEqual(5 * 128);
    await device.close();
  });

  it('writing back what the base has in memory costs nothing, as long as nothing else was written there', async () => {
    const backDirectory = mkdtempSync(join(tmpdir(), 'overlay-back-'));
    const content = seededRandom(seed).fill(Buffer.alloc(64 * BLOCK_SIZE));
    const base = {
      sizeBytes: content.length,
      read: async (offset: number, target: Uint8Array) => void content.copy(target, 0, offset),
      // What lies in the upper half is not in memory.
      readNow(offset: number, target: Uint8Array) {
        if (offset + target.length > content.length / 2) return false;
        content.copy(target, 0, offset);
        return true;
      },
      close: async () => {},
    };
    const about = { ...metadata, overlayId: '00000000000000ac', sizeBytes: content.length };
    const device = await openLogDevice(backDirectory, about, base, { fileSystem: nodeFileSystem, log: silentLog });
    await device.write(0, content.subarray(0, 20 * BLOCK_SIZE), { fua: true });
    expect(device.stats()).toMatchObject({ writtenBytes: 0, dirtyBytes: 0 });
    // One block of twenty differs, and back again: now the overlay has it.
    const changed = Buffer.from(content.subarray(0, 20 * BLOCK_SIZE));
    changed[7 * BLOCK_SIZE + 5]! ^= 1;
    await device.write(0, changed, { fua: true });
    expect(device.stats().dirtyBytes).toBe(BLOCK_SIZE);
    await device.write(0, content.subarray(0, 20 * BLOCK_SIZE), { fua: true });
    expect(await firstDifference(device, content)).toBe(undefined);
    await device.trim({ offset: 10 * BLOCK_SIZE, length: BLOCK_SIZE }, { fua: true });
    await device.write(10 * BLOCK_SIZE, content.subarray(10 * BLOCK_SIZE, 11 * BLOCK_SIZE), { fua: true });
    await device.write(40 * BLOCK_SIZE, content.subarray(40 * BLOCK_SIZE, 41 * BLOCK_SIZE), { fua: true });
    expect(device.stats().dirtyBytes, 'not compared, so kept').toBe(3 * BLOCK_SIZE);
    expect(await firstDifference(device, content)).toBe(undefined);
    await device.close();
    rmSync(backDirectory, { recursive: true });
  });

  it('writing what is there costs nothing, and no block of the base is read for it', async () => {
    const equalDirectory = mkdtempSync(join(tmpdir(), 'overlay-equal-'));
    const content = seededRandom(seed).fill(Buffer.alloc(64 * BLOCK_SIZE));
    let baseReads = 0;
    const base = new MemoryDevice(Buffer.from(content));
    const counted = {
      sizeBytes: content.length,
      close: () => base.close(),
      read(offset: number, target: Uint8Array) {
        baseReads++;
        return base.read(offset, target);
      },
    };
    const about = { ...metadata, overlayId: '00000000000000ab', sizeBytes: content.length };
    const options = { fileSystem: nodeFileSystem, log: silentLog, segmentBytes };
    const device = await openLogDevice(equalDirectory, about, counted, options);
    const written = () => device.stats().writtenBytes;

    // Part of a block: it has to be read anyway, and stays clean.
    await device.write(5 * BLOCK_SIZE + 3, content.subarray(5 * BLOCK_SIZE + 3, 5 * BLOCK_SIZE + 700), { fua: true });
    expect(written()).toBe(0);
    expect(baseReads).toBe(1);

    const data = seededRandom(seed + 1).fill(Buffer.alloc(8 * BLOCK_SIZE));
    await device.write(10 * BLOCK_SIZE, data, { fua: true });
    const before = written();
    await device.write(10 * BLOCK_SIZE, data, { fua: true });
    await device.write(12 * BLOCK_SIZE + 9, data.subarray(2 * BLOCK_SIZE + 9, 5 * BLOCK_SIZE), { fua: true });
    expect(written() - before, 'at most a MARK').toBeLessThanOrEqual(64);

    // One block of eight differs: it alone is written.
    data[3 * BLOCK_SIZE + 1]! ^= 1;
    await device.write(10 * BLOCK_SIZE, data, { fua: true });
    expect(written() - before).toBeLessThan(2 * BLOCK_SIZE);
    data.copy(content, 10 * BLOCK_SIZE);

    await device.trim({ offset: 40 * BLOCK_SIZE, length: 8 * BLOCK_SIZE }, { fua: true });
    const trimmed = written();
    await device.writeZeroes({ offset: 41 * BLOCK_SIZE, length: BLOCK_SIZE }, { fua: true, mayTrim: true });
    await device.write(42 * BLOCK_SIZE + 1, Buffer.alloc(99), { fua: true });
    expect(written() - trimmed, 'at most the MARK of the flush before').toBeLessThanOrEqual(64);
    content.fill(0, 40 * BLOCK_SIZE, 48 * BLOCK_SIZE);
    expect(baseReads).toBe(1);
    expect(await firstDifference(device, content)).toBe(undefined);
    await device.close();
    const again = await openLogDevice(equalDirectory, about, counted, options);
    expect(await firstDifference(again, content)).toBe(undefined);
    await again.close();
    rmSync(equalDirectory, { recursive: true });
  });
});
