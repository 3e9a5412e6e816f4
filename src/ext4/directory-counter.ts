/** How many directories a range of entries holds: a running count every 64 entries, the rest counted when asked. */
import { entryTypes } from '../core/snapshot-tree.ts';

const STRIDE = 64;

export class DirectoryCounter {
  readonly #type: Uint8Array;
  /** Directories before entry 64 * i. */
  readonly #before: Uint32Array;

  constructor(type: Uint8Array) {
    this.#type = type;
    this.#before = new Uint32Array(Math.floor(type.length / STRIDE) + 1);
    let count = 0;
    for (let entry = 0; entry < type.length; entry++) {
      if (entry % STRIDE === 0) this.#before[entry / STRIDE] = count;
      if (type[entry] === entryTypes.directory) count++;
    }
    if (type.length % STRIDE === 0) this.#before[type.length / STRIDE] = count;
  }

  /** Directories among the entries from .. to - 1. */
  count(from: number, to: number): number {
    return to <= from ? 0 : this.#until(to) - this.#until(from);
  }

  #until(entry: number): number {
    const stride = Math.floor(entry / STRIDE);
    let count = this.#before[stride]!;
    for (let i = stride * STRIDE; i < entry; i++) if (this.#type[i] === entryTypes.directory) count++;
    return count;
  }
}
