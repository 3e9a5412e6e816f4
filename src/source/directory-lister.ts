import type { ChunkStore } from '../core/chunk-store.ts';
import { CorruptStoreError } from '../core/errors.ts';
import type { Oddities } from '../core/oddities.ts';
import { type BTree, byteOrder } from '../kloset/btree.ts';
import { resourceTypes } from '../kloset/format.ts';
import { WHOLE_CONTENT_BYTES_MAX } from '../kloset/limits.ts';
import type { Repository } from '../kloset/repository.ts';
import { openDirpackIndex, openFileTree, type SnapshotHeader } from '../kloset/snapshot.ts';
import { parseDirpack, parseVfsEntry, type VfsEntry } from '../kloset/vfs.ts';
import { namePath } from './error-names.ts';
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
  /** Directories whose entries the snapshot has, and that were never asked for. */
  unlisted(): Iterable<BytePath>;
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
export async function openLister(parts: ListerParts, root: BytePath, oddities: Oddities): Promise<DirectoryLister> {
  const index = await openDirpackIndex(parts.repository, parts.header);
  return index === undefined ? FileTreeLister.open(parts, root, oddities) : DirpackLister.open(parts, index, root);
}

/**
 * One entry by its absolute path, or undefined. The root's is looked up in the file tree: it stands in no dirpack. Its
 * blob may be missing; the caller then assumes a plain directory.
 */
export async function findEntry(parts: ListerParts, path: BytePath): Promise<VfsEntry | undefined> {
  const index = path === '/' ? undefined : await openDirpackIndex(parts.repository, parts.header);
  if (index === undefined) return findInFileTree(parts, path);
  const parent = parentOf(path);
  const siblings = (await new DirpackLister(parts, await onlyKey(index, parent)).list(parent)) ?? [];
  return siblings.find((entry) => toBytePath(entry.name) === nameOf(path));
}

async function findInFileTree({ repository, header }: ListerParts, path: BytePath): Promise<VfsEntry | undefined> {
  const mac = await (await openFileTree(repository, header)).get(fromBytePath(path));
  if (mac === undefined) return undefined;
  if ((await repository.storedLength({ type: resourceTypes.vfsEntry, mac })) === undefined) return undefined;
  return parseVfsEntry(await repository.readBlob({ type: resourceTypes.vfsEntry, mac }));
}

async function onlyKey(index: BTree, directory: BytePath): Promise<Map<BytePath, Uint8Array>> {
  const object = await index.get(fromBytePath(directory));
  return new Map(object === undefined ? [] : [[directory, object]]);
}

class DirpackLister implements DirectoryLister {
  readonly #parts: ListerParts;
  /** Directories not yet asked for. */
  readonly #objects: Map<BytePath, Uint8Array>;

  constructor(parts: ListerParts, objects: Map<BytePath, Uint8Array>) {
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
    this.#objects.delete(directory);
    const { repository, chunks, header } = this.#parts;
    const path = fromBytePath(directory);
    const file = { snapshotId: header.id, path, bytesMax: WHOLE_CONTENT_BYTES_MAX };
    const content = await readWholeContent({ repository, chunks }, object, file);
    try {
      const entries = parseDirpack(content, repository);
      for (const entry of entries) requireParent(entry, directory);
      return sortByName(entries);
    } catch (error) {
      throw namePath(error, file);
    }
  }

  unlisted(): Iterable<BytePath> {
    return this.#objects.keys();
  }
}

/** Lists from the tree path -> vfs-entry, for snapshots without a dirpack index. */
class FileTreeLister implements DirectoryLister {
  /** Directories not yet asked for. */
  readonly #directories: Map<BytePath, VfsEntry[]>;

  private constructor(directories: Map<BytePath, VfsEntry[]>) {
    this.#directories = directories;
  }

  static async open({ repository, header }: ListerParts, root: BytePath, oddities: Oddities): Promise<FileTreeLister> {
    const prefix = root === '/' ? '/' : `${root}/`;
    const directories = new Map<BytePath, VfsEntry[]>();
    const tree = await openFileTree(repository, header);
    // Path order groups by depth: what is below a directory is spread over the rest of the tree.
    for await (const { key, value } of tree.items(fromBytePath(prefix))) {
      const path = toBytePath(key);
      if (path === '/' || !path.startsWith(prefix)) continue;
      if ((await repository.storedLength({ type: resourceTypes.vfsEntry, mac: value })) === undefined) {
        // The writer is known to forget some (10.3), and here there is no dirpack to have it from.
        oddities.add('entries whose record is not in the store are left out, with all below them', () =>
          fromBytePath(path),
        );
        continue;
      }
      const entry = parseVfsEntry(await repository.readBlob({ type: resourceTypes.vfsEntry, mac: value }));
      const parent = parentOf(path);
      if (toBytePath(entry.name) !== nameOf(path))
        throw new CorruptStoreError(`The record of ${fromBytePath(path)} is another's`);
      requireParent(entry, parent);
      const siblings = directories.get(parent);
      if (siblings === undefined) directories.set(parent, [entry]);
      else siblings.push(entry);
    }
    return new FileTreeLister(directories);
  }

  async list(directory: BytePath): Promise<VfsEntry[]> {
    // Of an empty directory the tree knows nothing.
    const entries = this.#directories.get(directory) ?? [];
    this.#directories.delete(directory);
    return sortByName(entries);
  }

  unlisted(): Iterable<BytePath> {
    return this.#directories.keys();
  }
}

function requireParent({ parentPath }: VfsEntry, directory: BytePath): void {
  // The root's children may name it by the empty path (11.1).
  if (toBytePath(parentPath) === directory || (directory === '/' && parentPath.byteLength === 0)) return;
  throw new CorruptStoreError(`The list of directory ${fromBytePath(directory)} holds entries of another one`);
}

function sortByName(entries: VfsEntry[]): VfsEntry[] {
  const isSorted = entries.every((entry, i) => i === 0 || byteOrder(entries[i - 1]!.name, entry.name) <= 0);
  return isSorted ? entries : entries.sort((a, b) => byteOrder(a.name, b.name));
}
