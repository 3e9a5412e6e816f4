import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { DirectoryOverlays } from '../../src/device/directory-overlays.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import { ReadOnlyDevice } from '../../src/device/read-only-device.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { requires } from '../support/requires.ts';
import { runDeviceSuite } from './device-suite.ts';

const tempDir = mkdtempSync(join(tmpdir(), 'overlay-suite-'));
afterAll(() => rmSync(tempDir, { recursive: true }));
const supports = { fua: true, trim: true, multiConn: true };

runDeviceSuite({ name: 'the model', supports, open: async (content) => new MemoryDevice(content) });

runDeviceSuite({
  name: 'a memory overlay',
  supports,
  open: (content) => openMemoryOverlay(new MemoryDevice(content)),
});

for (const blocks of [0, 5]) {
  runDeviceSuite({
    name: `a memory overlay that spills after ${blocks} blocks`,
    supports,
    open: (content) => openMemoryOverlay(new MemoryDevice(content), { memoryLimitBytes: blocks * BLOCK_SIZE, tempDir }),
  });
}

const identity = { snapshotId: 'ab'.repeat(32), path: '/', layout: { version: 1 } };
let directories = 0;
const needFlock = requires('flock');

describe.skipIf(needFlock.missing)(needFlock.title('with flock(1)'), () => {
  const opened: DirectoryOverlays[] = [];
  afterAll(async () => {
    for (const overlays of opened) await overlays.close();
  });

  runDeviceSuite({
    name: 'a directory overlay',
    supports,
    async open(content) {
      const overlays = await DirectoryOverlays.open(join(tempDir, `overlays-${directories++}`));
      opened.push(overlays);
      return overlays.openDevice('export', new MemoryDevice(content), identity);
    },
  });
});

describe('a read-only device', () => {
  const content = Buffer.alloc(8 * BLOCK_SIZE, 7);
  const device = new ReadOnlyDevice(new MemoryDevice(content));

  it('reads, and refuses every change', async () => {
    const target = Buffer.alloc(100);
    await device.read(5, target);
    expect(target.equals(content.subarray(0, 100))).toBe(true);
    const refused = { code: 'OVERLAY', message: 'the device is read-only' };
    await expect(device.write()).rejects.toMatchObject(refused);
    await expect(device.writeZeroes()).rejects.toMatchObject(refused);
    await expect(device.trim()).rejects.toMatchObject(refused);
    await device.flush();
    await device.close();
    await device.read(0, target);
  });
});
