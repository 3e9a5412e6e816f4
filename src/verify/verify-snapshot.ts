/**
 * Everything that a snapshot's header leads to: all nodes of all its trees, all lists of directories, all records, and the
 * contents of files and attributes. Every blob is compared with its MAC on the way. What is damaged is named and left
 * out; the walk goes on with the rest. Files are met twice, in the lists of directories and in the tree of files, since
 * either leads to them when the other is damaged.
 *
 * Nothing is kept of what was walked: memory does not grow with the snapshot, but for the list of one directory.
 */
import type { ChunkStore } from '../core/chunk-store.ts';
import { forEachConcurrently, mapConcurrently } from '../core/concurrency.ts';
import { CorruptStoreError, UserError } from '../core/errors.ts';
import { entryTypes } from '../core/snapshot-tree.ts';
import type { BTree, TreeItem } from '../kloset/btree.ts';
import { resourceTypes } from '../kloset/format.ts';
import { WHOLE_CONTENT_BYTES_MAX } from '../kloset/limits.ts';
import type { Repository } from '../kloset/repository.ts';
import { openTree, readTrees, type SnapshotHeader, type SnapshotTreeRef } from '../kloset/snapshot.ts';
import { parseDirpack, parseVfsEntry, parseXattrEntry, type VfsEntry } from '../kloset/vfs.ts';
import { type BytePath, findEntry, fromBytePath, joinPath, parentOf, toBytePath } from '../source/directory-lister.ts';
import { readWholeContent } from '../source/file-reader.ts';
import type { ContentCheck } from './content-check.ts';
import { DIRECTORIES_IN_FLIGHT_MAX, ENTRIES_IN_FLIGHT_MAX } from './limits.ts';
import { Problems, requireDamage } from './problems.ts';

export interface SnapshotFindings {
  readonly problems: Problems;
  /** Entries met in lists of directories; in a snapshot without them, in the tree of files. */
  readonly entryCount: number;
  /** Regular files among them, and their bytes as recorded. */
  readonly fileCount: number;
  readonly fileBytes: number;
  /** Entries whose record is nowhere but in the list of their directory: plakar is known to leave some out. */
  readonly recordsMissing: number;
}

export interface VerifyParts {
  readonly repository: Repository;
  /** Reads the lists of directories. */
  readonly chunks: ChunkStore;
  readonly contents: Pick<ContentCheck, 'check'>;
  /** Called for each file, with its bytes. */
  readonly onFile: (bytes: number) => void;
}

/**
 * Verifies the snapshot, or what is at and below `root` (absolute). Rejects with UserError (exit 64) if there is no `root`
 * in it, or with what says nothing about the store, such as that it is away.
 */
export async function verifySnapshot(
  parts: VerifyParts,
  header: SnapshotHeader,
  root: BytePath,
): Promise<SnapshotFindings> {
  const walk = new Walk(parts, header, root);
  await walk.run();
  walk.problems.sort();
  return walk;
}

class Walk implements SnapshotFindings {
  readonly problems = new Problems();
  entryCount = 0;
  fileCount = 0;
  fileBytes = 0;
  recordsMissing = 0;
  readonly #parts: VerifyParts;
  readonly #header: SnapshotHeader;
  readonly #root: BytePath;
  /** Whether entries are counted in the lists of directories, which a snapshot may lack. */
  #hasLists = false;
  /** Directories whose list could not be read: their entries stand in the tree of files only. */
  readonly #unlisted = new Set<BytePath>();
  #someListsLost = false;

  constructor(parts: VerifyParts, header: SnapshotHeader, root: BytePath) {
    this.#parts = parts;
    this.#header = header;
    this.#root = root;
  }

  async run(): Promise<void> {
    if (this.#root !== '/') await this.#requireRoot();
    const trees = await readTrees(this.#parts.repository, this.#header);
    this.#hasLists = trees.some(({ name }) => name === 'dirpack');
    // Lists first: what they lack is told from what the tree of files lacks.
    for (const tree of trees.filter(({ name }) => name === 'dirpack')) {
      await this.#walkTree(tree, DIRECTORIES_IN_FLIGHT_MAX, (item) => this.#checkDirectory(item));
    }
    for (const tree of trees) {
      const check = this.#checkOf(tree.name);
      if (tree.name !== 'dirpack' && check !== undefined) await this.#walkTree(tree, ENTRIES_IN_FLIGHT_MAX, check);
    }
  }

  async #requireRoot(): Promise<void> {
    const { repository, chunks } = this.#parts;
    const found = await findEntry({ repository, chunks, header: this.#header }, this.#root);
    if (found === undefined) {
      throw new UserError(`Snapshot ${this.#header.id.slice(0, 8)} holds no ${fromBytePath(this.#root)}.`);
    }
  }

  /** What to do with a tree's values; undefined: they, and it, are none of the part that is verified. */
  #checkOf(name: string): ((item: TreeItem) => Promise<void>) | undefined {
    switch (name) {
      case 'files':
        return (item) => this.#checkEntry(item);
      case 'attributes':
        return (item) => this.#checkAttribute(item);
      case 'errors':
        return (item) => this.#checkRecord(item, resourceTypes.errorEntry);
      case 'summary':
        return (item) => this.#checkRecord(item, resourceTypes.vfsSummary);
      default: // An index of entries that stand elsewhere: its nodes are all there is to it.
        return this.#root === '/' ? async () => {} : undefined;
    }
  }

  async #walkTree(ref: SnapshotTreeRef, limit: number, check: (item: TreeItem) => Promise<void>): Promise<void> {
    const onDamage = (error: unknown) => {
      this.problems.add({ kind: 'tree', path: undefined, error: requireDamage(error) });
      if (ref.name === 'dirpack') this.#someListsLost = true;
    };
    let tree: BTree;
    try {
      tree = await openTree(this.#parts.repository, ref);
    } catch (error) {
      onDamage(error);
      return;
    }
    await forEachConcurrently(tree.items(undefined, { onDamage }), limit, check);
  }

  #isInside(path: BytePath): boolean {
    return this.#root === '/' || path === this.#root || path.startsWith(`${this.#root}/`);
  }

  async #checkDirectory({ key, value }: TreeItem): Promise<void> {
    const directory = toBytePath(key);
    if (!this.#isInside(directory)) return;
    let entries: VfsEntry[];
    try {
      const { repository, chunks } = this.#parts;
      const file = { snapshotId: this.#header.id, path: key, bytesMax: WHOLE_CONTENT_BYTES_MAX };
      entries = parseDirpack(await readWholeContent({ repository, chunks }, value, file), repository);
    } catch (error) {
      this.problems.add({ kind: 'directory', path: new Uint8Array(key), error: requireDamage(error) });
      this.#unlisted.add(directory);
      return;
    }
    await mapConcurrently(entries, ENTRIES_IN_FLIGHT_MAX, async (entry) => {
      this.#count(entry);
      await this.#checkContent(joinPath(directory, toBytePath(entry.name)), entry);
    });
  }

  /** A key and value of the tree of files. */
  async #checkEntry({ key, value }: TreeItem): Promise<void> {
    const path = toBytePath(key);
    if (!this.#isInside(path)) return;
    const { repository } = this.#parts;
    const isListed = this.#hasLists && !this.#someListsLost && !this.#unlisted.has(parentOf(path));
    try {
      if (isListed && (await repository.storedLength({ type: resourceTypes.vfsEntry, mac: value })) === undefined) {
        this.recordsMissing++;
        return;
      }
      const entry = parseVfsEntry(await repository.readBlob({ type: resourceTypes.vfsEntry, mac: value }));
      if (!isListed) this.#count(entry);
      await this.#checkContent(path, entry);
    } catch (error) {
      this.problems.add({ kind: 'entry', path: new Uint8Array(key), error: requireDamage(error) });
    }
  }

  #count(entry: VfsEntry): void {
    this.entryCount++;
    if (entry.type !== entryTypes.file) return;
    this.fileCount++;
    this.fileBytes += entry.size;
    this.#parts.onFile(entry.size);
  }

  async #checkContent(path: BytePath, { type, object, size, symlinkTarget }: VfsEntry): Promise<void> {
    if (object.every((byte) => byte === 0) && (type !== entryTypes.file || size === 0)) return;
    const { sizeBytes, problems } = await this.#parts.contents.check(object);
    for (const problem of problems) this.problems.add({ kind: 'file', path: fromBytePath(path), ...problem });
    // Some importers record symlinks as files, with the length of the target and no content.
    if (type !== entryTypes.file || symlinkTarget.byteLength > 0 || sizeBytes === undefined || sizeBytes === size)
      return;
    const error = new CorruptStoreError(`it is recorded with ${size} bytes, its chunks hold ${sizeBytes}`);
    this.problems.add({ kind: 'file', path: fromBytePath(path), error });
  }

  async #checkAttribute({ key, value }: TreeItem): Promise<void> {
    let path = key;
    try {
      const blob = await this.#parts.repository.readBlob({ type: resourceTypes.xattrEntry, mac: value });
      const attribute = parseXattrEntry(blob);
      path = attribute.path;
      if (!this.#isInside(toBytePath(path))) return;
      const { problems } = await this.#parts.contents.check(attribute.object);
      for (const problem of problems) {
        this.problems.add({
          kind: 'attribute',
          path: Buffer.concat([path, Buffer.from(' '), attribute.name]),
          ...problem,
        });
      }
    } catch (error) {
      this.problems.add({ kind: 'attribute', path: new Uint8Array(path), error: requireDamage(error) });
    }
  }

  async #checkRecord(
    { key, value }: TreeItem,
    type: typeof resourceTypes.errorEntry | typeof resourceTypes.vfsSummary,
  ): Promise<void> {
    if (!this.#isInside(toBytePath(key))) return;
    try {
      await this.#parts.repository.readBlob({ type, mac: value });
    } catch (error) {
      this.problems.add({ kind: 'entry', path: new Uint8Array(key), error: requireDamage(error) });
    }
  }
}
