/** One kind of thing that cannot be shown as recorded, how often it occurred, and where. */
export interface Oddity {
  /** One line for people, without count and example. */
  readonly message: string;
  readonly count: number;
  /** Path of the first one met; for messages, so not exact for names that are not UTF-8. */
  readonly example: string;
  /** Paths, raw bytes: the first one's, or where every one was asked for those of all. */
  readonly examples: readonly Uint8Array[];
}

export function oddityOf(message: string, count: number, examples: readonly Uint8Array[]): Oddity {
  return { message, count, example: Buffer.from(examples[0]!).toString(), examples };
}

/** Counts what cannot be shown faithfully, so that nothing disappears silently and no log drowns. */
export class Oddities {
  readonly #everyExample: boolean;
  readonly #kinds = new Map<string, { count: number; readonly examples: Uint8Array[] }>();

  /** `everyExample`: keep the path of each one, not of the first of a kind only. */
  constructor({ everyExample = false }: { everyExample?: boolean | undefined } = {}) {
    this.#everyExample = everyExample;
  }

  /** `message` is the kind; `path` is called where the example is kept. */
  add(message: string, path: () => Uint8Array): void {
    const known = this.#kinds.get(message);
    if (known === undefined) {
      this.#kinds.set(message, { count: 1, examples: [path()] });
      return;
    }
    known.count++;
    if (this.#everyExample) known.examples.push(path());
  }

  list(): Oddity[] {
    return [...this.#kinds].map(([message, { count, examples }]) => oddityOf(message, count, examples));
  }
}
