/** How much room each of several overlays may take: can be changed while they are open. */
export class SpaceLimit {
  #bytes: number;
  #waitingEnds = false;
  readonly #listeners = new Set<() => void>();

  /** Undefined: what the disk has. */
  constructor(bytes: number | undefined) {
    this.#bytes = bytes ?? Number.POSITIVE_INFINITY;
  }

  /** Infinity for none. */
  get bytes(): number {
    return this.#bytes;
  }

  /** From now on. Writes that wait for room try again at once. */
  change(bytes: number | undefined): void {
    this.#bytes = bytes ?? Number.POSITIVE_INFINITY;
    this.#tell();
  }

  /** Whether writes without room fail from now on, also where they would wait otherwise. */
  get waitingEnds(): boolean {
    return this.#waitingEnds;
  }

  /** The server ends: what waits for room fails. */
  endWaiting(): void {
    this.#waitingEnds = true;
    this.#tell();
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Calls `listener` after each change, until the function that is returned is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
