/** WRITEs that are carried out in the turn they came in. */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MiB } from '../../../src/core/units.ts';
import { openMemoryOverlay } from '../../../src/device/memory-overlay.ts';
import type { OverlayDevice } from '../../../src/device/overlay.ts';
import { SpaceLimit } from '../../../src/device/space-limit.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { until } from '../../support/nbd-fixture.ts';
import { CrashFileSystem, systemError } from '../../support/overlay-crash-fs.ts';
import { baseContent, type CrashDeviceOptions, openCrashDevice, untilMarked } from '../../support/overlay-crash-run.ts';
import { firstDifference } from '../../support/overlay-model.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const SEGMENT_BYTES = 2 * MiB;
const AHEAD_BYTES = 1 * MiB;
const random = seededRandom(5);
const block = () => random.fill(Buffer.alloc(BLOCK_SIZE));

/** A log whose client flushes each small write, so that zeroes are written ahead. */
async function flushedLog(fileSystem: CrashFileSystem, options: CrashDeviceOptions = {}): Promise<OverlayDevice> {
  const device = await openCrashDevice(fileSystem, SEGMENT_BYTES, { aheadBytes: AHEAD_BYTES, ...options });
  await device.write(0, block(), { fua: true });
  return device;
}

const writesOf = ({ operations }: CrashFileSystem) => operations.filter(({ kind }) => kind === 'write').length;

describe.each([false, true])('a log, encrypted: %s', (encrypted) => {
  it('takes small writes at once behind one that was flushed, durable with the next FLUSH', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await flushedLog(fileSystem, { encrypted });
    const content = Buffer.from(baseContent);
    await device.read(0, content.subarray(0, BLOCK_SIZE));
    for (let at = 1; at <= 20; at++) {
      const data = block();
      const before = writesOf(fileSystem);
      expect(device.writeNow(at * BLOCK_SIZE, data), `write ${at}`).toBe(true);
      expect(writesOf(fileSystem) - before, 'one record, with its data').toBe(1);
      data.copy(content, at * BLOCK_SIZE);
      await device.flush();
      const reopened = await openCrashDevice(
        new CrashFileSystem(fileSystem.crash(fileSystem.operations.length, { mode: 'drop' })),
        SEGMENT_BYTES,
        { encrypted },
      );
      expect(await firstDifference(reopened, content)).toBe(undefined);
      await reopened.close();
    }
    await device.close();
    const reopened = await openCrashDevice(fileSystem, SEGMENT_BYTES, { encrypted });
    expect(await firstDifference(reopened, content)).toBe(undefined);
    await reopened.close();
  });

  it('writes no block again that is there', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await flushedLog(fileSystem, { encrypted });
    const page = Buffer.concat([block(), block()]);
    expect(device.writeNow(4 * BLOCK_SIZE, page)).toBe(true);
    page.fill(1, BLOCK_SIZE + 7, BLOCK_SIZE + 70);
    const { writtenBytes } = device.stats();
    expect(device.writeNow(4 * BLOCK_SIZE, page)).toBe(true);
    expect(device.stats().writtenBytes - writtenBytes).toBeLessThan(BLOCK_SIZE + 1024);
    expect(device.writeNow(4 * BLOCK_SIZE, page)).toBe(true);
    expect(device.stats().writtenBytes - writtenBytes).toBeLessThan(BLOCK_SIZE + 1024);
    const got = Buffer.alloc(page.length);
    await device.read(4 * BLOCK_SIZE, got);
    expect(got.equals(page)).toBe(true);
    await device.close();
  });

  it('leaves a write that fails to one that can wait, and loses nothing', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await flushedLog(fileSystem, { encrypted });
    const data = block();
    let failures = 1;
    fileSystem.fault = (kind, path) => (kind === 'write' && failures-- > 0 ? systemError('ENOSPC', path) : undefined);
    expect(device.writeNow(BLOCK_SIZE, data)).toBe(false);
    const there = Buffer.alloc(BLOCK_SIZE);
    await device.read(BLOCK_SIZE, there);
    expect(there.equals(baseContent.subarray(BLOCK_SIZE, 2 * BLOCK_SIZE))).toBe(true);
    await device.write(BLOCK_SIZE, data, { fua: true });
    fileSystem.fault = undefined;
    const reopened = await openCrashDevice(new CrashFileSystem(fileSystem.image()), SEGMENT_BYTES, { encrypted });
    await reopened.read(BLOCK_SIZE, there);
    expect(there.equals(data)).toBe(true);
    await reopened.close();
    await device.close();
  });
});

describe('a log says no, and writes nothing,', () => {
  const said = async (writeNow: (device: OverlayDevice) => boolean) => {
    const fileSystem = new CrashFileSystem();
    const device = await flushedLog(fileSystem);
    const before = writesOf(fileSystem);
    const isWritten = writeNow(device);
    expect(isWritten ? 1 : 0).toBe(writesOf(fileSystem) - before);
    await device.close();
    return isWritten;
  };

  it('to what is no whole block', async () => {
    expect(await said((device) => device.writeNow(1, block()))).toBe(false);
    expect(await said((device) => device.writeNow(0, block().subarray(1)))).toBe(false);
    expect(await said((device) => device.writeNow(BLOCK_SIZE, block()))).toBe(true);
  });

  it('where a part of the block is being changed, or another record is on its way', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await flushedLog(fileSystem);
    const part = device.write(BLOCK_SIZE + 5, block().subarray(0, 10), { fua: false });
    expect(device.writeNow(BLOCK_SIZE, block()), 'a part of it is being changed').toBe(false);
    await part;
    const beside: boolean[] = [];
    const tryBesideWrite = () => {
      fileSystem.fault = (kind) => {
        if (kind !== 'write') return undefined;
        fileSystem.fault = undefined;
        beside.push(device.writeNow(BLOCK_SIZE, block()));
        return undefined;
      };
    };
    tryBesideWrite();
    await device.write(3 * BLOCK_SIZE, block(), { fua: false });
    expect(beside, 'another record is on its way').toEqual([false]);
    await device.flush();
    tryBesideWrite();
    await until(() => beside.length === 2);
    expect(beside, 'a MARK is on its way').toEqual([false, false]);
    await untilMarked(fileSystem);
    expect(device.writeNow(BLOCK_SIZE, block())).toBe(true);
    await device.close();
  });

  it('before its first record, and when the zeroes ahead are used up', async () => {
    const device = await openCrashDevice(new CrashFileSystem(), SEGMENT_BYTES, { aheadBytes: AHEAD_BYTES });
    expect(device.writeNow(0, block())).toBe(false);
    await device.write(0, block(), { fua: true });
    let written = 0;
    while (device.writeNow((written % 30) * BLOCK_SIZE, block())) written++;
    expect(written).toBeGreaterThan(200);
    expect(written).toBeLessThan(256);
    await device.close();
  });

  it('after a failed fdatasync, also to what is there already: that may be lost', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await flushedLog(fileSystem);
    const data = block();
    expect(device.writeNow(BLOCK_SIZE, data)).toBe(true);
    fileSystem.fault = (kind, path) => (kind === 'sync' ? systemError('EIO', path) : undefined);
    await expect(device.flush()).rejects.toMatchObject({ code: 'OVERLAY', reason: 'io' });
    fileSystem.fault = undefined;
    expect(device.writeNow(BLOCK_SIZE, data)).toBe(false);
    expect(device.writeNow(2 * BLOCK_SIZE, block())).toBe(false);
    await expect(device.write(BLOCK_SIZE, data, { fua: false })).rejects.toMatchObject({ reason: 'io' });
    await expect(device.close()).rejects.toMatchObject({ reason: 'io' });
  });

  it('where its space is limited, and when it is closed', async () => {
    const overlayLimit = new SpaceLimit(100 * MiB);
    const limited = await flushedLog(new CrashFileSystem(), { overlayLimit });
    expect(limited.writeNow(BLOCK_SIZE, block())).toBe(false);
    await limited.close();
    expect(limited.writeNow(BLOCK_SIZE, block())).toBe(false);
  });
});

describe('memory', () => {
  it('takes what fits, and leaves the rest to one that can wait for a file', async () => {
    const content = Buffer.from(baseContent);
    const device = await openMemoryOverlay(new MemoryDevice(Buffer.from(content)), {
      memoryLimitBytes: 4 * BLOCK_SIZE,
    });
    const taken: boolean[] = [];
    for (const [first, count] of [
      [0, 3],
      [10, 2],
      [10, 1],
      [11, 1],
    ] as const) {
      const data = random.fill(Buffer.alloc(count * BLOCK_SIZE));
      taken.push(device.writeNow(first * BLOCK_SIZE, data));
      if (taken.at(-1)) data.copy(content, first * BLOCK_SIZE);
      expect(await firstDifference(device, content)).toBe(undefined);
    }
    expect(taken).toEqual([true, false, true, false]);
    await device.close();
  });
});
