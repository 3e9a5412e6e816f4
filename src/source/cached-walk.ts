/**
 * A walked snapshot's columns in the disk cache, as they lie in memory. A snapshot never changes, so they are keyed by
 * its id, by the directory that was walked, and by WALK_VERSION.
 */
import { type Column, type ReadColumns, readColumns, writeColumns } from '../cache/columns.ts';
import { CacheDamagedError } from '../cache/errors.ts';
import type { SealedReader } from '../cache/sealed-reader.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { type Oddity, oddityOf } from '../core/oddities.ts';
import type { ExtendedAttribute, SnapshotTree } from '../core/snapshot-tree.ts';
import type { BytePath, ListerParts } from './directory-lister.ts';
import { type WalkedSnapshot, type WalkOptions, walkSnapshot } from './snapshot-walk.ts';

/** To be raised with every change of what a walk gives: columns, corrections of importers' habits, what is counted as odd. */
export const WALK_VERSION = 2;

/** As walkSnapshot, from the cache where it is there; walked snapshots are put into it. */
export async function walkSnapshotCached(
  parts: ListerParts,
  root: BytePath,
  options: WalkOptions = {},
): Promise<WalkedSnapshot> {
  const { cache } = parts.repository;
  // Every example of what is odd is more than is cached.
  if (cache === undefined || options.everyExample) return walkSnapshot(parts, root, options);
  const name = `walk ${WALK_VERSION} ${parts.header.id} ${root}`;
  const cached = await cache.read(name, readWalked);
  if (cached !== undefined) return cached;
  const walked = await walkSnapshot(parts, root, options);
  await writeWalked(cache, name, walked);
  return walked;
}

async function writeWalked(cache: StoreCache, name: string, walked: WalkedSnapshot): Promise<void> {
  const { tree, objects, contentPaths, oddities } = walked;
  const { length, sameInodeAs, linkTarget, attributes, ...columns } = tree;
  const paths = [...contentPaths].map(([entry, path]) => [entry, Buffer.from(path, 'latin1')] as const);
  const values: Values = {
    length,
    oddities: oddities.map(({ message, count, examples }) => ({
      message,
      count,
      examples: examples.map((example) => Buffer.from(example).toString('base64')),
    })),
  };
  await cache.write(name, (writer) =>
    writeColumns(writer, {
      values,
      columns: {
        ...columns,
        objects,
        linkedEntry: Uint32Array.from(sameInodeAs.keys()),
        linkedTo: Uint32Array.from(sameInodeAs.values()),
        ...packBytes('linkTarget', linkTarget),
        ...packBytes('contentPath', paths),
        ...packAttributes(attributes),
      },
    }),
  );
}

/** What is cached besides columns. */
interface Values {
  readonly length: number;
  readonly oddities: readonly { readonly message: string; readonly count: number; readonly examples: string[] }[];
}

async function readWalked(reader: SealedReader): Promise<WalkedSnapshot> {
  const read = await readColumns(reader);
  const { length, oddities } = read.values as Values;
  const sameInodeAs = new Map<number, number>();
  const linkedTo = read.column('linkedTo', 'u32');
  for (const [i, entry] of read.column('linkedEntry', 'u32').entries()) sameInodeAs.set(entry, linkedTo[i]!);
  const columns = {
    type: read.column('type', 'u8'),
    mode: read.column('mode', 'u16'),
    uid: read.column('uid', 'f64'),
    gid: read.column('gid', 'f64'),
    sizeBytes: read.column('sizeBytes', 'f64'),
    mtimeSeconds: read.column('mtimeSeconds', 'f64'),
    mtimeNanoseconds: read.column('mtimeNanoseconds', 'u32'),
    parent: read.column('parent', 'u32'),
    firstChild: read.column('firstChild', 'u32'),
    childCount: read.column('childCount', 'u32'),
  };
  const nameStart = read.column('nameStart', 'f64');
  const objects = read.column('objects', 'u8');
  const fits = Object.values(columns).every((column) => column.length === length);
  if (!fits || nameStart.length !== length + 1 || objects.length !== length * MAC_BYTES) {
    throw new CacheDamagedError('its columns have different lengths');
  }
  const tree: SnapshotTree = {
    ...columns,
    length,
    nameStart,
    nameBytes: read.column('nameBytes', 'u8'),
    sameInodeAs,
    linkTarget: unpackBytes(read, 'linkTarget'),
    attributes: unpackAttributes(read),
  };
  const contentPaths = new Map<number, BytePath>();
  for (const [entry, path] of unpackBytes(read, 'contentPath')) contentPaths.set(entry, latin1(path));
  return { tree, objects, contentPaths, oddities: oddities.map(oddityFrom) };
}

function oddityFrom({ message, count, examples }: Values['oddities'][number]): Oddity {
  const paths = examples.map((example) => Uint8Array.from(Buffer.from(example, 'base64')));
  return oddityOf(message, count, paths);
}

function latin1(bytes: Uint8Array): BytePath {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** Byte strings by entry, as three columns: entries, all bytes one behind the other, where each begins. */
function packBytes(name: string, items: Iterable<readonly [number, Uint8Array]>): Record<string, Column> {
  const entries: number[] = [];
  const starts = [0];
  const values: Uint8Array[] = [];
  for (const [entry, value] of items) {
    entries.push(entry);
    values.push(value);
    starts.push(starts.at(-1)! + value.byteLength);
  }
  const bytes = new Uint8Array(starts.at(-1)!);
  for (const [i, value] of values.entries()) bytes.set(value, starts[i]!);
  return {
    [`${name}Entry`]: Uint32Array.from(entries),
    [`${name}Start`]: Float64Array.from(starts),
    [`${name}Bytes`]: bytes,
  };
}

function* listBytes(read: ReadColumns, name: string): Generator<readonly [number, Uint8Array]> {
  const starts = read.column(`${name}Start`, 'f64');
  const bytes = read.column(`${name}Bytes`, 'u8');
  for (const [i, entry] of read.column(`${name}Entry`, 'u32').entries()) {
    yield [entry, bytes.subarray(starts[i], starts[i + 1])];
  }
}

function unpackBytes(read: ReadColumns, name: string): Map<number, Uint8Array> {
  return new Map(listBytes(read, name));
}

/** Names and values in two lists of byte strings, in the order of the map; an entry occurs once for each of its attributes. */
function packAttributes(attributes: SnapshotTree['attributes']): Record<string, Column> {
  const all = [...attributes].flatMap(([entry, list]) => list.map((attribute) => [entry, attribute] as const));
  return {
    ...packBytes(
      'attributeName',
      all.map(([entry, { name }]) => [entry, name] as const),
    ),
    ...packBytes(
      'attributeValue',
      all.map(([entry, { value }]) => [entry, value] as const),
    ),
  };
}

function unpackAttributes(read: ReadColumns): Map<number, readonly ExtendedAttribute[]> {
  const attributes = new Map<number, ExtendedAttribute[]>();
  const values = listBytes(read, 'attributeValue');
  for (const [entry, name] of listBytes(read, 'attributeName')) {
    const next = values.next();
    if (next.done) throw new CacheDamagedError('it has more names of attributes than values');
    const attribute = { name, value: next.value[1] };
    const list = attributes.get(entry);
    if (list === undefined) attributes.set(entry, [attribute]);
    else list.push(attribute);
  }
  return attributes;
}
