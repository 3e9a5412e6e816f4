import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import { MemoryDevice } from '../support/memory-device.ts';
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
