/** The rows of the table, in its order. */
import type { Metric } from './results.ts';

const seconds = { unit: 's', better: 'less' } as const;
const bytes = { unit: 'bytes', better: 'less' } as const;
const throughput = { unit: 'bytes/s', better: 'more' } as const;
const rate = { unit: '1/s', better: 'more' } as const;
const count = { unit: '', better: 'neither' } as const;

export const metrics = {
  'first-query': { title: 'first query: from the first command to a row', ...seconds },
  'first-query-bytes': { title: '- bytes of the store read until then', ...bytes },
  'first-query-needed': { title: '- of these, whole chunks that had to be read: with `--no-warm`', ...bytes },
  'first-query-requests': { title: '- requests to the store until then', ...count },
  'first-query-key': { title: '- of it, making the key of the passphrase, measured alone', ...seconds },
  'first-query-memory': { title: '- resident memory, most', ...bytes },
  'first-query-cpu': { title: '- CPU time', ...seconds },
  'lookups-cold': { title: '1,000 index lookups after the first query, cold', ...seconds },
  'lookups-warm': { title: '- the same keys again', ...seconds },
  'lookups-disk': { title: '- server and PostgreSQL started anew, chunks in the disk cache', ...seconds },
  'lookups-disk-cold': { title: '- the same with `--no-warm`: nothing is recalled into memory', ...seconds },
  'lookups-chunks': { title: '- chunks fetched by the cold ones', ...count },
  'lookups-bound': { title: '- their bound: chunks x fetch and decode of one alone, one at a time', ...seconds },
  'sum-abalance': { title: '`select sum(abalance)`, cold', ...throughput },
  'copy-files': { title: 'every file once: nbdcopy, cold', ...throughput },
  'copy-memory': { title: '- resident memory, most', ...bytes },
  'memory-beyond': { title: '- of that, beyond caches + in flight + 150 MiB + 100 bytes an entry', ...bytes },
  'copy-cpu': { title: '- CPU time', ...seconds },
  'copy-noise': { title: 'every file once, data that does not compress', ...throughput },
  'chunk-alone': { title: 'one chunk alone, fetch and decode in one process', unit: 'ms', better: 'less' },
  'chunk-reads': { title: '8 KiB reads over NBD, each of another chunk, cold', unit: 'ms', better: 'less' },
  'random-cold': { title: '4 KiB random reads, depth 16, cold', ...rate },
  'random-warm': { title: '4 KiB random reads, depth 16, 32 MiB in memory', ...rate },
  'tps-read': { title: 'pgbench, read-only, warm', ...rate },
  'tps-write': { title: 'pgbench, read-write', ...rate },
  'overlay-growth': { title: '- growth of the overlay for each transaction', ...bytes },
  'tps-memory': { title: '- resident memory, most', ...bytes },
  'chunks-twice': { title: 'chunks fetched twice, in all of the above', unit: '', better: 'less' },
} as const satisfies Readonly<Record<string, Metric>>;

export type MetricId = keyof typeof metrics;
export const metricIds = Object.keys(metrics) as MetricId[];
