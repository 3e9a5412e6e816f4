import { describe, expect, it } from 'vitest';
import { cutEverywhere } from '../support/overlay-cuts.ts';
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
});
