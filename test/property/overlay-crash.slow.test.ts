import { describe, expect, it } from 'vitest';
import { cutEverywhere } from '../support/overlay-cuts.ts';
import { runSeed } from '../support/overlay-random.ts';

const CUTS_MIN = 100_000;

describe('after a crash, an overlay is the state of a prefix of the writes that has all flushed ones', () => {
  const seed = runSeed() * 1000;
  it(`however it was cut: ${CUTS_MIN} times (seed ${seed})`, async () => {
    let cuts = 0;
    let round = 0;
    for (; cuts < CUTS_MIN; round++) {
      const options = { steps: 120, encrypted: round % 2 === 1, everySector: true };
      const { count, failures } = await cutEverywhere(seed + round, options);
      expect(failures.slice(0, 5), `round ${round}: ${failures.length} of ${count} crashes`).toEqual([]);
      cuts += count;
    }
    console.log(`crashes: ${cuts} in ${round} workloads, all as promised`);
  });
});
