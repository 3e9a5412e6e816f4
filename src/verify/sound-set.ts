import { SOUND_KEPT_MAX } from './limits.ts';

/** Bytes of a MAC that are kept, as 32-bit words: two of four million that agree in 96 bits are not to be expected. */
const WORDS = 3;

/**
 * MACs found sound, with a number each (a length). An open hash table over typed arrays: bounded, since a store can have
 * more chunks than there is memory. What finds no room is forgotten, never taken for something else.
 */
export class SoundSet {
  #keys = new Uint32Array(1024 * WORDS);
  #values = new Float64Array(1024).fill(-1);
  #count = 0;
  readonly #countMax: number;

  constructor(countMax = SOUND_KEPT_MAX) {
    this.#countMax = countMax;
  }

  /** The number kept with `mac`, or undefined. */
  get(mac: Uint8Array): number | undefined {
    const value = this.#values[this.#slotOf(wordsOf(mac))]!;
    return value < 0 ? undefined : value;
  }

  /** `value` is not negative. */
  set(mac: Uint8Array, value: number): void {
    const words = wordsOf(mac);
    const slot = this.#slotOf(words);
    if (this.#values[slot]! < 0) {
      if (this.#count === this.#countMax) return;
      this.#count++;
      this.#keys.set(words, slot * WORDS);
    }
    this.#values[slot] = value;
    if (this.#count * 2 > this.#values.length) this.#grow();
  }

  /** Where these words are, or the free place where they belong. */
  #slotOf(words: Uint32Array): number {
    const mask = this.#values.length - 1;
    for (let slot = words[0]! & mask; ; slot = (slot + 1) & mask) {
      if (this.#values[slot]! < 0) return slot;
      const at = slot * WORDS;
      if (words.every((word, i) => this.#keys[at + i] === word)) return slot;
    }
  }

  #grow(): void {
    const [keys, values] = [this.#keys, this.#values];
    this.#keys = new Uint32Array(keys.length * 2);
    this.#values = new Float64Array(values.length * 2).fill(-1);
    for (let slot = 0; slot < values.length; slot++) {
      if (values[slot]! < 0) continue;
      const words = keys.subarray(slot * WORDS, (slot + 1) * WORDS);
      const to = this.#slotOf(words);
      this.#keys.set(words, to * WORDS);
      this.#values[to] = values[slot]!;
    }
  }
}

function wordsOf(mac: Uint8Array): Uint32Array {
  const view = new DataView(mac.buffer, mac.byteOffset, mac.byteLength);
  return Uint32Array.from({ length: WORDS }, (_, i) => view.getUint32(4 * i, true));
}
