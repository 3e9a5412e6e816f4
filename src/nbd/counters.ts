/** What a server has done since it began; the command line reads and prints it. */
export interface NbdCounters {
  /** Connections that are open, and that ever were accepted. */
  connectionsOpen: number;
  connectionsTotal: number;
  /** Connections turned away because all places were taken, or cut off for a breach of the protocol or a limit. */
  connectionsRefused: number;
  /** Requests received, refused ones included. */
  requests: number;
  /** Bytes of data in successful READs and WRITEs. */
  bytesRead: number;
  bytesWritten: number;
  /** Requests refused for what they ask, and requests that failed. */
  requestsRefused: number;
  errors: number;
}

export function zeroCounters(): NbdCounters {
  return {
    connectionsOpen: 0,
    connectionsTotal: 0,
    connectionsRefused: 0,
    requests: 0,
    bytesRead: 0,
    bytesWritten: 0,
    requestsRefused: 0,
    errors: 0,
  };
}
