import { LatencyHistogram } from '../core/histogram.ts';
import { commands } from './protocol.ts';

/** What a server has done since it began; the command line reads and prints it. */
export interface NbdCounters {
  /** Connections that are open, and that ever were accepted. */
  connectionsOpen: number;
  connectionsTotal: number;
  /** Connections turned away because all places were taken, or cut off for a breach of the protocol or a limit. */
  connectionsRefused: number;
  /** Requests received, refused ones included. */
  requests: number;
  /** Bytes of data in successful READs and WRITEs, and of the ranges of TRIMs and WRITE_ZEROES. */
  bytesRead: number;
  bytesWritten: number;
  bytesTrimmed: number;
  bytesZeroed: number;
  /** Requests refused for what they ask, and requests that failed. */
  requestsRefused: number;
  errors: number;
  /** Both of these by the number that the client got. */
  readonly byErrno: Map<number, number>;
  /** From a request's header to its reply on the way out, by the number of the command: those answered, refused ones included. */
  readonly latencies: readonly LatencyHistogram[];
}

/** A place for every command's number. */
const COMMAND_COUNT = Math.max(...Object.values(commands)) + 1;

export function zeroCounters(): NbdCounters {
  return {
    connectionsOpen: 0,
    connectionsTotal: 0,
    connectionsRefused: 0,
    requests: 0,
    bytesRead: 0,
    bytesWritten: 0,
    bytesTrimmed: 0,
    bytesZeroed: 0,
    requestsRefused: 0,
    errors: 0,
    byErrno: new Map(),
    latencies: Array.from({ length: COMMAND_COUNT }, () => new LatencyHistogram()),
  };
}
