/**
 * A profile: the chunks that were read of a snapshot until somebody said "now", in the order of their first read. It
 * belongs to what was backed up, not to the snapshot: later snapshots of the same source have most of its chunks too.
 */
import { type ReadColumns, readColumns, writeColumns } from '../cache/columns.ts';
import { CacheDamagedError } from '../cache/errors.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import { MAC_BYTES, toHex } from '../core/mac.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import type { TracedChunk } from './read-trace.ts';

/** To be raised with every change of what is written. */
const PROFILE_VERSION = 1;

export interface Profile {
  /** 64 hex digits: the snapshot it was recorded on. */
  readonly snapshotId: string;
  /** Milliseconds since 1970. */
  readonly recordedMs: number;
  readonly chunks: readonly TracedChunk[];
}

/** What was backed up, as a snapshot's header has it; text for people. */
export function sourceName({ importer: { type, origin, directory } }: SnapshotHeader): string {
  return `${type}://${origin}${Buffer.from(directory).toString()}`;
}

/** Plain bytes of all its chunks. */
export function profileBytes({ chunks }: Pick<Profile, 'chunks'>): number {
  return chunks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
}

/** False, with a warning, if the cache cannot take it. */
export function writeProfile(cache: StoreCache, header: SnapshotHeader, profile: Profile): Promise<boolean> {
  const { snapshotId, recordedMs, chunks } = profile;
  const paths = [...new Map(chunks.map(({ path }) => [pathKey(path), path])).values()];
  const indexes = new Map(paths.map((path, i) => [pathKey(path), i]));
  const pathStarts = new Float64Array(paths.length + 1);
  for (const [i, path] of paths.entries()) pathStarts[i + 1] = pathStarts[i]! + path.byteLength;
  return cache.write(nameOf(header), (writer) =>
    writeColumns(writer, {
      values: { snapshotId, recordedMs },
      columns: {
        macs: new Uint8Array(Buffer.concat(chunks.map(({ mac }) => mac))),
        lengths: Uint32Array.from(chunks, ({ lengthBytes }) => lengthBytes),
        offsets: Float64Array.from(chunks, ({ offset }) => offset),
        files: Uint32Array.from(chunks, ({ path }) => indexes.get(pathKey(path))!),
        paths: new Uint8Array(Buffer.concat(paths)),
        pathStarts,
      },
    }),
  );
}

/** Undefined if there is none for what the snapshot is of; a damaged one is removed, and the log says so. */
export function readProfile(cache: StoreCache, header: SnapshotHeader): Promise<Profile | undefined> {
  return cache.read(nameOf(header), async (reader) => parseProfile(await readColumns(reader)));
}

export function removeProfile(cache: StoreCache, header: SnapshotHeader): Promise<void> {
  return cache.remove(nameOf(header));
}

/** Snapshots of one source have one name; the parts are kept apart, so that no two sources do. */
function nameOf({ importer: { type, origin, directory } }: SnapshotHeader): string {
  return `profile ${PROFILE_VERSION} ${JSON.stringify([type, origin, toHex(directory)])}`;
}

function parseProfile(read: ReadColumns): Profile {
  const { snapshotId, recordedMs } = read.values as Pick<Profile, 'snapshotId' | 'recordedMs'>;
  const macs = read.column('macs', 'u8');
  const lengths = read.column('lengths', 'u32');
  const offsets = read.column('offsets', 'f64');
  const files = read.column('files', 'u32');
  const paths = read.column('paths', 'u8');
  const pathStarts = read.column('pathStarts', 'f64');
  const count = lengths.length;
  if (macs.length !== count * MAC_BYTES || offsets.length !== count || files.length !== count) {
    throw new CacheDamagedError('its columns have different lengths');
  }
  const chunks = Array.from(lengths, (lengthBytes, i): TracedChunk => {
    const file = files[i]!;
    if (file + 1 >= pathStarts.length) throw new CacheDamagedError('a chunk is of a file that it does not name');
    return {
      mac: macs.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES),
      lengthBytes,
      path: paths.subarray(pathStarts[file], pathStarts[file + 1]),
      offset: offsets[i]!,
    };
  });
  return { snapshotId, recordedMs, chunks };
}

function pathKey(path: Uint8Array): string {
  return Buffer.from(path).toString('latin1');
}
