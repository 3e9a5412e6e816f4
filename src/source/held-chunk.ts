import { ARENA_UNIT_BYTES } from '../core/shared-arena.ts';
import { roundUp } from '../core/units.ts';

/**
 * The bytes of a decoded chunk, while several parties need them: readers, the memory tier, a write to disk. When the last has
 * let go, their memory is given back, to be used again. Whoever creates it holds it.
 */
export class HeldChunk {
  readonly plain: Uint8Array;
  readonly #giveBack: (plain: Uint8Array) => void;
  #holders = 1;

  constructor(plain: Uint8Array, giveBack: (plain: Uint8Array) => void) {
    this.plain = plain;
    this.#giveBack = giveBack;
  }

  /** What it takes of memory. */
  get heldBytes(): number {
    const { buffer, byteLength } = this.plain;
    const inArenaBytes = roundUp(byteLength, ARENA_UNIT_BYTES);
    return buffer instanceof SharedArrayBuffer ? Math.min(buffer.byteLength, inArenaBytes) : buffer.byteLength;
  }

  hold(): this {
    this.#holders++;
    return this;
  }

  /** Once for each that holds it. */
  release(): void {
    if (--this.#holders === 0) this.#giveBack(this.plain);
  }
}
