/**
 * How much may be in flight: requests and payload bytes, for each connection and for all. What does not fit waits, in
 * order of arrival, and its connection is not read from meanwhile: back-pressure instead of buffering.
 *
 * Two exceptions keep it from ever standing still. A request larger than a whole allowance is admitted alone. And a
 * connection with nothing in flight may always have one request of up to `guaranteedBytes`: clients that do not read
 * their replies can take the common allowance from the others, but never the last request.
 */
import { assert } from '../core/errors.ts';
import type { NbdLimits } from './limits.ts';

type InFlightLimits = Pick<
  NbdLimits,
  'requestsMax' | 'repliesInFlightBytesMax' | 'requestsPerConnectionMax' | 'bytesPerConnectionMax' | 'guaranteedBytes'
>;

/** What all connections have in flight together. */
export class InFlight {
  readonly limits: InFlightLimits;
  #requests = 0;
  #bytes = 0;
  /** Requests ever admitted: shows whether a retry got anywhere. */
  #admitted = 0;
  /** Accounts whose next request waits for the others, first come first served. */
  readonly #waiting = new Set<InFlightAccount>();

  constructor(limits: InFlightLimits) {
    this.limits = limits;
  }

  get requests(): number {
    return this.#requests;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Connections whose next request waits for others to finish. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Whether somebody waits for others to finish. */
  get contended(): boolean {
    return this.#waiting.size > 0;
  }

  /** For InFlightAccount: room for a request, or a place in the queue. */
  take(account: InFlightAccount, bytes: number): boolean {
    const guaranteed = account.requests === 0 && bytes <= this.limits.guaranteedBytes;
    const first = this.#waiting.values().next().value;
    // Whoever is not first in the queue stays behind those who came before.
    const mayGo = guaranteed || ((first === undefined || first === account) && this.#fits(bytes));
    if (!mayGo) {
      this.#waiting.add(account);
      return false;
    }
    this.#waiting.delete(account);
    this.#admitted++;
    this.#requests++;
    this.#bytes += bytes;
    return true;
  }

  /** For InFlightAccount: a request is over. Those in front of the queue try again, until one still has to wait. */
  give(bytes: number): void {
    this.#requests--;
    this.#bytes -= bytes;
    assert(this.#requests >= 0 && this.#bytes >= 0, 'no more is given back than was taken');
    if (this.#waiting.size > 0) this.#wake();
  }

  /** For InFlightAccount: stops waiting. */
  leave(account: InFlightAccount): void {
    this.#waiting.delete(account);
  }

  #wake(): void {
    for (;;) {
      const first = this.#waiting.values().next().value;
      if (first === undefined) return;
      const before = this.#admitted;
      first.retry();
      // It may be waiting again already, at the end of the queue, with its next request.
      if (this.#admitted === before && this.#waiting.has(first)) return;
    }
  }

  #fits(bytes: number): boolean {
    const { requestsMax, repliesInFlightBytesMax } = this.limits;
    if (this.#requests >= requestsMax) return false;
    return hasRoom({ used: this.#bytes, bytes, max: repliesInFlightBytesMax });
  }
}

/** One connection's share. */
export class InFlightAccount {
  /** Called when room may have come: the owner asks again, or leaves. */
  readonly retry: () => void;
  readonly #all: InFlight;
  #requests = 0;
  #bytes = 0;

  constructor(all: InFlight, retry: () => void) {
    this.#all = all;
    this.retry = retry;
  }

  /** Requests admitted whose replies have not been written out. */
  get requests(): number {
    return this.#requests;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Admits a request with `bytes` of payload, either way; if false, `retry` will be called, or a `give` of one's own comes first. */
  take(bytes: number): boolean {
    const { requestsPerConnectionMax, bytesPerConnectionMax } = this.#all.limits;
    if (this.#requests >= requestsPerConnectionMax) return false;
    if (!hasRoom({ used: this.#bytes, bytes, max: bytesPerConnectionMax })) return false;
    if (!this.#all.take(this, bytes)) return false;
    this.#requests++;
    this.#bytes += bytes;
    return true;
  }

  /** Gives back what an admitted request took. */
  give(bytes: number): void {
    this.#requests--;
    this.#bytes -= bytes;
    assert(this.#requests >= 0 && this.#bytes >= 0, 'no more is given back than was taken');
    this.#all.give(bytes);
  }

  /** Nothing more will be asked for. */
  leave(): void {
    this.#all.leave(this);
  }
}

/** A request without payload needs no bytes; one larger than the whole allowance goes alone. */
function hasRoom({ used, bytes, max }: { used: number; bytes: number; max: number }): boolean {
  return bytes === 0 || used === 0 || used + bytes <= max;
}
