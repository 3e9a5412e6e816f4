/** A short run of `npm run fuzz`, always the same. */
import { expect, test } from 'vitest';
import { fuzz } from '../fuzz/fuzz.ts';
import { targets } from '../fuzz/targets.ts';

const CASES_PER_TARGET = 150;
const SEED = 20_261_122;

test(`hostile input to ${targets.length} parsers, seed ${SEED}`, async () => {
  const { findings, accepted } = await fuzz(targets, {
    seed: SEED,
    more: (done) => done < CASES_PER_TARGET * targets.length,
  });
  expect(findings).toEqual([]);
  // A parser that takes nothing was tested no further than its first check.
  for (const [name, count] of accepted) expect(count, name).toBeGreaterThan(0);
});
