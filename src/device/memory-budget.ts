/**
 * Bytes that the blocks of all memory overlays of a process may take together: hand one object to each of them. Who
 * comes first gets it; an overlay that finds nothing left spills to its file, and one that is trimmed or closed gives
 * back what it had. Nobody waits.
 */
export class MemoryBudget {
  readonly bytesMax: number;
  #bytesInUse = 0;

  /** Below 0 counts as 0. */
  constructor(bytesMax: number) {
    this.bytesMax = Math.max(0, bytesMax);
  }

  get bytesInUse(): number {
    return this.#bytesInUse;
  }

  get freeBytes(): number {
    return this.bytesMax - this.#bytesInUse;
  }

  /** Whether there were `bytes` left; they are then the caller's until `give`. */
  take(bytes: number): boolean {
    if (this.#bytesInUse + bytes > this.bytesMax) return false;
    this.#bytesInUse += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#bytesInUse -= bytes;
  }
}
