import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { DirectoryOverlays } from '../../src/device/directory-overlays.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { driveAgainstModel } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';
import { requires } from '../support/requires.ts';

const tempDir = mkdtempSync(join(tmpdir(), 'overlay-directory-'));
afterAll(() => rmSync(tempDir, { recursive: true }));
const need = requires('flock');
const identity = { snapshotId: 'cd'.repeat(32), path: '/', layout: { version: 1, size: '10G' } };

describe.skipIf(need.missing)(need.title('a directory overlay against a plain buffer'), () => {
  for (const round of [1, 2, 3]) {
    const seed = runSeed() + round;
    it(`gives the same bytes, closed and opened again and again (seed ${seed})`, async () => {
      const random = seededRandom(seed);
      const base = seededRandom(1).fill(Buffer.alloc(600 * BLOCK_SIZE));
      const before = Buffer.from(base);
      const directory = join(tempDir, `model-${round}`);
      let overlays = await DirectoryOverlays.open(directory);
      const open = () => overlays.openDevice('one', new MemoryDevice(base), identity);
      const content = Buffer.from(base);
      await driveAgainstModel(await open(), content, {
        random,
        rounds: 400,
        async reopen() {
          await overlays.close();
          overlays = await DirectoryOverlays.open(directory);
          const device = await open();
          expect(device.readOnlyReason).toBe(undefined);
          return device;
        },
      });
      expect(base.equals(before), 'the base is never written').toBe(true);
      await overlays.close();
    });
  }
});
