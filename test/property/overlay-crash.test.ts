import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { CrashFileSystem } from '../support/overlay-crash-fs.ts';
import { baseContent, openCrashDevice } from '../support/overlay-crash-run.ts';
import { cutEverywhere } from '../support/overlay-cuts.ts';
import { firstDifference } from '../support/overlay-model.ts';
import { runSeed } from '../support/overlay-random.ts';

describe('after a crash, an overlay is the state of a prefix of the writes that has all flushed ones', () => {
  for (const encrypted of [false, true]) {
    const seed = runSeed() * 1000 + Number(encrypted);
    it(`whatever was left of ${encrypted ? 'an encrypted' : 'a plain'} one (seed ${seed})`, {
      timeout: 600_000,
    }, async () => {
      const { count, failures } = await cutEverywhere(seed, { steps: 120, encrypted, everySector: false });
      expect(failures.slice(0, 5), `${failures.length} of ${count} crashes`).toEqual([]);
      expect(count).toBeGreaterThan(1000);
    });
  }

  it.each([false, true])(
    'and what was written without a FLUSH is no damage after a kill (encrypted: %s)',
    async (encrypted) => {
      const fileSystem = new CrashFileSystem();
      const device = await openCrashDevice(fileSystem, 60_000, { encrypted });
      const content = Buffer.from(baseContent);
      for (let block = 0; block < 24; block += 4) {
        const data = Buffer.alloc(4 * BLOCK_SIZE, block + 1);
        await device.write(block * BLOCK_SIZE, data, { fua: false });
        data.copy(content, block * BLOCK_SIZE);
      }
      const left = fileSystem.crash(fileSystem.operations.length, { mode: 'kill' });
      await device.close();
      const remarks: string[] = [];
      const note = (_fields: object, message: string) => remarks.push(message);
      const log = { ...silentLog, warn: note, error: note };
      const again = await openCrashDevice(new CrashFileSystem(left), 60_000, { encrypted, log });
      expect(await firstDifference(again, content)).toBe(undefined);
      expect(remarks).toEqual([]);
      await again.close();
    },
  );
});
