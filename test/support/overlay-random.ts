/** Seeded pseudo-random numbers (mulberry32), so that a failing run can be had again from the seed it printed. */
export interface Random {
  /** An integer from 0 to below `limit`. */
  below(limit: number): number;
  chance(probability: number): boolean;
  fill<T extends Uint8Array>(target: T): T;
}

export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  return {
    below: (limit) => Math.floor((next() / 2 ** 32) * limit),
    chance: (probability) => next() / 2 ** 32 < probability,
    fill(target) {
      for (let at = 0; at < target.length; at++) target[at] = next();
      return target;
    },
  };
}

/** The seed of this run: OVERLAY_SEED, or a new one each day so that runs explore and a day's failure can be repeated. */
export function runSeed(): number {
  return Number(process.env.OVERLAY_SEED ?? Math.floor(Date.now() / 86_400_000));
}
