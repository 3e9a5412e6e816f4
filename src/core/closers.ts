/** What has been opened and must be closed again, in reverse order, whatever else fails. */
export class Closers {
  readonly #steps: (() => Promise<unknown>)[] = [];

  add(close: () => Promise<unknown>): void {
    this.#steps.push(close);
  }

  /** Runs every step, the newest first, each once. Rejects with the first failure, after all have run. */
  async close(): Promise<void> {
    let failure: { readonly cause: unknown } | undefined;
    for (let close = this.#steps.pop(); close !== undefined; close = this.#steps.pop()) {
      try {
        await close();
      } catch (cause) {
        failure ??= { cause };
      }
    }
    if (failure !== undefined) throw failure.cause;
  }

  /** After a failure: closes what there is and rejects with that failure, since what follows from it says less. */
  async closeBecause(cause: unknown): Promise<never> {
    await this.close().catch(() => undefined);
    throw cause;
  }
}
