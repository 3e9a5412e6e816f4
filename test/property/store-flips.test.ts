/** A few flipped bytes in each kind of store; `npm run test:slow` has ten thousand. KLOSET_NBD_FLIPS asks for more of them. */
import { expect, it } from 'vitest';
import { flipStore } from '../support/store-flips.ts';

const FLIPS = Number(process.env.KLOSET_NBD_FLIPS ?? 60);
const SEED = Number(process.env.KLOSET_NBD_SEED ?? 20_261_122);

it.each(['plain', 'sha256-nocompress', 'multi-maintained', 'encrypted-pbkdf2-sha256', 'xattr-only-change'])(
  `%s with one byte changed never gives a wrong one, seed ${SEED}`,
  { timeout: 600_000 },
  async (name) => {
    const { kinds } = await flipStore(name, { flips: FLIPS, seed: SEED });
    expect(kinds.size).toBeGreaterThan(10);
    // What every opening reads. Other kinds have another copy, or are for others to read.
    for (const kind of ['states', 'snapshot', 'vfsTree']) expect(kinds.get(kind)!.noticed, kind).toBeGreaterThan(0);
  },
);
