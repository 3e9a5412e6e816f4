import { UnsupportedError } from '../core/errors.ts';
import { RECORDS_MAX } from './limits.ts';

/** Words of a slot: the record's number, counted from one (zero: free), and 32 bits of the MAC. */
const WORDS = 2;

/**
 * Numbers of records by MAC: an open hash table over one typed array, 8 bytes a slot, at most half full. It knows 32 bits of each
 * MAC, so what it finds are candidates: whoever asks reads the record and compares.
 */
export class RecordTable {
  #slots = new Uint32Array(1024 * WORDS);
  #count = 0;

  /** Throws UnsupportedError when there are too many. */
  add(mac: Uint8Array, record: number): void {
    if (this.#count >= RECORDS_MAX) throw new UnsupportedError(`it holds more than ${RECORDS_MAX} blobs`);
    if ((this.#count + 1) * 2 > this.#slots.length / WORDS) this.#grow();
    this.#put(printOf(mac), record + 1);
    this.#count++;
  }

  /** Records whose MAC may be this one, the latest first. */
  candidates(mac: Uint8Array): number[] {
    const print = printOf(mac);
    const found: number[] = [];
    const mask = this.#slots.length / WORDS - 1;
    for (let slot = print & mask; this.#slots[slot * WORDS] !== 0; slot = (slot + 1) & mask) {
      if (this.#slots[slot * WORDS + 1] === print) found.push(this.#slots[slot * WORDS]! - 1);
    }
    return found.sort((a, b) => b - a);
  }

  #put(print: number, value: number): void {
    const mask = this.#slots.length / WORDS - 1;
    let slot = print & mask;
    while (this.#slots[slot * WORDS] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot * WORDS] = value;
    this.#slots[slot * WORDS + 1] = print;
  }

  #grow(): void {
    const before = this.#slots;
    this.#slots = new Uint32Array(before.length * 2);
    for (let at = 0; at < before.length; at += WORDS) {
      if (before[at] !== 0) this.#put(before[at + 1]!, before[at]!);
    }
  }
}

/** MACs are evenly spread: their first bits are as good as any hash of them, for the place, too. */
function printOf(mac: Uint8Array): number {
  return new DataView(mac.buffer, mac.byteOffset, mac.byteLength).getUint32(0, true);
}
