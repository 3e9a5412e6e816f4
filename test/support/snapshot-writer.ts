/** Writes whole snapshots into a store in memory: header, trees, dirpacks, entries, contents. */
import { byteOrder, type KeyOrder, pathOrder, type TreeTypes } from '../../src/kloset/btree.ts';
import { dirpackHeader, goMode, resourceTypes } from '../../src/kloset/format.ts';
import { type Encodable, encodeMsgpack, Str } from './msgpack-writer.ts';
import { idOf, macOf, type StoreWriter } from './store-writer.ts';

export interface WrittenEntry {
  /** Absolute; latin1, a character a byte. */
  readonly path: string;
  /** Go's bits; default: a file 0644. */
  readonly mode?: number;
  readonly content?: readonly Uint8Array[];
  /** As recorded; default: what the content has. */
  readonly size?: number;
  readonly target?: string;
  readonly inode?: number;
  readonly links?: number;
  readonly seconds?: number;
  readonly attributes?: Readonly<Record<string, string>>;
  /** Names among them whose value is lost. */
  readonly attributesWithoutValue?: readonly string[];
  /** The directory that its record names, if another than its path's. */
  readonly recordedParent?: string;
  /** Its vfs-entry blob is not stored. */
  readonly blobMissing?: boolean;
}

export const DIRECTORY = goMode.directory + 0o755;

export interface SnapshotParts {
  readonly id?: number;
  readonly entries: readonly WrittenEntry[];
  readonly dirpacks?: boolean;
  readonly importer?: string;
  readonly directory?: string;
  readonly tags?: readonly string[];
  /** Paths that could not be read; without them the snapshot has no such tree. */
  readonly unread?: readonly string[];
  readonly seconds?: number;
  readonly header?: Readonly<Record<string, Encodable>>;
}

/** Adds a snapshot; entries name every directory, the root too. */
export function addSnapshot(store: StoreWriter, parts: SnapshotParts): Uint8Array {
  const { id = 1, entries, dirpacks = true, importer = 'fs', directory = '/', tags = [], seconds = 1000 } = parts;
  const encoded = new Map(entries.map((entry) => [entry, encodeEntry(store, entry)]));
  const files = entries.map((entry) => {
    const bytes = encoded.get(entry)!;
    if (entry.blobMissing !== true) store.blob(resourceTypes.vfsEntry, bytes);
    return { key: Buffer.from(entry.path, 'latin1'), value: macOf(bytes) };
  });
  const attributes = entries.flatMap((entry) => addAttributes(store, entry));
  const fileTypes = { tree: resourceTypes.vfsTree, node: resourceTypes.vfsNode };
  const xattrTypes = { tree: resourceTypes.xattrTree, node: resourceTypes.xattrNode };
  const index = dirpacks ? [{ name: 'dirpack', type: 'btree', value: addDirpacks(store, entries, encoded) }] : [];
  return store.record(
    resourceTypes.snapshot,
    {
      identifier: idOf(id),
      timestamp: { seconds, nanoseconds: 0 },
      tags,
      sources: [
        {
          importer: { type: importer, origin: 'test', directory },
          root: {
            root: addTree(store, fileTypes, files, pathOrder),
            xattrs: addTree(store, xattrTypes, attributes, pathOrder),
            ...(parts.unread === undefined ? {} : { errors: addErrors(store, parts.unread) }),
          },
          indexes: index,
          summary: { directory: { size: 0 }, below: { size: 0 } },
        },
      ],
      ...parts.header,
    },
    { name: idOf(id) },
  );
}

function encodeEntry(store: StoreWriter, entry: WrittenEntry): Buffer {
  const { path, mode = 0o644, content, target, inode = 0, links = 1, seconds = 0 } = entry;
  const isRoot = path === '/';
  const parent = path.slice(0, Math.max(1, path.lastIndexOf('/')));
  const name = isRoot ? '/' : path.slice(path.lastIndexOf('/') + 1);
  const size = entry.size ?? (content ?? []).reduce((bytes, chunk) => bytes + chunk.byteLength, 0);
  const names = [...Object.keys(entry.attributes ?? {}), ...(entry.attributesWithoutValue ?? [])];
  return encodeMsgpack({
    parent_path: new Str(entry.recordedParent ?? (isRoot ? '/' : parent)),
    file_info: {
      name: new Str(name),
      size,
      mode,
      mod_time: { seconds, nanoseconds: 5 },
      dev: 1,
      ino: inode,
      uid: 10,
      gid: 20,
      nlink: links,
    },
    ...(target === undefined ? {} : { symlink_target: new Str(target) }),
    object: content === undefined ? new Uint8Array(32) : store.object(content),
    ...(names.length === 0 ? {} : { extended_attributes: names }),
  });
}

function addAttributes(store: StoreWriter, { path, attributes = {} }: WrittenEntry) {
  return Object.entries(attributes).map(([name, value]) => ({
    key: Buffer.from(`${path}${name}:`, 'latin1'),
    value: store.record(resourceTypes.xattrEntry, {
      path: new Str(path),
      name: new Str(name),
      size: value.length,
      type: 0,
      object: store.object([Buffer.from(value)]),
    }),
  }));
}

function addErrors(store: StoreWriter, paths: readonly string[]): Uint8Array {
  const items = paths.map((path) => ({
    key: Buffer.from(path, 'latin1'),
    value: store.record(resourceTypes.errorEntry, { name: new Str(path), error: 'permission denied' }),
  }));
  return addTree(store, { tree: resourceTypes.errorTree, node: resourceTypes.errorNode }, items, pathOrder);
}

function addDirpacks(
  store: StoreWriter,
  entries: readonly WrittenEntry[],
  encoded: ReadonlyMap<WrittenEntry, Uint8Array>,
): Uint8Array {
  const items = entries
    .filter(({ mode = 0 }) => mode >= goMode.directory)
    .map(({ path }) => {
      const prefix = path === '/' ? '/' : `${path}/`;
      const children = entries.filter(
        (child) =>
          child.path !== '/' && child.path.startsWith(prefix) && !child.path.slice(prefix.length).includes('/'),
      );
      const records = children.map((child) => dirpackRecord(encoded.get(child)!));
      return { key: Buffer.from(path, 'latin1'), value: store.object([Buffer.concat(records)]) };
    });
  return addTree(store, { tree: resourceTypes.indexTree, node: resourceTypes.indexNode }, items, byteOrder);
}

export function dirpackRecord(entry: Uint8Array): Buffer {
  return Buffer.concat([dirpackHeader.encode({ kind: 2, length: entry.byteLength + 32 }), entry, macOf(entry)]);
}

export interface WrittenItem {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** A B+tree over the items, `width` to a node, and its descriptor's MAC. */
export function addTree(
  store: StoreWriter,
  types: TreeTypes,
  items: readonly WrittenItem[],
  order: KeyOrder,
  width = 3,
): Uint8Array {
  const sorted = [...items].sort((a, b) => order(a.key, b.key));
  let level: { readonly first: Uint8Array; readonly mac: Uint8Array }[] = [];
  for (let at = 0; at < sorted.length || level.length === 0; at += width) {
    const part = sorted.slice(at, at + width);
    const node = { keys: part.map(({ key }) => new Str(key)), values: part.map(({ value }) => value) };
    const isEmpty = part.length === 0;
    const mac = store.record(types.node, isEmpty ? { keys: null, pointers: null, values: null } : node);
    level.push({ first: part[0]?.key ?? new Uint8Array(0), mac });
  }
  while (level.length > 1) {
    const upper: typeof level = [];
    for (let at = 0; at < level.length; at += width) {
      const part = level.slice(at, at + width);
      const keys = part.slice(1).map(({ first }) => new Str(first));
      const mac = store.record(types.node, { keys, pointers: part.map((child) => child.mac) });
      upper.push({ first: part[0]!.first, mac });
    }
    level = upper;
  }
  return store.record(types.tree, { Version: 0, Order: 50, Count: 0, Root: level[0]!.mac });
}
