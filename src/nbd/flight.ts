import type { Frame } from './frame-pool.ts';
import type { RequestHeader } from './request.ts';

/** Who is told what became of a request. */
export interface FlightOwner {
  settle(flight: Flight): void;
  fail(flight: Flight, error: unknown): void;
}

/** One request from its header to the end of its reply. Reused: its fields mean something in between only. */
export class Flight implements RequestHeader {
  type = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offset = 0;
  offsetHigh = 0;
  offsetLow = 0;
  length = 0;
  /** Payload bytes the account was charged. */
  chargedBytes = 0;
  /** Where the reply is made, if it is one of a fixed form. */
  frame: Frame | undefined;
  readonly settled: () => void;
  readonly failed: (error: unknown) => void;

  constructor(owner: FlightOwner) {
    this.settled = () => owner.settle(this);
    this.failed = (error) => owner.fail(this, error);
  }
}
