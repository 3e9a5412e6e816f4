/** One kind of thing that cannot be shown as recorded, how often it occurred, and where first. */
export interface Oddity {
  /** One line for people, without count and example. */
  readonly message: string;
  readonly count: number;
  /** A path, or another example of the first one met. */
  readonly example: string;
}

/** Counts what cannot be shown faithfully, so that nothing disappears silently and no log drowns. */
export class Oddities {
  readonly #kinds = new Map<string, { count: number; readonly example: string }>();

  /** `message` is the kind; `example` is called for the first of a kind only. */
  add(message: string, example: () => string): void {
    const known = this.#kinds.get(message);
    if (known === undefined) this.#kinds.set(message, { count: 1, example: example() });
    else known.count++;
  }

  list(): Oddity[] {
    return [...this.#kinds].map(([message, { count, example }]) => ({ message, count, example }));
  }
}
