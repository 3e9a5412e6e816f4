/** Every metric of a server: its name, what it means, and where its value is. The README lists them, and a test compares. */
import type { Health } from '../core/health.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { HydrationStatus } from '../hydration/hydration.ts';
import { commands, errnos, nameOf } from '../nbd/protocol.ts';
import type { NbdServer } from '../nbd/server.ts';
import type { Labels, MetricDefinition, Sample } from '../observability/metrics.ts';

export interface ServerParts {
  readonly store: OpenStore;
  readonly server: NbdServer;
  readonly health: Health;
  /** Bytes of all open devices that differ from their snapshots. */
  readonly overlayBytes: () => number;
  /** Undefined where nothing is being hydrated. */
  readonly hydration: () => HydrationStatus | undefined;
}

export function serverMetrics(parts: ServerParts): MetricDefinition[] {
  return [
    ...clientMetrics(parts),
    ...storeMetrics(parts),
    ...cacheMetrics(parts),
    ...aheadMetrics(parts),
    ...hydrationMetrics(parts),
    ...stateMetrics(parts),
  ];
}

/** What clients ask for and get. */
function clientMetrics({ server: { counters } }: ServerParts): MetricDefinition[] {
  return [
    {
      name: 'connections_total',
      help: 'Connections accepted.',
      type: 'counter',
      read: () => counters.connectionsTotal,
    },
    { name: 'connections', help: 'Connections that are open.', type: 'gauge', read: () => counters.connectionsOpen },
    {
      name: 'connections_refused_total',
      help: 'Connections turned away, or ended for a breach of the protocol.',
      type: 'counter',
      read: () => counters.connectionsRefused,
    },
    { name: 'requests_total', help: 'Requests received.', type: 'counter', read: () => counters.requests },
    {
      name: 'request_duration_seconds',
      help: 'From a request to its reply, by command; refused and failed ones included.',
      type: 'histogram',
      read: () =>
        counters.latencies.flatMap((histogram, type) =>
          type === commands.NBD_CMD_DISC ? [] : [[{ command: commandName(type) }, histogram] as const],
        ),
    },
    {
      name: 'request_errors_total',
      help: 'Requests that were refused or failed, by the error that the client got.',
      type: 'counter',
      read: () =>
        Object.values(errnos).map((errno): Sample => [{ errno: errnoName(errno) }, counters.byErrno.get(errno) ?? 0]),
    },
    {
      name: 'request_bytes_total',
      help: 'Bytes of successful requests, by kind.',
      type: 'counter',
      read: () =>
        samples('kind', {
          read: counters.bytesRead,
          written: counters.bytesWritten,
          trimmed: counters.bytesTrimmed,
          zeroed: counters.bytesZeroed,
        }),
    },
  ];
}

/** What the store is asked for, and how much of it clients wanted. */
function storeMetrics({ store, server }: ServerParts): MetricDefinition[] {
  const { counters } = store;
  return [
    {
      name: 'store_requests_total',
      help: 'Requests made to the store.',
      type: 'counter',
      read: () => counters.storeRequests,
    },
    {
      name: 'store_bytes_total',
      help: 'Bytes fetched from the store, as they are stored, by kind.',
      type: 'counter',
      read: () => byKind(counters.storeBytes, counters.contentStoreBytes),
    },
    {
      name: 'decoded_bytes_total',
      help: 'Plain bytes that decoding gave, by kind.',
      type: 'counter',
      read: () => byKind(counters.decodedBytes, counters.contentDecodedBytes),
    },
    {
      name: 'chunks_decoded_total',
      help: 'Chunks fetched and decoded.',
      type: 'counter',
      read: () => counters.chunksFetched,
    },
    {
      name: 'chunks_fetched_again_total',
      help: 'Chunks among them that had been fetched before.',
      type: 'counter',
      read: () => counters.chunksFetchedTwice,
    },
    {
      name: 'distinct_bytes_total',
      help: 'Blocks of disks that clients read at least once since the disk was opened, in bytes.',
      type: 'counter',
      read: () => counters.distinctBytesAsked,
    },
    {
      name: 'read_amplification_ratio',
      help: 'What one distinct byte that clients read has cost: bytes fetched from the store, bytes decoded, bytes asked for.',
      type: 'gauge',
      read: () => {
        const of = (bytes: number) => (counters.distinctBytesAsked === 0 ? 0 : bytes / counters.distinctBytesAsked);
        const { bytesRead } = server.counters;
        return samples('of', {
          store: of(counters.storeBytes),
          decoded: of(counters.decodedBytes),
          asked: of(bytesRead),
        });
      },
    },
  ];
}

/** What comes from a hydrated directory, and what goes there. */
function hydrationMetrics({ store: { counters }, hydration }: ServerParts): MetricDefinition[] {
  return [
    {
      name: 'replica_blobs_total',
      help: 'Blobs read from the hydrated directory instead of the store.',
      type: 'counter',
      read: () => counters.replicaBlobs,
    },
    {
      name: 'replica_bytes_total',
      help: 'Their bytes, as they are stored.',
      type: 'counter',
      read: () => counters.replicaBytes,
    },
    {
      name: 'hydrated_blobs_total',
      help: 'Blobs written to the hydrated directory.',
      type: 'counter',
      read: () => counters.hydratedBlobs,
    },
    {
      name: 'hydrated_bytes_total',
      help: 'Their bytes, as they are stored.',
      type: 'counter',
      read: () => counters.hydratedBytes,
    },
    {
      name: 'hydration_bytes',
      help: 'Stored bytes of the chunks of the snapshot that is being hydrated: those that are there, and all.',
      type: 'gauge',
      read: () => {
        const { doneBytes = 0, totalBytes = 0 } = hydration() ?? {};
        return samples('of', { done: doneBytes, total: totalBytes });
      },
    },
  ];
}

/** What the caches of decoded chunks, in memory and on disk, have found and done. */
function cacheMetrics({ store }: ServerParts): MetricDefinition[] {
  const cache = () => store.figures.contentCache;
  return [
    {
      name: 'chunk_cache_hits_total',
      help: 'Reads of chunks answered from a cache, by tier.',
      type: 'counter',
      read: () => samples('tier', { memory: cache().hits, disk: cache().diskHits }),
    },
    {
      name: 'chunk_cache_misses_total',
      help: 'Chunks that no cache had.',
      type: 'counter',
      read: () => cache().misses,
    },
    {
      name: 'chunk_cache_evictions_total',
      help: 'What was dropped to make room: segments in memory, files on disk.',
      type: 'counter',
      read: () => samples('tier', { memory: cache().evictions, disk: cache().diskEvictions }),
    },
    {
      name: 'disk_cache_read_bytes_total',
      help: 'Bytes read from the disk cache of chunks: plain ones, or as the store has them.',
      type: 'counter',
      read: () => cache().diskBytesRead,
    },
    {
      name: 'disk_cache_written_bytes_total',
      help: 'Bytes written to it: sealed ones, or as the store has them.',
      type: 'counter',
      read: () => cache().diskBytesWritten,
    },
    {
      name: 'disk_cache_damaged_total',
      help: 'Files of it that were not what had been written.',
      type: 'counter',
      read: () => cache().diskDamaged,
    },
    {
      name: 'disk_cache_dropped_total',
      help: 'Chunks not written to it: the disk was too slow, full or failing.',
      type: 'counter',
      read: () => cache().diskWritesDropped,
    },
  ];
}

/** What was fetched before anybody asked, and what came of it. */
function aheadMetrics({ store: { counters } }: ServerParts): MetricDefinition[] {
  return [
    {
      name: 'ahead_chunks_total',
      help: 'Chunks fetched before anybody asked for them, by what has become of them: some are still waiting.',
      type: 'counter',
      read: () =>
        samples('state', {
          fetched: counters.aheadChunks,
          used: counters.aheadUsedChunks,
          dropped: counters.aheadDroppedChunks,
          failed: counters.aheadFailed,
        }),
    },
    {
      name: 'ahead_bytes_total',
      help: 'Plain bytes of these chunks.',
      type: 'counter',
      read: () =>
        samples('state', {
          fetched: counters.aheadBytes,
          used: counters.aheadUsedBytes,
          dropped: counters.aheadDroppedBytes,
        }),
    },
  ];
}

/** How the server is. */
function stateMetrics({ store, server, health, overlayBytes }: ServerParts): MetricDefinition[] {
  return [
    {
      name: 'overlay_bytes',
      help: 'Bytes of open disks that differ from their snapshots.',
      type: 'gauge',
      read: overlayBytes,
    },
    {
      name: 'queue_depth',
      help: 'What is under way or waits: requests without a reply, connections that wait for memory, chunks that wait for memory or for a decoding thread.',
      type: 'gauge',
      read: () =>
        samples('queue', {
          requests: server.inFlight.requests,
          connections_waiting: server.inFlight.waiting,
          fetches_waiting: store.figures.fetchesWaiting,
          decodes_waiting: store.figures.decodesWaiting,
        }),
    },
    {
      name: 'in_flight_bytes',
      help: 'Memory of requests and replies, and of chunks being fetched and decoded.',
      type: 'gauge',
      read: () => samples('kind', { requests: server.inFlight.bytes, fetches: store.figures.fetchBytes }),
    },
    {
      name: 'degraded',
      help: '1 if /healthz says degraded.',
      type: 'gauge',
      read: () => (health.report().status === 'ok' ? 0 : 1),
    },
    {
      name: 'degraded_reasons',
      help: 'How many reasons it gives.',
      type: 'gauge',
      read: () => health.report().reasons.length,
    },
  ];
}

function byKind(all: number, content: number): Sample[] {
  return samples('kind', { content, metadata: all - content });
}

function samples(label: string, values: Readonly<Record<string, number>>): Sample[] {
  return Object.entries(values).map(([value, number]): Sample => [{ [label]: value } satisfies Labels, number]);
}

/** `read`, `write_zeroes`. */
function commandName(type: number): string {
  return nameOf(commands, type).replace('NBD_CMD_', '').toLowerCase();
}

/** `EIO`. */
function errnoName(errno: number): string {
  return nameOf(errnos, errno).replace('NBD_', '');
}
