/** A small least-recently-used cache, bounded in bytes. Computing a value twice is harmless here, so nothing waits. */
export class ByteCache<Value> {
  readonly #bytesMax: number;
  readonly #sizeOf: (value: Value) => number;
  /** A Map iterates in the order of insertion: the first entry is the one used longest ago. */
  readonly #entries = new Map<number, Value>();
  #bytes = 0;

  constructor({ bytesMax, sizeOf }: { bytesMax: number; sizeOf: (value: Value) => number }) {
    this.#bytesMax = bytesMax;
    this.#sizeOf = sizeOf;
  }

  /** Bytes held now. */
  get sizeBytes(): number {
    return this.#bytes;
  }

  has(key: number): boolean {
    return this.#entries.has(key);
  }

  /** The cached value of `key`, or a made one. The newest value is kept even if it alone exceeds the bound. */
  get(key: number, make: () => Value): Value {
    let value = this.#entries.get(key);
    if (value !== undefined) {
      this.#entries.delete(key);
      this.#entries.set(key, value);
      return value;
    }
    value = make();
    this.#entries.set(key, value);
    this.#bytes += this.#sizeOf(value);
    for (const [oldest, old] of this.#entries) {
      if (this.#bytes <= this.#bytesMax || oldest === key) break;
      this.#entries.delete(oldest);
      this.#bytes -= this.#sizeOf(old);
    }
    return value;
  }
}
