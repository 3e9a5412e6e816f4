/** Whether clients are being served right now: what works in the background makes way for them. */
export class Activity {
  readonly #now: () => number;
  #inFlight = 0;
  #endedAtMs = Number.NEGATIVE_INFINITY;

  /** `now`: milliseconds since some fixed moment. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Counts `work` as a client's. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#inFlight++;
    try {
      return await work();
    } finally {
      this.#inFlight--;
      this.#endedAtMs = this.#now();
    }
  }

  /** Milliseconds since a client's last work ended; 0 while there is some, Infinity if there was none. */
  get quietMs(): number {
    return this.#inFlight > 0 ? 0 : this.#now() - this.#endedAtMs;
  }
}
