import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/core/device.ts';
import { silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { DirectoryOverlays, openLogDevice } from '../../src/device/directory-overlays.ts';
import { CRC_FORMAT_VERSION, ENCRYPTED_CRC_FORMAT_VERSION } from '../../src/device/log-format.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CrashFileSystem } from '../support/overlay-crash-fs.ts';
import { baseContent, DIRECTORY, encryptedMetadata, keyFor, metadata } from '../support/overlay-crash-run.ts';
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

describe('an overlay of an earlier format, which checks its blocks by CRC-32', () => {
  const seed = runSeed();
  for (const [title, about, earlier] of [
    ['plain', metadata, CRC_FORMAT_VERSION],
    ['encrypted', encryptedMetadata, ENCRYPTED_CRC_FORMAT_VERSION],
  ] as const) {
    it(`is read and written on as it is: ${title} (seed ${seed})`, async () => {
      const fileSystem = new CrashFileSystem();
      const open = (formatVersion: number) =>
        openLogDevice(DIRECTORY, { ...about, formatVersion }, new MemoryDevice(Buffer.from(baseContent)), {
          fileSystem,
          keyFor,
          log: silentLog,
        });
      const content = Buffer.from(baseContent);
      const reopen = async (device: BlockDevice) => {
        await device.close();
        return open(earlier);
      };
      const random = seededRandom(seed);
      const device = await driveAgainstModel(await open(earlier), content, { random, rounds: 60, reopen });
      await device.write(0, Buffer.alloc(BLOCK_SIZE, 1), { fua: true });
      await device.close();
      const mistaken = await open(about.formatVersion);
      await expect(mistaken.read(0, Buffer.alloc(BLOCK_SIZE))).rejects.toMatchObject({ reason: 'damaged' });
      await mistaken.close();
    });
  }
});
