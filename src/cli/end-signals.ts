/** SIGINT and SIGTERM, once asked for, and bugs: all mean the end, in order. */
export class EndSignals {
  readonly asked: Promise<void>;
  #ask = () => {};
  #bug: { readonly cause: unknown } | undefined;
  readonly #listeners = new Set<(signal: NodeJS.Signals) => void>();

  constructor() {
    this.asked = new Promise((resolve) => {
      this.#ask = resolve;
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        this.#ask();
        for (const listener of this.#listeners) listener(signal);
      });
    }
  }

  onSignal(listener: (signal: NodeJS.Signals) => void): void {
    this.#listeners.add(listener);
  }

  bug(cause: unknown): void {
    this.#bug ??= { cause };
    this.#ask();
  }

  throwBug(): void {
    if (this.#bug !== undefined) throw this.#bug.cause;
  }
}
