import type { ChunkStore } from '../core/chunk-store.ts';
import { CorruptStoreError } from '../core/errors.ts';
import { type BTree, byteOrder } from '../kloset/btree.ts';
import { resourceTypes } from '../kloset/format.ts';
import { WHOLE_CONTENT_BYTES_MAX } from '../kloset/limits.ts';
import type { Repository } from '../kloset/repository.ts';
import { openDirpackIndex, openFileTree, type SnapshotHeader } from '../kloset/snapshot.ts';
import { parseDirpack, parseVfsEntry, type VfsEntry } from '../kloset/vfs.ts';
import { readWholeContent } from './file-reader.ts';

/**
 * A path inside a snapshot as a string with one character a byte (latin1): usable as a key of a Map, and no byte is
 * lost whatever the encoding of names.
 */
export type BytePath = string;

export function toBytePath(path: Uint8Array): BytePath {
  return Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString('latin1');
}
export function fromBytePath(path: BytePath): Buffer {
  return Buffer.from(path, 'latin1');
}
/** The path of `name` in `directory`. */
export function joinPath(directory: BytePath, name: BytePath): BytePath {
  return directory === '/' ? `/${name}` : `${directory}/${name}`;
}
/** The directory that holds `path`. */
export function parentOf(path: BytePath): BytePath {
  return path.slice(0, Math.max(1, path.lastIndexOf('/')));
}
function nameOf(path: BytePath): BytePath {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Lists directories of one snapshot. */
export interface DirectoryLister {
  /** The entries of a directory, or undefined if the snapshot has no list of it. */
  list(directory: BytePath): Promise<VfsEntry[] | undefined>;
}

/** What listers read with. */
export interface ListerParts {
  readonly repository: Repository;
  readonly chunks: ChunkStore;
  readonly header: SnapshotHeader;
}

/**
 * The way to list the directories at and below `root`: by dirpacks where the snapshot has them, since they are complete
 * even where vfs-entry blobs are missing (kloset-format 10.3), else by the file tree.
 */
export async function openLister(parts: ListerParts, root: BytePath): Promise<DirectoryLister> {
  const index = await openDirpackIndex(parts.repository, parts.header);
  return index === undefined ? FileTreeLister.open(parts, root) : DirpackLister.open(parts, index, root);
}

/** One entry by its absolute path, or undefined. The root's is looked up in the file tree: it stands in no dirpack. */
export async function findEntry(parts: ListerParts, path: BytePath): Promise<VfsEntry | undefined> {
  if (path === '/') return findRootEntry(parts);
  const parent = parentOf(path);
  const index = await openDirpackIndex(parts.repository, parts.header);
  const lister =
    index === undefined
      ? await FileTreeLister.open(parts, parent)
      : new DirpackLister(parts, await onlyKey(index, parent));
  const siblings = (await lister.list(parent)) ?? [];
  return siblings.find((entry) => toBytePath(entry.name) === nameOf(path));
}

/** Undefined if its blob is missing: the caller then assumes a plain directory. */
async function findRootEntry({ repository, header }: ListerParts): Promise<VfsEntry | undefined> {
  const mac = await (await openFileTree(repository, header)).get(Buffer.from('/'));
  if (mac === undefined || repository.storedLength({ type: resourceTypes.vfsEntry, mac }) === undefined)
    return undefined;
  return parseVfsEntry(await repository.readBlob({ type: resourceTypes.vfsEntry, mac }));
}

async function onlyKey(index: BTree, directory: BytePath): Promise<Map<BytePath, Uint8Array>> {
  const object = await index.get(fromBytePath(directory));
  return new Map(object === undefined ? [] : [[directory, object]]);
}

class DirpackLister implements DirectoryLister {
  readonly #parts: ListerParts;
  readonly #objects: ReadonlyMap<BytePath, Uint8Array>;

  constructor(parts: ListerParts, objects: ReadonlyMap<BytePath, Uint8Array>) {
    this.#parts = parts;
    this.#objects = objects;
  }

  static async open(parts: ListerParts, index: BTree, root: BytePath): Promise<DirpackLister> {
    const objects = await onlyKey(index, root);
    // In byte order everything below a directory is one run of keys.
    const prefix = root === '/' ? '/' : `${root}/`;
    for await (const { key, value } of index.items(fromBytePath(prefix))) {
      const directory = toBytePath(key);
      if (!directory.startsWith(prefix)) break;
      objects.set(directory, value);
    }
    return new DirpackLister(parts, objects);
  }

  async list(directory: BytePath): Promise<VfsEntry[] | undefined> {
    const object = this.#objects.get(directory);
    if (object === undefined) return undefined;
    const { repository, chunks, header } = this.#parts;
    const path = fromBytePath(directory);
    const file = { snapshotId: header.id, path, bytesMax: WHOLE_CONTENT_BYTES_MAX };
    const entries = parseDirpack(await readWholeContent({ repository, chunks }, object, file), repository);
    for (const entry of entries) {
      // The root's children may name it by the empty path (11.1).
      if (toBytePath(entry.parentPath) !== directory && !(directory === '/' && entry.parentPath.byteLength === 0)) {
        throw new CorruptStoreError(
          `Directory ${path} of snapshot ${header.id}: its list holds entries of another one`,
        );
      }
    }
    return sortByName(entries);
  }
}

/** Lists from the tree path -> vfs-entry, for snapshots without a dirpack index. */
class FileTreeLister implements DirectoryLister {
  readonly #directories: ReadonlyMap<BytePath, VfsEntry[]>;

  private constructor(directories: ReadonlyMap<BytePath, VfsEntry[]>) {
    this.#directories = directories;
  }

  static async open({ repository, header }: ListerParts, root: BytePath): Promise<FileTreeLister> {
    const prefix = root === '/' ? '/' : `${root}/`;
    const directories = new Map<BytePath, VfsEntry[]>();
    const tree = await openFileTree(repository, header);
    // Path order groups by depth: what is below a directory is spread over the rest of the tree.
    for await (const { key, value } of tree.items(fromBytePath(prefix))) {
      const path = toBytePath(key);
      if (path === '/' || !path.startsWith(prefix)) continue;
      const entry = parseVfsEntry(await repository.readBlob({ type: resourceTypes.vfsEntry, mac: value }));
      const parent = parentOf(path);
      const siblings = directories.get(parent);
      if (siblings === undefined) directories.set(parent, [entry]);
      else siblings.push(entry);
    }
    return new FileTreeLister(directories);
  }

  async list(directory: BytePath): Promise<VfsEntry[] | undefined> {
    const entries = this.#directories.get(directory);
    return entries && sortByName(entries);
  }
}

function sortByName(entries: VfsEntry[]): VfsEntry[] {
  const isSorted = entries.every((entry, i) => i === 0 || byteOrder(entries[i - 1]!.name, entry.name) <= 0);
  return isSorted ? entries : entries.sort((a, b) => byteOrder(a.name, b.name));
}
