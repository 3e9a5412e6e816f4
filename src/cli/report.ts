import type { Health } from '../core/health.ts';
import { formatBytes } from '../core/units.ts';
import type { OpenStore } from '../exports/open-store.ts';
import { describeProgress, type HydrationStatus } from '../hydration/hydration.ts';
import type { NbdServer } from '../nbd/server.ts';

/** What one server has done since it started. Bytes, counts and ratios. */
export interface Report {
  /** Bytes that clients asked for in READ requests. */
  readonly askedBytes: number;
  /** Bytes fetched from the store, metadata included. */
  readonly storeBytes: number;
  /** Plain bytes that decoding gave, metadata included. */
  readonly decodedBytes: number;
  readonly chunksFetched: number;
  readonly chunksFetchedTwice: number;
  /** Bytes fetched, and bytes decoded, for each byte asked; undefined before the first read. */
  readonly storeAmplification: number | undefined;
  readonly decodeAmplification: number | undefined;
  /** Bytes of all open devices that differ from their snapshots. */
  readonly overlayBytes: number;
  /** Undefined where nothing is being hydrated. */
  readonly hydration?: HydrationStatus | undefined;
  readonly status: 'ok' | 'degraded';
  /** Why it is degraded, one line each. */
  readonly reasons: readonly string[];
}

export function makeReport(parts: {
  store: OpenStore;
  overlayBytes: number;
  server: NbdServer;
  health: Health;
  hydration: HydrationStatus | undefined;
}): Report {
  const { storeBytes, decodedBytes, chunksFetched, chunksFetchedTwice } = parts.store.counters;
  const askedBytes = parts.server.counters.bytesRead;
  const ratio = (bytes: number) => (askedBytes === 0 ? undefined : Number((bytes / askedBytes).toFixed(3)));
  return {
    askedBytes,
    storeBytes,
    decodedBytes,
    chunksFetched,
    chunksFetchedTwice,
    storeAmplification: ratio(storeBytes),
    decodeAmplification: ratio(decodedBytes),
    overlayBytes: parts.overlayBytes,
    hydration: parts.hydration,
    ...parts.health.report(),
  };
}

/** The report as one line for people. */
export function describeReport(report: Report): string {
  const amplification =
    report.storeAmplification === undefined
      ? ''
      : `; read amplification ${report.storeAmplification} (store), ${report.decodeAmplification} (decoded)`;
  return (
    `Clients asked for ${formatBytes(report.askedBytes)}; fetched from the store ${formatBytes(report.storeBytes)}, ` +
    `decoded ${formatBytes(report.decodedBytes)}, ${report.chunksFetched} chunks (${report.chunksFetchedTwice} twice)` +
    `${amplification}; overlay ${formatBytes(report.overlayBytes)}${describeHydration(report.hydration)}. ` +
    `Health: ${report.status === 'ok' ? 'ok' : `degraded: ${report.reasons.join('; ')}`}.`
  );
}

function describeHydration(status: HydrationStatus | undefined): string {
  if (status === undefined) return '';
  const { state, snapshot } = status;
  return `; hydration ${state}${snapshot === undefined ? '' : `: snapshot ${snapshot.slice(0, 8)}, ${describeProgress(status)}`}`;
}
