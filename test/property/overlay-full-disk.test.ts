import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/core/device.ts';
import { type Log, silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE, KiB, MiB } from '../../src/core/units.ts';
import { DirectoryOverlays, openLogDevice } from '../../src/device/directory-overlays.ts';
import { nodeFileSystem } from '../../src/device/file-system.ts';
import { FORMAT_VERSION } from '../../src/device/log-format.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import { spillDirectory } from '../../src/device/spill-file.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { firstDifference } from '../support/overlay-model.ts';
import { seededRandom } from '../support/overlay-random.ts';
import { requires } from '../support/requires.ts';

const need = requires('mount', 'flock');
const mountPoint = mkdtempSync(join(tmpdir(), 'overlay-full-'));
const identity = { snapshotId: '56'.repeat(32), path: '/', layout: {} };
const identityOfLog = {
  formatVersion: FORMAT_VERSION,
  overlayId: '00000000000000ae',
  exportKey: 'dead',
  createdMs: 0,
  identity,
};
const SIZE = 16 * MiB;

describe.skipIf(need.missing)(need.title('on a file system of 4 MiB'), () => {
  beforeAll(() => execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mountPoint]));
  afterAll(() => {
    execFileSync('umount', [mountPoint]);
    rmSync(mountPoint, { recursive: true });
  });

  /** Writes 64 KiB pieces until one is refused; the bytes that were taken are in `content`. */
  async function fill(device: BlockDevice, content: Buffer): Promise<unknown> {
    const random = seededRandom(8);
    for (let offset = 0; offset < SIZE; offset += 65_536) {
      const data = random.fill(Buffer.alloc(65_536));
      try {
        await device.write(offset, data, { fua: false });
      } catch (error) {
        return error;
      }
      data.copy(content, offset);
    }
    return undefined;
  }

  it('a directory overlay refuses what has no room, keeps the rest, and goes on when there is room', async () => {
    const content = Buffer.alloc(SIZE, 9);
    const base = Buffer.from(content);
    const ballast = join(mountPoint, 'ballast');
    writeFileSync(ballast, Buffer.alloc(1 * MiB));
    const directory = join(mountPoint, 'overlays');
    let overlays = await DirectoryOverlays.open(directory);
    let device = await overlays.openDevice('one', new MemoryDevice(base), identity);
    expect(await fill(device, content)).toMatchObject({ code: 'OVERLAY', reason: 'full' });
    await device.flush();
    expect(await firstDifference(device, content)).toBe(undefined);
    rmSync(ballast);
    const data = Buffer.alloc(3 * BLOCK_SIZE + 5, 0xab);
    await device.write(12 * MiB + 77, data, { fua: true });
    data.copy(content, 12 * MiB + 77);
    await overlays.close();

    overlays = await DirectoryOverlays.open(directory);
    device = await overlays.openDevice('one', new MemoryDevice(base), identity);
    expect(device.readOnlyReason).toBe(undefined);
    expect(await firstDifference(device, content)).toBe(undefined);
    await overlays.close();
    rmSync(directory, { recursive: true });
  });

  it('a directory overlay gives dead segments back when the disk is full, also if nobody flushes', async () => {
    const directory = join(mountPoint, 'dead');
    mkdirSync(directory);
    const about = { ...identityOfLog, sizeBytes: SIZE };
    const options = { fileSystem: nodeFileSystem, log: silentLog, segmentBytes: 256 * KiB, retryDelayMs: 2 };
    const base = new MemoryDevice(SIZE);
    const device = await openLogDevice(directory, about, base, { ...options, onFull: 'pause' });
    const random = seededRandom(9);
    for (let write = 0; write < 160; write++) {
      await device.write((write % 4) * 65_536, random.fill(Buffer.alloc(65_536)), { fua: false });
    }
    await device.close();
    rmSync(directory, { recursive: true });
  });

  it('a memory overlay refuses what has no room in its temporary file, and keeps the rest', async () => {
    const content = Buffer.alloc(SIZE, 9);
    const device = await openMemoryOverlay(new MemoryDevice(Buffer.from(content)), {
      memoryLimitBytes: 1 * MiB,
      tempDir: mountPoint,
    });
    expect(await fill(device, content)).toMatchObject({ code: 'OVERLAY', reason: 'full' });
    await device.trim({ offset: 0, length: 2 * MiB }, { fua: false });
    content.fill(0, 0, 2 * MiB);
    const data = Buffer.alloc(65_536, 0xcd);
    await device.write(14 * MiB, data, { fua: false });
    data.copy(content, 14 * MiB);
    // The refused write may have landed in part: no promise about its bytes.
    const taken = content.subarray(0, content.indexOf(Buffer.alloc(4096, 9)));
    expect(await firstDifference(device, taken)).toBe(undefined);
    await device.close();
    expect(readdirSync(mountPoint)).toEqual([]);
  });

  it('the directory for temporary files is warned of where it is kept in memory, and never chosen by default', async () => {
    const warnings: string[] = [];
    const log: Log = { debug() {}, info() {}, warn: (_, message) => warnings.push(message), error() {} };
    expect(await spillDirectory(mountPoint, log)).toBe(mountPoint);
    expect(warnings).toHaveLength(1);
    const before = process.env.TMPDIR;
    process.env.TMPDIR = mountPoint;
    try {
      expect(await spillDirectory(undefined, log)).toBe('/var/tmp');
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
  });
});

describe('a directory for temporary files that is none', () => {
  it('is refused', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'overlay-none-'));
    mkdirSync(join(folder, 'empty'));
    const missing = openMemoryOverlay(new MemoryDevice(BLOCK_SIZE), { tempDir: join(folder, 'missing') });
    await expect(missing).rejects.toMatchObject({ code: 'USER', exitCode: 64 });
    rmSync(folder, { recursive: true });
  });
});
