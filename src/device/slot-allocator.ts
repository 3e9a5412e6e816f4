/** Hands out slot numbers from 0 up to a limit; freed ones first, so that what is in use stays dense. */
export class SlotAllocator {
  readonly #limit: number;
  #next = 0;
  #freed = new Uint32Array(64);
  #freedCount = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Slots handed out and not freed. */
  get used(): number {
    return this.#next - this.#freedCount;
  }

  /** Slots that have ever been in use. */
  get highWater(): number {
    return this.#next;
  }

  /** Undefined once all are taken. */
  allocate(): number | undefined {
    if (this.#freedCount > 0) return this.#freed[--this.#freedCount];
    return this.#next < this.#limit ? this.#next++ : undefined;
  }

  /** Gives `count` slots back. The lowest is handed out again first: runs stay runs. */
  free(first: number, count: number): void {
    if (this.#freedCount + count > this.#freed.length) {
      const larger = new Uint32Array(Math.max(this.#freed.length * 2, this.#freedCount + count));
      larger.set(this.#freed.subarray(0, this.#freedCount));
      this.#freed = larger;
    }
    for (let slot = first + count - 1; slot >= first; slot--) this.#freed[this.#freedCount++] = slot;
  }
}
