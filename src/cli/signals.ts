/** What signals mean to a server: SIGTERM and SIGINT end it in order, a second one at once; SIGUSR1 asks for a report. */
export interface Signals {
  /** Settles when the server is to end: with the error if a bug is the reason. */
  readonly stopped: Promise<unknown>;
  /** Ends the server because of a broken invariant: a disk that is down is better than one that lies. */
  stop(bug: unknown): void;
  onReport(report: () => Promise<void>): void;
}

/** 128 + SIGINT, as shells count. */
const EXIT_INTERRUPTED = 130;

export function runUntilSignal(): Signals {
  let settle: (bug: unknown) => void = () => {};
  const stopped = new Promise<unknown>((resolve) => {
    settle = resolve;
  });
  let isStopping = false;
  const onSignal = () => {
    if (isStopping) process.exit(EXIT_INTERRUPTED);
    isStopping = true;
    settle(undefined);
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  return {
    stopped,
    stop: settle,
    onReport: (report) => void process.on('SIGUSR1', () => void report()),
  };
}
