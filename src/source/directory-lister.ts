import type { ChunkStore } from '../core/chunk-store.ts';
import { CorruptStoreError } from '../core/errors.ts';
import { Oddities } from '../core/oddities.ts';
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
  try {
    const index = await openDirpackIndex(parts.repository, parts.header);
    if (index !== undefined) return await DirpackLister.open(parts, index, { root, oddities });
  } catch (error) {
    if (!(error instanceof CorruptStoreError)) throw error;
    // Every entry stands in the file tree as well, verified as strictly; what is missing there cannot be passed over now.
    const lister = await FileTreeLister.open(parts, root, { missing: () => error });
    oddities.add('the index of directories is damaged: entries are read one by one', () => fromBytePath(root));
    return lister;
  }
  return FileTreeLister.open(parts, root, {
    missing: (path) => {
      // The writer is known to forget some (10.3), and here there is no dirpack to have it from.
      oddities.add('entries whose record is not in the store are left out, with all below them', () => path);
      return undefined;
    },
  });
}

/**
 * One entry by its absolute path, or undefined. The root's is looked up in the file tree: it stands in no dirpack. Its
 * blob may be missing; the caller then assumes a plain directory.
 */
export async function findEntry(parts: ListerParts, path: BytePath): Promise<VfsEntry | undefined> {
  if (path === '/') return findInFileTree(parts, path);
  try {
    const index = await openDirpackIndex(parts.repository, parts.header);
    if (index === undefined) return await findInFileTree(parts, path);
    const parent = parentOf(path);
    const objects = await onlyKey(index, parent);
    const siblings = (await new DirpackLister(parts, objects, new Oddities()).list(parent)) ?? [];
    return siblings.find((entry) => toBytePath(entry.name) === nameOf(path));
  } catch (error) {
    const found = error instanceof CorruptStoreError ? await findInFileTree(parts, path) : undefined;
    if (found === undefined) throw error; // Whether there is such an entry cannot be told any more.
    return found;
  }
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
  readonly #oddities: Oddities;

  constructor(parts: ListerParts, objects: Map<BytePath, Uint8Array>, oddities: Oddities) {
    this.#parts = parts;
    this.#objects = objects;
    this.#oddities = oddities;
  }

  static async open(
    parts: ListerParts,
    index: BTree,
    { root, oddities }: { root: BytePath; oddities: Oddities },
  ): Promise<DirpackLister> {
    const objects = await onlyKey(index, root);
    // In byte order everything below a directory is one run of keys.
    const prefix = root === '/' ? '/' : `${root}/`;
    for await (const { key, value } of index.items(fromBytePath(prefix))) {
      const directory = toBytePath(key);
      if (!directory.startsWith(prefix)) break;
      objects.set(directory, value);
    }
    return new DirpackLister(parts, objects, oddities);
  }

  async list(directory: BytePath): Promise<VfsEntry[] | undefined> {
    const object = this.#objects.get(directory);
    if (object === undefined) return undefined;
    this.#objects.delete(directory);
    try {
      return await this.#fromDirpack(directory, object);
    } catch (error) {
      if (!(error instanceof CorruptStoreError)) throw error;
      const entries = await listInFileTree(this.#parts, directory).catch((second: unknown) => {
        throw second instanceof CorruptStoreError ? error : second;
      });
      this.#oddities.add('directories whose list is damaged are read entry by entry', () => fromBytePath(directory));
      return entries;
    }
  }

  async #fromDirpack(directory: BytePath, object: Uint8Array): Promise<VfsEntry[]> {
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

  /** `missing` is told of entries whose record the store does not hold; an error that it gives is thrown. */
  static async open(
    { repository, header }: ListerParts,
    root: BytePath,
    { missing }: { readonly missing: (path: Buffer) => CorruptStoreError | undefined },
  ): Promise<FileTreeLister> {
    const prefix = root === '/' ? '/' : `${root}/`;
    const directories = new Map<BytePath, VfsEntry[]>();
    const tree = await openFileTree(repository, header);
    // Path order groups by depth: what is below a directory is spread over the rest of the tree.
    for await (const { key, value } of tree.items(fromBytePath(prefix))) {
      const path = toBytePath(key);
      if (path === '/' || !path.startsWith(prefix)) continue;
      if ((await repository.storedLength({ type: resourceTypes.vfsEntry, mac: value })) === undefined) {
        const error = missing(fromBytePath(path));
        if (error !== undefined) throw error;
        continue;
      }
      const parent = parentOf(path);
      const entry = await readRecord(repository, path, value);
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

/** One directory out of the file tree. Rejects with CorruptStoreError also if an entry's record is not in the store (10.3). */
async function listInFileTree({ repository, header }: ListerParts, directory: BytePath): Promise<VfsEntry[]> {
  const prefix = directory === '/' ? '/' : `${directory}/`;
  const entries: VfsEntry[] = [];
  const tree = await openFileTree(repository, header);
  // In path order the children of a directory are one run of keys (10.2).
  for await (const { key, value } of tree.items(fromBytePath(prefix))) {
    const path = toBytePath(key);
    if (path === '/') continue;
    if (!path.startsWith(prefix) || path.includes('/', prefix.length)) break;
    entries.push(await readRecord(repository, path, value));
  }
  return sortByName(entries);
}

async function readRecord(repository: Repository, path: BytePath, mac: Uint8Array): Promise<VfsEntry> {
  const entry = parseVfsEntry(await repository.readBlob({ type: resourceTypes.vfsEntry, mac }));
  if (toBytePath(entry.name) !== nameOf(path)) {
    throw new CorruptStoreError(`The record of ${fromBytePath(path)} is another's`);
  }
  requireParent(entry, parentOf(path));
  return entry;
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
