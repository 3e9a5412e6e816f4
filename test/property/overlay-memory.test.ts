import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { MemoryBudget } from '../../src/device/memory-budget.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { driveAgainstModel, firstDifference } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

const tempDir = mkdtempSync(join(tmpdir(), 'overlay-memory-'));
afterAll(() => rmSync(tempDir, { recursive: true }));

describe('a memory overlay against a plain buffer', () => {
  for (const memoryBlocks of [100_000, 300, 20, 0]) {
    const seed = runSeed() + memoryBlocks;
    it(`gives the same bytes with ${memoryBlocks} blocks of memory (seed ${seed})`, async () => {
      const random = seededRandom(seed);
      const base = seededRandom(1).fill(Buffer.alloc(600 * BLOCK_SIZE));
      const before = Buffer.from(base);
      const device = await openMemoryOverlay(new MemoryDevice(base), {
        memoryLimitBytes: memoryBlocks * BLOCK_SIZE,
        tempDir,
      });
      const content = Buffer.from(base);
      await driveAgainstModel(device, content, { random, rounds: 400 });
      expect(base.equals(before), 'the base is never written').toBe(true);
      expect(readdirSync(tempDir), 'the temporary file has no name').toEqual([]);

      if (memoryBlocks === 100_000 || memoryBlocks === 0) {
        await device.write(5 * BLOCK_SIZE, content.subarray(0, BLOCK_SIZE), { fua: false });
        content.copyWithin(5 * BLOCK_SIZE, 0, BLOCK_SIZE);
        expect(device.readNow(5 * BLOCK_SIZE, Buffer.alloc(904)), 'spilled blocks are not in memory').toBe(
          memoryBlocks > 0,
        );
      }

      let at = 0;
      for (const range of device.changedRanges({ offset: 0, length: base.length })) {
        expect(range.offset).toBe(at);
        at += range.length;
        const part = content.subarray(range.offset, at);
        if (range.state === 'clean') expect(part.equals(base.subarray(range.offset, at))).toBe(true);
        if (range.state === 'zero') expect(part.every((byte) => byte === 0)).toBe(true);
      }
      expect(at).toBe(base.length);

      await device.trim({ offset: 0, length: base.length }, { fua: false });
      expect(await firstDifference(device, Buffer.alloc(base.length))).toBe(undefined);
      expect(device.stats()).toMatchObject({ dirtyBytes: base.length, zeroBytes: base.length, memoryBytes: 0 });
      await device.close();
    });
  }
});

describe('memory overlays that share a budget', () => {
  const seed = runSeed();
  it(`stay below it together, give back what they had, and say the right bytes (seed ${seed})`, async () => {
    const memoryBudget = new MemoryBudget(300 * BLOCK_SIZE);
    const random = seededRandom(seed);
    const overlays = await Promise.all(
      [1, 2, 3].map(async (byte) => {
        const content = Buffer.alloc(200 * BLOCK_SIZE, byte);
        const device = await openMemoryOverlay(new MemoryDevice(Buffer.from(content)), { memoryBudget, tempDir });
        return { device, content };
      }),
    );
    for (let round = 0; round < 40; round++) {
      for (const { device, content } of overlays) await driveAgainstModel(device, content, { random, rounds: 5 });
      expect(memoryBudget.bytesInUse).toBeLessThanOrEqual(memoryBudget.bytesMax);
    }
    expect(memoryBudget.bytesInUse, 'most of it is used').toBeGreaterThan(150 * BLOCK_SIZE);
    const [first, second, third] = overlays as [(typeof overlays)[0], (typeof overlays)[0], (typeof overlays)[0]];
    await first.device.trim({ offset: 0, length: first.content.length }, { fua: false });
    await second.device.close();
    expect(memoryBudget.bytesInUse).toBeLessThanOrEqual(third.content.length);
    expect(await firstDifference(third.device, third.content)).toBe(undefined);
    await Promise.all([first.device.close(), third.device.close()]);
    expect(memoryBudget.bytesInUse).toBe(0);
  });
});
