/** Ten thousand flipped bytes, over every kind of store and of resource; the places are printed by kind. */
import { expect, it } from 'vitest';
import { describeFlips, flipStore } from '../support/store-flips.ts';

const FLIPS = Number(process.env.KLOSET_NBD_FLIPS ?? 10_000);
const SEED = Number(process.env.KLOSET_NBD_SEED ?? 20_261_122);
const STORES = [
  'plain',
  'sha256-nocompress',
  'gzip',
  'zstd',
  'manychunks',
  'tar',
  'multi-deleted',
  'multi-maintained',
  'xattr-only-change',
  'encrypted-gcmkey-segments',
];

it.each(STORES)(`%s, seed ${SEED}`, async (name) => {
  const report = await flipStore(name, { flips: Math.ceil(FLIPS / STORES.length), seed: SEED });
  console.log(describeFlips(name, report));
  expect(report.kinds.get('snapshot')!.noticed).toBeGreaterThan(0);
});
