/** What signals mean to a server: SIGTERM and SIGINT end it in order, a second one at once; SIGUSR1 asks for a report. */
import { constants } from 'node:os';

export interface Signals {
  /** Settles when the server is to end. */
  readonly stopped: Promise<void>;
  /** The broken invariant because of which it ends, or ended badly; undefined if there is none. */
  readonly bug: unknown;
  /** Ends the server because of a broken invariant: a disk that is down is better than one that lies. */
  stop(bug: unknown): void;
}

/** The exit code of a program that a signal ended, as shells count. */
function exitCodeOf(signal: 'SIGTERM' | 'SIGINT'): number {
  return 128 + constants.signals[signal];
}

/** From now on SIGTERM and SIGINT settle `stopped`; before, they end the process as usual. */
export function runUntilSignal(): Signals {
  let settle = () => {};
  const stopped = new Promise<void>((resolve) => {
    settle = resolve;
  });
  let isStopping = false;
  let bug: unknown;
  const onSignal = (signal: 'SIGTERM' | 'SIGINT') => {
    if (isStopping) process.exit(exitCodeOf(signal));
    isStopping = true;
    settle();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  return {
    stopped,
    get bug() {
      return bug;
    },
    stop(cause) {
      bug ??= cause;
      settle();
    },
  };
}

/**
 * Calls `report` on every SIGUSR1. To be called before anything slow: without a listener Node takes the signal for a wish
 * to be debugged, and listens on a port.
 */
export function reportOnSignal(report: () => void): void {
  process.on('SIGUSR1', report);
}
