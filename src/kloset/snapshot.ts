import { mapConcurrently } from '../core/concurrency.ts';
import { CorruptStoreError, StoreUnavailableError } from '../core/errors.ts';
import { equalBytes, toHex } from '../core/mac.ts';
import { BTree, byteOrder, type KeyOrder, pathOrder, type TreeTypes } from './btree.ts';
import { resourceTypes } from './format.ts';
import { HeaderCache } from './header-cache.ts';
import { METADATA_IN_FLIGHT_MAX } from './limits.ts';
import type { Timestamp } from './msgpack.ts';
import { MsgpackRecord } from './record.ts';
import type { Repository } from './repository.ts';

/** What a snapshot's header says (kloset-format 10.1), as far as this program uses it. */
export interface SnapshotHeader {
  /** 64 hex digits. */
  readonly id: string;
  readonly timestamp: Timestamp;
  readonly tags: readonly string[];
  readonly name: string;
  readonly importer: {
    readonly type: string;
    readonly origin: string;
    /** The directory that was backed up; raw bytes. */
    readonly directory: Uint8Array;
  };
  /** MACs of tree descriptors. */
  readonly trees: { readonly files: Uint8Array; readonly attributes: Uint8Array; readonly errors: Uint8Array };
  /** Descriptor of the dirpack index, if the snapshot has one. */
  readonly dirpackIndex: Uint8Array | undefined;
  /** Bytes of all regular files, as the summary has it. */
  readonly totalBytes: number;
  /** Entries in all, as the summary has it: for estimates. */
  readonly entryCount: number;
}

/** Takes a snapshot's header apart. `id` is its 32 bytes. */
function parseSnapshotHeader(id: Uint8Array, blob: Uint8Array): SnapshotHeader {
  const hex = toHex(id);
  const record = MsgpackRecord.decode(blob, `header of snapshot ${hex}`);
  if (!equalBytes(record.bytes('identifier'), id)) {
    // The blob's name is random, not a MAC: this is the one check there is that it was not swapped for another.
    throw new CorruptStoreError(`The header of snapshot ${hex} says it is another snapshot's`);
  }
  const source = record.records('sources')[0];
  if (source === undefined) throw new CorruptStoreError(`The header of snapshot ${hex} names no source`);
  const importer = source.record('importer');
  const root = source.record('root');
  const dirpack = source
    .records('indexes')
    .find((index) => index.text('name') === 'dirpack' && index.text('type') === 'btree');
  const summary = source.record('summary');
  const sumOf = (counter: string) =>
    summary.record('directory').integer(counter) + summary.record('below').integer(counter);
  return {
    id: hex,
    timestamp: record.time('timestamp'),
    tags: record.byteStrings('tags').map((tag) => Buffer.from(tag).toString()),
    name: record.text('name'),
    importer: {
      type: importer.text('type'),
      origin: importer.text('origin'),
      directory: importer.bytes('directory'),
    },
    trees: { files: root.mac('root'), attributes: root.mac('xattrs'), errors: root.mac('errors') },
    dirpackIndex: dirpack?.mac('value'),
    totalBytes: sumOf('size'),
    entryCount: 1 + sumOf('children'),
  };
}

/** A snapshot of which nothing but its id is known. */
export interface DamagedSnapshot {
  /** 64 hex digits. */
  readonly id: string;
  /** Names it, and what is wrong with its header. */
  readonly error: CorruptStoreError;
}

export interface SnapshotListing {
  /** Newest first; equal times by id. */
  readonly snapshots: readonly SnapshotHeader[];
  /** Those whose header is damaged or gone: the others are no worse for them. By id. */
  readonly damaged: readonly DamagedSnapshot[];
}

/**
 * All snapshots of the store; headers in the cache, and those of an earlier listing, are not read. Rejects with StoreUnavailableError if
 * none of their headers can be had.
 */
export async function listSnapshots(repository: Repository, earlier?: SnapshotListing): Promise<SnapshotListing> {
  const known = new Map(earlier?.snapshots.map((header) => [header.id, header]));
  const cache = await HeaderCache.open(repository.cache);
  const read = await mapConcurrently(repository.snapshots(), METADATA_IN_FLIGHT_MAX, async (id) => {
    cache.retain(id);
    return known.get(toHex(id)) ?? readOrExplain(repository, cache, id);
  });
  await cache.save();
  const snapshots = read.filter((header) => 'timestamp' in header);
  const unreadable = read.filter((header) => 'error' in header).sort((a, b) => (a.id < b.id ? -1 : 1));
  const away = unreadable.find(({ error }) => error instanceof StoreUnavailableError);
  // One packfile that is missing is damage; that none can be read says nothing about them.
  if (away !== undefined && snapshots.length === 0) throw away.error;
  return {
    snapshots: snapshots.sort((a, b) => compareTimes(b.timestamp, a.timestamp) || (a.id < b.id ? -1 : 1)),
    damaged: unreadable.map(({ id, error }) => ({
      id,
      error: new CorruptStoreError(`Snapshot ${id.slice(0, 8)} cannot be opened: ${error.message}`, {
        details: { ...error.details, snapshot: id },
        cause: error,
      }),
    })),
  };
}

async function readOrExplain(
  repository: Repository,
  cache: HeaderCache,
  id: Uint8Array,
): Promise<SnapshotHeader | { readonly id: string; readonly error: CorruptStoreError | StoreUnavailableError }> {
  try {
    const blob = cache.get(id) ?? (await repository.readBlob({ type: resourceTypes.snapshot, mac: id }));
    const header = parseSnapshotHeader(id, blob);
    cache.keep(id, blob);
    return header;
  } catch (error) {
    if (error instanceof CorruptStoreError || error instanceof StoreUnavailableError) return { id: toHex(id), error };
    throw error;
  }
}

function compareTimes(a: Timestamp, b: Timestamp): number {
  return a.seconds - b.seconds || a.nanoseconds - b.nanoseconds;
}

/** The kinds of trees (10.2). */
const fileTree = { types: { tree: resourceTypes.vfsTree, node: resourceTypes.vfsNode }, order: pathOrder };
const attributeTree = { types: { tree: resourceTypes.xattrTree, node: resourceTypes.xattrNode }, order: pathOrder };
const errorTree = { types: { tree: resourceTypes.errorTree, node: resourceTypes.errorNode }, order: byteOrder };
const indexTree = { types: { tree: resourceTypes.indexTree, node: resourceTypes.indexNode }, order: byteOrder };

/** One of a snapshot's trees. */
export interface SnapshotTreeRef {
  /** `files`, `attributes`, `errors`, or the name of an index: `dirpack`, `summary`, `content-type` and whatever comes. */
  readonly name: string;
  readonly descriptor: Uint8Array;
  readonly types: TreeTypes;
  readonly order: KeyOrder;
}

/** All trees that a snapshot's header names. */
export async function readTrees(repository: Repository, header: SnapshotHeader): Promise<SnapshotTreeRef[]> {
  const id = Buffer.from(header.id, 'hex');
  const blob = await repository.readBlob({ type: resourceTypes.snapshot, mac: id });
  const source = MsgpackRecord.decode(blob, `header of snapshot ${header.id}`).records('sources')[0]!;
  const root = source.record('root');
  const indexes = source.records('indexes').filter((index) => index.text('type') === 'btree');
  return [
    { name: 'files', descriptor: root.mac('root'), ...fileTree },
    { name: 'attributes', descriptor: root.mac('xattrs'), ...attributeTree },
    { name: 'errors', descriptor: root.mac('errors'), ...errorTree },
    ...indexes.map((index) => ({ name: index.text('name'), descriptor: index.mac('value'), ...indexTree })),
  ].filter(({ descriptor }) => descriptor.some((byte) => byte !== 0)); // Older snapshots lack some.
}

export function openTree(repository: Repository, { descriptor, types, order }: SnapshotTreeRef): Promise<BTree> {
  return BTree.open(repository, descriptor, types, order);
}

/** The tree path -> vfs-entry MAC, in path order. */
export function openFileTree(repository: Repository, header: SnapshotHeader): Promise<BTree> {
  return BTree.open(repository, header.trees.files, fileTree.types, fileTree.order);
}

/** The tree of attribute values. It is scanned, never searched: upstream's own order of it is not reliable (10.2). */
export function openAttributeTree(repository: Repository, header: SnapshotHeader): Promise<BTree> {
  return BTree.open(repository, header.trees.attributes, attributeTree.types, attributeTree.order);
}

/** The tree of paths that could not be read when the backup was made; undefined for an older snapshot without it. */
export async function openErrorTree(repository: Repository, header: SnapshotHeader): Promise<BTree | undefined> {
  const { errors } = header.trees;
  if (errors.every((byte) => byte === 0)) return undefined;
  return BTree.open(repository, errors, errorTree.types, errorTree.order);
}

/** The index directory path -> object with the dirpack, in byte order; undefined for a snapshot without it. */
export async function openDirpackIndex(repository: Repository, header: SnapshotHeader): Promise<BTree | undefined> {
  if (header.dirpackIndex === undefined) return undefined;
  return BTree.open(repository, header.dirpackIndex, indexTree.types, indexTree.order);
}
