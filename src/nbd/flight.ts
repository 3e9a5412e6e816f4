import type { Frame } from './frame-pool.ts';
import { DecodedRequest } from './request.ts';

/** Who is told what became of a request. */
export interface FlightOwner {
  settle(flight: Flight): void;
  fail(flight: Flight, error: unknown): void;
}

/** One request from its header to the end of its reply. Reused: its fields mean something in between only. */
export class Flight extends DecodedRequest {
  /** Where the reply is made, if it is one of a fixed form, and where a payload was gathered. */
  frame: Frame | undefined;
  /** When its header was read, by performance.now(). */
  startedMs = 0;
  readonly settled: () => void;
  readonly failed: (error: unknown) => void;

  constructor(owner: FlightOwner) {
    super();
    this.settled = () => owner.settle(this);
    this.failed = (error) => owner.fail(this, error);
  }
}
