import { mapAhead } from '../core/concurrency.ts';
import { assert, UserError } from '../core/errors.ts';
import { MiB } from '../core/units.ts';
import type { ImageSink } from './image-sink.ts';
import { extentsOf, type ImageSource } from './image-source.ts';
import {
  BACKING_BYTES_MAX,
  CLUSTER_BYTES,
  entryFor,
  headerCluster,
  L2_ENTRIES,
  l1EntriesOf,
  layoutOf,
  refcountBlocksOf,
  refcountTableOf,
  tableClusters,
  ZERO_ENTRY,
} from './qcow2-format.ts';
import { isZero } from './raw-image.ts';

/** Clusters read at a time, and reads ahead of the one that is being written. */
const STEP_CLUSTERS = (1 * MiB) / CLUSTER_BYTES;
const READS_AHEAD = 8;

export interface Qcow2Options {
  /** Only what was written since the snapshot, over this file or URI, whose format is raw. */
  readonly backing?: string | undefined;
  /** Told of every byte of the disk once. */
  readonly onProgress: (bytes: number) => void;
}

/**
 * Writes the disk as a qcow2 image, version 3. Clusters of zeroes take no room; where they must hide the backing file's
 * they have an entry that says so. What goes to a pipe has its header first, so everything is counted beforehand, and
 * zeroes that only reading shows are written. Rejects with UserError for a backing file's name that is too long.
 */
export async function writeQcow2Image(source: ImageSource, sink: ImageSink, options: Qcow2Options): Promise<void> {
  const { backing } = options;
  if (backing !== undefined && Buffer.byteLength(backing) > BACKING_BYTES_MAX) {
    throw new UserError(`The name of the backing file has more than ${BACKING_BYTES_MAX} bytes.`);
  }
  const { sizeBytes } = source;
  let promised: number | undefined;
  if (sink.rewrite === undefined) {
    promised = await countFront(source, backing !== undefined);
    await sink.write(headerCluster(sizeBytes, layoutOf(sizeBytes, promised), backing));
  } else {
    await sink.skip(CLUSTER_BYTES);
  }
  const l1 = await writeData(source, sink, options);
  const layout = layoutOf(sizeBytes, sink.position / CLUSTER_BYTES);
  const isAsPromised = sink.rewrite !== undefined || layout.front === promised;
  assert(isAsPromised, 'the header in front says where the tables are');
  await sink.write(tableClusters(l1, layout.l1));
  await sink.write(refcountTableOf(layout));
  for (const block of refcountBlocksOf(layout)) await sink.write(block);
  await sink.rewrite?.(headerCluster(sizeBytes, layout, backing));
}

/** Consecutive clusters of one kind; the disk's last one may be cut short. */
interface ClusterRun {
  readonly cluster: number;
  readonly count: number;
  /** absent: the backing file's, or zeroes without one. */
  readonly kind: 'data' | 'zero' | 'absent';
}

/** Header, data and L2 tables of an image in which all data is written. */
async function countFront(source: ImageSource, isDelta: boolean): Promise<number> {
  let clusters = 1;
  const tables = new Set<number>();
  for await (const { cluster, count, kind } of clusterRuns(source, isDelta)) {
    if (kind === 'absent') continue;
    if (kind === 'data') clusters += count;
    const last = Math.floor((cluster + count - 1) / L2_ENTRIES);
    for (let table = Math.floor(cluster / L2_ENTRIES); table <= last; table++) tables.add(table);
  }
  return clusters + tables.size;
}

/** The clusters and their L2 tables. Resolves to the L1 table. */
async function writeData(
  source: ImageSource,
  sink: ImageSink,
  { backing, onProgress }: Qcow2Options,
): Promise<bigint[]> {
  const l1 = new Array<bigint>(l1EntriesOf(source.sizeBytes)).fill(0n);
  let table: { readonly index: number; readonly entries: bigint[] } | undefined;
  const finishTable = async () => {
    if (table === undefined) return;
    if (table.entries.some((entry) => entry !== 0n)) {
      l1[table.index] = entryFor(sink.position / CLUSTER_BYTES);
      await sink.write(tableClusters(table.entries, 1));
    }
    table = undefined;
  };
  const isDelta = backing !== undefined;
  const zeroEntry = isDelta ? ZERO_ENTRY : 0n;
  for await (const step of mapAhead(stepsOf(source, isDelta), READS_AHEAD, (next) => readStep(source, next))) {
    const { cluster, count, kind, bytes } = step;
    for (let done = 0; done < count; ) {
      const index = Math.floor((cluster + done) / L2_ENTRIES);
      const within = (cluster + done) % L2_ENTRIES;
      const inTable = Math.min(count - done, L2_ENTRIES - within);
      if (kind !== 'absent') {
        if (table?.index !== index) await finishTable();
        table ??= { index, entries: new Array<bigint>(L2_ENTRIES).fill(0n) };
        if (kind === 'zero') table.entries.fill(zeroEntry, within, within + inTable);
        else {
          const part = bytes!.subarray(done * CLUSTER_BYTES, (done + inTable) * CLUSTER_BYTES);
          await writeClusters(part, sink, { entries: table.entries, within, zeroEntry });
        }
      }
      done += inTable;
    }
    onProgress(Math.min(count * CLUSTER_BYTES, source.sizeBytes - cluster * CLUSTER_BYTES));
  }
  await finishTable();
  return l1;
}

/** Appends clusters of data and notes where they are. Those of zeroes are left out, unless their place is promised. */
async function writeClusters(
  bytes: Buffer,
  sink: ImageSink,
  { entries, within, zeroEntry }: { readonly entries: bigint[]; readonly within: number; readonly zeroEntry: bigint },
): Promise<void> {
  const maySkip = sink.rewrite !== undefined;
  let begin = 0;
  const flush = async (end: number) => {
    if (end > begin) await sink.write(bytes.subarray(begin, end));
  };
  let pending = sink.position / CLUSTER_BYTES;
  for (let at = 0; at < bytes.length; at += CLUSTER_BYTES) {
    const index = within + at / CLUSTER_BYTES;
    if (maySkip && isZero(bytes.subarray(at, at + CLUSTER_BYTES))) {
      entries[index] = zeroEntry;
      await flush(at);
      begin = at + CLUSTER_BYTES;
    } else {
      entries[index] = entryFor(pending++);
    }
  }
  await flush(bytes.length);
}

async function* stepsOf(source: ImageSource, isDelta: boolean): AsyncGenerator<ClusterRun> {
  for await (const { cluster, count, kind } of clusterRuns(source, isDelta)) {
    const stepCount = kind === 'data' ? STEP_CLUSTERS : count;
    for (let done = 0; done < count; done += stepCount) {
      yield { cluster: cluster + done, count: Math.min(stepCount, count - done), kind };
    }
  }
}

async function readStep(source: ImageSource, run: ClusterRun): Promise<ClusterRun & { readonly bytes?: Buffer }> {
  if (run.kind !== 'data') return run;
  const bytes = Buffer.alloc(run.count * CLUSTER_BYTES);
  const offset = run.cluster * CLUSTER_BYTES;
  await source.read(offset, bytes.subarray(0, Math.min(bytes.length, source.sizeBytes - offset)));
  return { ...run, bytes };
}

/** The disk's extents as clusters: one that is partly written counts as written, partly data as data. */
async function* clusterRuns(source: ImageSource, isDelta: boolean): AsyncGenerator<ClusterRun> {
  const kindOf = ({ zero, dirty }: { zero: boolean; dirty: boolean }) => {
    if (isDelta) return !dirty ? 'absent' : zero ? 'zero' : 'data';
    return zero ? 'absent' : 'data';
  };
  let partial: { zero: boolean; dirty: boolean } | undefined;
  let at = 0;
  for await (const { length, zero, dirty } of extentsOf(source)) {
    for (const end = at + length; at < end; ) {
      const cluster = Math.floor(at / CLUSTER_BYTES);
      const count = Math.floor((end - at) / CLUSTER_BYTES);
      if (at % CLUSTER_BYTES === 0 && count > 0) {
        assert(partial === undefined, 'a cluster ends where the next one begins');
        yield { cluster, count, kind: kindOf({ zero, dirty }) };
        at += count * CLUSTER_BYTES;
        continue;
      }
      partial = { zero: (partial?.zero ?? true) && zero, dirty: (partial?.dirty ?? false) || dirty };
      at = Math.min(end, (cluster + 1) * CLUSTER_BYTES);
      if (at % CLUSTER_BYTES !== 0 && at < source.sizeBytes) continue;
      yield { cluster, count: 1, kind: kindOf(partial) };
      partial = undefined;
    }
  }
}
