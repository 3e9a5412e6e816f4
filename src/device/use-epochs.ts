/**
 * Delays giving a place (a slot, a file) away until every request that may have looked it up is through: a read that
 * found block 7 in slot 3 must not see what is written to slot 3 after block 7 was trimmed.
 *
 * Requests belong to one of two epochs. What is retired waits for the requests of both; new requests join the younger
 * one, so a steady stream of them cannot keep a retired place waiting for ever.
 */
export class UseEpochs {
  readonly #inFlight: [number, number] = [0, 0];
  #young: 0 | 1 = 0;
  /** Retired before the young epoch began: only requests of the old one can still use them. */
  #afterOld: (() => void)[] = [];
  /** Retired since. */
  #afterYoung: (() => void)[] = [];

  /** Counts a request in; hand the result to `leave`. */
  enter(): 0 | 1 {
    this.#inFlight[this.#young]++;
    return this.#young;
  }

  leave(epoch: 0 | 1): void {
    this.#inFlight[epoch]--;
    this.#advance();
  }

  /** Calls `action` once no request that is in flight now is in flight any more; at once if there is none. */
  retire(action: () => void): void {
    this.#afterYoung.push(action);
    this.#advance();
  }

  #advance(): void {
    while (this.#inFlight[this.#young === 0 ? 1 : 0] === 0) {
      const ready = this.#afterOld;
      this.#afterOld = [];
      for (const action of ready) action();
      if (this.#afterYoung.length === 0) return;
      this.#afterOld = this.#afterYoung;
      this.#afterYoung = [];
      this.#young = this.#young === 0 ? 1 : 0;
    }
  }
}
