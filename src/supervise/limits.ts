/** Every bound of the supervisor: unit in the name, the reason beside it. What a client may do at all is nbd/limits.ts' business. */
import { KiB, MiB } from '../core/units.ts';
import { nbdLimits } from '../nbd/limits.ts';

export interface SuperviseLimits {
  /** Connections at once. More than the worker takes: it is the worker that picks who has to go, and it cannot while it is down. */
  readonly connectionsMax: number;
  /** Unanswered requests on a connection, some 300 bytes each. Several times what the worker admits, so that it never waits for us. */
  readonly requestsPerConnectionMax: number;
  readonly requestsMax: number;
  /** Bytes of payload kept to be sent again, on a connection: the largest WRITE fits. */
  readonly bytesPerConnectionMax: number;
  /** The same on all connections. Twice what the worker has in flight by default, so that it is kept busy. */
  readonly bytesMax: number;
  /** As NbdLimits.guaranteedBytes. */
  readonly guaranteedBytes: number;
  /** Bytes that may wait for one socket before the other one is no longer read from. A few of the largest chunks a socket gives. */
  readonly unsentBytesMax: number;
  /**
   * Milliseconds. A connection that the worker closes without a reason may be the first sign of its death, or its own
   * decision; if the worker has not ended after so long, it was a decision, and the client's connection is closed too.
   */
  readonly orphanedMsMax: number;
  /** Milliseconds a worker must live after it was ready, unless it has answered something, for its death not to count as fruitless. */
  readonly fruitfulMs: number;
  /** Fruitless deaths in a row after which the supervisor gives up: with the delays below some six seconds. */
  readonly fruitlessDeathsMax: number;
  /** Milliseconds before the worker is started again after the second fruitless death in a row; doubled for each further one. */
  readonly restartDelayMs: number;
  readonly restartDelayMsMax: number;
  /** Deaths of any kind within `deathsWindowMs` after which it gives up: a request that kills each worker after others were answered. */
  readonly deathsMax: number;
  readonly deathsWindowMs: number;
  /** Bytes of the worker's log kept for the message about its end: some twenty lines. */
  readonly logTailBytes: number;
}

export const superviseLimits: SuperviseLimits = {
  connectionsMax: nbdLimits.connectionsMax + 64,
  requestsPerConnectionMax: 1024,
  requestsMax: 16384,
  bytesPerConnectionMax: nbdLimits.payloadBytesMax,
  bytesMax: 128 * MiB,
  guaranteedBytes: nbdLimits.guaranteedBytes,
  unsentBytesMax: 256 * KiB,
  orphanedMsMax: 2_000,
  fruitfulMs: 1_000,
  fruitlessDeathsMax: 10,
  restartDelayMs: 50,
  restartDelayMsMax: 1_000,
  deathsMax: 60,
  deathsWindowMs: 60_000,
  logTailBytes: 4 * KiB,
};
