/** One kind of thing that cannot be shown as recorded, how often it occurred, and where first. */
export interface Oddity {
  readonly kind: string;
  readonly count: number;
  /** A path, or another example of the first one met. */
  readonly example: string;
}

/** Counts what cannot be shown faithfully, so that nothing disappears silently and no log drowns. */
export class Oddities {
  readonly #kinds = new Map<string, { count: number; readonly example: string }>();

  /** `example` is called for the first one of a kind only. */
  add(kind: string, example: () => string): void {
    const known = this.#kinds.get(kind);
    if (known === undefined) this.#kinds.set(kind, { count: 1, example: example() });
    else known.count++;
  }

  list(): Oddity[] {
    return [...this.#kinds].map(([kind, { count, example }]) => ({ kind, count, example }));
  }
}
