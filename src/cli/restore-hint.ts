import type { Log } from '../core/log.ts';
import type { TopReports } from './top-report.ts';
import { describeEstimate } from './top-text.ts';

/** How often it is looked, milliseconds: nobody acts on it faster. */
const LOOK_EVERY_MS = 10_000;

/** Logs of every snapshot, once, that a restore would have been faster than what was read of it. Returns what ends that. */
export function hintAtRestores(reports: TopReports, log: Log): () => Promise<void> {
  const told = new WeakSet<object>();
  const look = () => {
    for (const { name, source, estimate } of reports.estimates()) {
      if (!estimate.restoreIsFaster || told.has(source)) continue;
      told.add(source);
      log.info(
        { export: name, snapshot: source.snapshotId, ...estimate },
        `Disk ${name}: ${describeEstimate(estimate)}`,
      );
    }
  };
  const timer = setInterval(look, LOOK_EVERY_MS);
  timer.unref();
  return async () => {
    clearInterval(timer);
    look(); // A run shorter than that shall hear of it, too.
  };
}
