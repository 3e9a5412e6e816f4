/** When to start a worker again, and when to give up. Pure: told the time, it answers. */
import type { SuperviseLimits } from './limits.ts';

type RestartLimits = Pick<
  SuperviseLimits,
  'fruitlessDeathsMax' | 'restartDelayMs' | 'restartDelayMsMax' | 'deathsMax' | 'deathsWindowMs'
>;

export type Verdict = { readonly restartAfterMs: number } | { readonly giveUp: string };

export class Restarts {
  readonly #limits: RestartLimits;
  /** When workers died, within the window. */
  #deathsMs: number[] = [];
  #fruitless = 0;

  constructor(limits: RestartLimits) {
    this.#limits = limits;
  }

  /** A worker died at `nowMs`. `fruitful`: it had answered something, or lived for a while. */
  died({ nowMs, fruitful }: { readonly nowMs: number; readonly fruitful: boolean }): Verdict {
    const { fruitlessDeathsMax, restartDelayMs, restartDelayMsMax, deathsMax, deathsWindowMs } = this.#limits;
    this.#deathsMs = [...this.#deathsMs.filter((thenMs) => nowMs - thenMs < deathsWindowMs), nowMs];
    this.#fruitless = fruitful ? 0 : this.#fruitless + 1;
    if (this.#fruitless >= fruitlessDeathsMax) {
      return { giveUp: `${this.#fruitless} workers in a row died without having served anything` };
    }
    if (this.#deathsMs.length >= deathsMax) {
      return { giveUp: `${this.#deathsMs.length} workers died within ${deathsWindowMs / 1000} seconds` };
    }
    if (this.#fruitless < 2) return { restartAfterMs: 0 };
    return { restartAfterMs: Math.min(restartDelayMsMax, restartDelayMs * 2 ** (this.#fruitless - 2)) };
  }
}
