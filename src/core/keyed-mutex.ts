/** One at a time for each key, first come, first served. */
export class KeyedMutex {
  /** Settles when the last who asked for the key is done. */
  readonly #tails = new Map<string, Promise<void>>();

  /** Resolves when it is the caller's turn, to what ends it. Idempotent. */
  async lock(key: string): Promise<() => void> {
    const before = this.#tails.get(key);
    let release = () => {};
    const done = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#tails.set(key, done);
    await before;
    return () => {
      if (this.#tails.get(key) === done) this.#tails.delete(key);
      release();
    };
  }

  async with<T>(key: string, action: () => Promise<T>): Promise<T> {
    const release = await this.lock(key);
    try {
      return await action();
    } finally {
      release();
    }
  }
}
