import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import type { Log } from '../../src/core/log.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import type { OverlayHealth } from '../../src/device/space-gate.ts';
import { SpaceLimit } from '../../src/device/space-limit.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CrashFileSystem, systemError } from '../support/overlay-crash-fs.ts';
import { baseContent, openCrashDevice } from '../support/overlay-crash-run.ts';
import { firstDifference } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

/** Options that pause, with what was logged and a promise for each change of health. */
function pausing(retryDelayMs: number) {
  const errors: string[] = [];
  const warnings: string[] = [];
  const states: OverlayHealth['state'][] = [];
  const waiting: (() => void)[] = [];
  const log: Log = {
    debug() {},
    info() {},
    warn: (_, line) => warnings.push(line),
    error: (_, line) => errors.push(line),
  };
  const onHealth = ({ state }: OverlayHealth) => {
    states.push(state);
    for (const wake of waiting.splice(0)) wake();
  };
  const became = async (count: number) => {
    while (states.length < count) await new Promise<void>((resolve) => waiting.push(resolve));
  };
  return { options: { onFull: 'pause', retryDelayMs, onHealth, log } as const, errors, warnings, states, became };
}

const seed = runSeed();
const NEVER_MS = 1_000_000;

describe('writes without room wait', () => {
  it(`until the disk has space again; FLUSH and reads go on meanwhile (seed ${seed})`, async () => {
    const fileSystem = new CrashFileSystem();
    const { options, errors, states, became } = pausing(1);
    const device = await openCrashDevice(fileSystem, 60_000, options);
    const random = seededRandom(seed);
    const content = Buffer.from(baseContent);
    for (const round of [0, 1, 2]) {
      const early = random.fill(Buffer.alloc(3000));
      await device.write(round * 5000, early, { fua: false });
      early.copy(content, round * 5000);
      const before = Buffer.from(content);
      fileSystem.fault = (kind, path) => (kind === 'write' ? systemError('ENOSPC', path) : undefined);
      const writes = Array.from({ length: 12 }, (_, index) => {
        const data = random.fill(Buffer.alloc(2000 + index * 300));
        const offset = (4 + index * 2) * BLOCK_SIZE + 99;
        data.copy(content, offset);
        return device.write(offset, data, { fua: index % 4 === 0 });
      });
      await became(round * 2 + 1);
      await device.flush();
      expect(await firstDifference(device, before)).toBe(undefined);
      const left = fileSystem.crash(fileSystem.operations.length, { mode: 'drop' });
      const crashed = await openCrashDevice(new CrashFileSystem(left));
      expect(await firstDifference(crashed, before), 'what was flushed is durable').toBe(undefined);
      await crashed.close();

      fileSystem.fault = undefined;
      await Promise.all(writes);
      await became(round * 2 + 2);
      expect(await firstDifference(device, content)).toBe(undefined);
    }
    expect(states).toEqual(['full', 'ok', 'full', 'ok', 'full', 'ok']);
    expect(errors, 'one line each time').toHaveLength(3);
    await device.close();
    const again = await openCrashDevice(new CrashFileSystem(fileSystem.image()));
    expect(await firstDifference(again, content)).toBe(undefined);
    await again.close();
  });

  it('and end when the device is closed, which keeps all that had landed', async () => {
    const fileSystem = new CrashFileSystem();
    const { options, became } = pausing(NEVER_MS);
    const device = await openCrashDevice(fileSystem, 60_000, options);
    const content = Buffer.from(baseContent);
    content.fill(1, 0, BLOCK_SIZE);
    await device.write(0, content.subarray(0, BLOCK_SIZE), { fua: false });
    fileSystem.fault = (kind, path) => (kind === 'write' ? systemError('ENOSPC', path) : undefined);
    const parked = [1, 2, 3].map((block) =>
      device.write(block * BLOCK_SIZE, Buffer.alloc(BLOCK_SIZE, 7), { fua: true }),
    );
    const ends = Promise.allSettled(parked);
    await became(1);
    fileSystem.fault = undefined;
    await device.close();
    for (const end of await ends) expect(end).toMatchObject({ reason: { code: 'OVERLAY', reason: 'full' } });
    const again = await openCrashDevice(new CrashFileSystem(fileSystem.image()));
    expect(await firstDifference(again, content)).toBe(undefined);
    await again.close();
  });

  it('where the overlay has reached its limit, until that is raised; with warnings on the way', async () => {
    const fileSystem = new CrashFileSystem();
    const { options, warnings, errors, states, became } = pausing(NEVER_MS);
    const overlayLimit = new SpaceLimit(10.5 * BLOCK_SIZE);
    const device = await openCrashDevice(fileSystem, 1_000_000, { ...options, overlayLimit });
    const content = Buffer.from(baseContent);
    const write = (block: number) => {
      content.fill(block + 1, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
      return device.write(block * BLOCK_SIZE, content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE), {
        fua: true,
      });
    };
    for (let block = 0; block < 10; block++) await write(block);
    expect(warnings).toEqual([expect.stringContaining('80 %'), expect.stringContaining('95 %')]);
    const parked = [10, 11, 12].map(write);
    await became(1);
    await device.trim({ offset: 0, length: BLOCK_SIZE }, { fua: true });
    content.fill(0, 0, BLOCK_SIZE);
    overlayLimit.change(undefined);
    await Promise.all(parked);
    await became(2);
    expect([states, errors.length]).toEqual([['full', 'ok'], 1]);
    expect(await firstDifference(device, content)).toBe(undefined);
    await device.close();
  });

  it('in memory too: trimming what is not needed makes room; without pausing they are refused', async () => {
    const base = Buffer.alloc(32 * BLOCK_SIZE, 9);
    const { options, became } = pausing(NEVER_MS);
    const limits = {
      memoryLimitBytes: 4 * BLOCK_SIZE,
      overlayLimit: new SpaceLimit(10 * BLOCK_SIZE),
      tempDir: tmpdir(),
    };
    const device = await openMemoryOverlay(new MemoryDevice(Buffer.from(base)), { ...options, ...limits });
    const content = Buffer.from(base).fill(1, 0, 10 * BLOCK_SIZE);
    await device.write(0, content.subarray(0, 10 * BLOCK_SIZE), { fua: false });
    const overwritten = Buffer.alloc(BLOCK_SIZE, 2);
    await device.write(0, overwritten, { fua: false });
    overwritten.copy(content);
    const parked = device.write(20 * BLOCK_SIZE, overwritten, { fua: false });
    overwritten.copy(content, 20 * BLOCK_SIZE);
    await became(1);
    await device.trim({ offset: 5 * BLOCK_SIZE, length: BLOCK_SIZE }, { fua: false });
    content.fill(0, 5 * BLOCK_SIZE, 6 * BLOCK_SIZE);
    await parked;
    expect(await firstDifference(device, content)).toBe(undefined);
    await device.close();

    const failing = await openMemoryOverlay(new MemoryDevice(base), { ...limits, onFull: 'fail' });
    const tooMuch = failing.write(0, Buffer.alloc(11 * BLOCK_SIZE, 5), { fua: false });
    await expect(tooMuch).rejects.toMatchObject({ code: 'OVERLAY', reason: 'full' });
    await failing.close();
  });
});

describe('a file system that has become read-only', () => {
  it('fails writes, and goes on with reads, also of files that were not open', async () => {
    const fileSystem = new CrashFileSystem();
    const content = seededRandom(seed).fill(Buffer.from(baseContent));
    const writer = await openCrashDevice(fileSystem);
    for (let block = 0; block < 32; block++) {
      const part = content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
      await writer.write(block * BLOCK_SIZE, part, { fua: false });
    }
    await writer.close();
    const device = await openCrashDevice(fileSystem);
    fileSystem.fault = (kind, path) => (kind === 'read' || kind === 'open' ? undefined : systemError('EROFS', path));
    const { open } = fileSystem;
    fileSystem.open = (path, access) =>
      access === 'read' ? open.call(fileSystem, path, access) : Promise.reject(systemError('EROFS', path));
    expect(await firstDifference(device, content)).toBe(undefined);
    const write = device.write(0, Buffer.alloc(9, 1), { fua: false });
    await expect(write).rejects.toMatchObject({ code: 'OVERLAY', reason: 'io' });
    expect(await firstDifference(device, content)).toBe(undefined);
    await expect(device.close()).rejects.toMatchObject({ code: 'OVERLAY' });
  });
});
