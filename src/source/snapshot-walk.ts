/**
 * From a snapshot's directories to the columns of a SnapshotTree, corrected for what importers are known to record
 * (kloset-format 11.3, 11.4, 11.7).
 */
import { mapConcurrently } from '../core/concurrency.ts';
import { CorruptStoreError, UserError } from '../core/errors.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { Oddities, type Oddity } from '../core/oddities.ts';
import { type Progress, type ProgressStage, silentProgress } from '../core/progress.ts';
import { type EntryType, type ExtendedAttribute, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { resourceTypes } from '../kloset/format.ts';
import { METADATA_IN_FLIGHT_MAX } from '../kloset/limits.ts';
import { openAttributeTree, openErrorTree } from '../kloset/snapshot.ts';
import { parseXattrEntry, type VfsEntry, type XattrEntry } from '../kloset/vfs.ts';
import { dataDirectoryRoot } from './data-directory.ts';
import {
  type BytePath,
  type DirectoryLister,
  findEntry,
  fromBytePath,
  joinPath,
  type ListerParts,
  openLister,
  toBytePath,
} from './directory-lister.ts';
import { nameSnapshot } from './error-names.ts';
import { readWholeContent } from './file-reader.ts';
import { ATTRIBUTE_BYTES_MAX, DIRECTORIES_IN_FLIGHT_MAX } from './limits.ts';
import { TreeBuilder, type TreeFields } from './tree-builder.ts';

/** Importers that read tar archives; they record links and special bits in their own way (11.7). */
const TAR_IMPORTERS = ['tar', 'tar+gz', 'tar+gzip', 'tgz'];

/** A snapshot's entries, and the object of each file. */
export interface WalkedSnapshot {
  readonly tree: SnapshotTree;
  /** 32 bytes an entry; zero for everything but files. */
  readonly objects: Uint8Array;
  /** Files whose content the snapshot keeps under another path than their own: hard links of a tar archive. */
  readonly contentPaths: ReadonlyMap<number, BytePath>;
  /** What could not be taken over as recorded. */
  readonly oddities: readonly Oddity[];
}

export interface WalkOptions {
  /** Oddities name every entry concerned, not only the first. */
  readonly everyExample?: boolean | undefined;
  /** Told of every entry. */
  readonly progress?: Progress | undefined;
}

/** Walks everything at and below `root`. Rejects with UserError (exit 64) if `root` is no directory of the snapshot. */
export async function walkSnapshot(
  parts: ListerParts,
  root: BytePath,
  options: WalkOptions = {},
): Promise<WalkedSnapshot> {
  const walk = new Walk(parts, root, options);
  await walk.run();
  return walk.finish();
}

class Walk {
  readonly #parts: ListerParts;
  readonly #root: BytePath;
  readonly #isTar: boolean;
  readonly #builder = new TreeBuilder();
  readonly #oddities: Oddities;
  readonly #stage: ProgressStage;
  #objects = new Uint8Array(64 * MAC_BYTES);
  /** Identity of a source inode -> the first entry that names it. */
  readonly #inodes = new Map<string, number>();
  /** Entries whose attributes are still to be read, by path. */
  readonly #attributed = new Map<BytePath, { entry: number; names: number }>();
  readonly #contentPaths = new Map<number, BytePath>();
  /** Tar hard links: entry -> path of the member that it links to. */
  readonly #tarLinks: { readonly entry: number; readonly path: BytePath; readonly target: BytePath }[] = [];

  constructor(parts: ListerParts, root: BytePath, options: WalkOptions) {
    this.#parts = parts;
    this.#oddities = new Oddities(options);
    const { progress = silentProgress } = options;
    this.#stage = progress.begin('entries walked', root === '/' ? parts.header.entryCount : undefined);
    this.#root = root;
    this.#isTar = TAR_IMPORTERS.includes(parts.header.importer.type);
  }

  async run(): Promise<void> {
    try {
      this.#append(0, new Uint8Array(0), this.#root, await this.#rootEntry());
      const lister = await openLister(this.#parts, this.#root, this.#oddities);
      let level: Directory[] = [{ entry: 0, path: this.#root }];
      while (level.length > 0) level = await this.#walkLevel(lister, level);
      for (const path of lister.unlisted()) {
        this.#oddities.add('directories that no other one lists are left out, with all in them', () =>
          fromBytePath(path),
        );
      }
      await this.#resolveTarLinks();
      await this.#readAttributes();
      await this.#countUnread();
      this.#correctRoot();
    } catch (error) {
      throw nameSnapshot(error, this.#parts.header.id);
    } finally {
      this.#stage.end();
    }
  }

  finish(): WalkedSnapshot {
    const tree = this.#builder.finish();
    return {
      tree,
      objects: this.#objects.subarray(0, tree.length * MAC_BYTES),
      contentPaths: this.#contentPaths,
      oddities: this.#oddities.list(),
    };
  }

  async #rootEntry(): Promise<KnownEntry> {
    const found = await findEntry(this.#parts, this.#root);
    if (found === undefined) {
      if (this.#root === '/') return ROOT_WITHOUT_BLOB;
      throw new UserError(
        `Snapshot ${this.#parts.header.id.slice(0, 8)} holds no directory ${fromBytePath(this.#root)}.`,
      );
    }
    if (!isKnown(found) || found.type !== entryTypes.directory) {
      throw new UserError(
        `${fromBytePath(this.#root)} in snapshot ${this.#parts.header.id.slice(0, 8)} is not a directory; only a directory can be served.`,
      );
    }
    return found;
  }

  /** Appends the children of all directories of one level and returns those among them that are directories. */
  async #walkLevel(lister: DirectoryLister, level: readonly Directory[]): Promise<Directory[]> {
    const next: Directory[] = [];
    // In slices: a level's entries need not all be in memory as objects at once.
    for (let start = 0; start < level.length; start += DIRECTORIES_IN_FLIGHT_MAX) {
      const slice = level.slice(start, start + DIRECTORIES_IN_FLIGHT_MAX);
      const lists = await mapConcurrently(slice, DIRECTORIES_IN_FLIGHT_MAX, ({ path }) => lister.list(path));
      for (const [i, directory] of slice.entries()) {
        const entries = lists[i];
        if (entries === undefined)
          this.#oddities.add('directories whose list of entries is not in the snapshot are shown empty', () =>
            fromBytePath(directory.path),
          );
        for (const entry of entries ?? []) this.#appendChild(directory, entry, next);
      }
    }
    return next;
  }

  #appendChild(directory: Directory, entry: VfsEntry, directories: Directory[]): void {
    const name = toBytePath(entry.name);
    const path = joinPath(directory.path, name);
    if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) {
      this.#oddities.add('entries with an impossible name are left out', () => fromBytePath(path));
      return;
    }
    if (!isKnown(entry)) {
      this.#oddities.add('entries of a kind that Linux does not have are left out', () => fromBytePath(path));
      return;
    }
    const index = this.#append(directory.entry, entry.name, path, entry);
    if (entry.type !== entryTypes.directory) return;
    // Lists are sorted by name. Both of two directories with one path would show its children, and theirs again both:
    // a few such levels make more entries than there is memory.
    if (directories.at(-1)?.path === path) {
      this.#oddities.add('directories whose name occurs twice are shown empty the second time', () =>
        fromBytePath(path),
      );
      return;
    }
    directories.push({ entry: index, path });
  }

  #append(parent: number, name: Uint8Array, path: BytePath, entry: KnownEntry): number {
    // Tar and postgres importers record symlinks as regular files that have a target (11.7 rule 1).
    const isFile = entry.type === entryTypes.file && entry.symlinkTarget.byteLength === 0;
    const type = entry.type === entryTypes.file && !isFile ? entryTypes.symlink : entry.type;
    const fields = this.#fieldsOf(entry, type);
    const index = this.#builder.append(parent, name, fields);
    this.#stage.advance();
    if (isFile) this.#setObject(index, entry.object);
    // A copy: a view would keep the list of the whole directory in memory.
    if (type === entryTypes.symlink) this.#builder.linkTarget.set(index, new Uint8Array(entry.symlinkTarget));
    if (this.#isTar && entry.type === entryTypes.symlink) {
      this.#tarLinks.push({ entry: index, path, target: memberPath(entry.symlinkTarget) });
    }
    if (entry.attributeNames.length > 0) {
      this.#attributed.set(path, { entry: index, names: entry.attributeNames.length });
    }
    this.#joinInode(index, entry, type);
    return index;
  }

  #fieldsOf(entry: VfsEntry, type: EntryType): TreeFields {
    return {
      type,
      mode: this.#isTar ? entry.mode | entry.rawUnixBits : entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      sizeBytes: type === entryTypes.file ? Math.max(0, entry.size) : 0,
      mtimeSeconds: entry.mtime.seconds,
      mtimeNanoseconds: entry.mtime.nanoseconds,
    };
  }

  /** Groups names of one source inode; only if nothing else differs, since inode numbers are reused while a backup runs (11.3). */
  #joinInode(index: number, entry: VfsEntry, type: EntryType): void {
    if (type === entryTypes.directory || entry.linkCount < 2 || entry.sourceInode === undefined) return;
    const { seconds, nanoseconds } = entry.mtime;
    const identity = [
      entry.sourceInode,
      type,
      entry.size,
      `${seconds}.${nanoseconds}`,
      toBytePath(entry.object),
      toBytePath(entry.symlinkTarget),
    ].join('|');
    const first = this.#inodes.get(identity);
    if (first === undefined) this.#inodes.set(identity, index);
    else this.#joinTo(index, first);
  }

  /** Makes `entry` another name of `first`: all columns of both are equal afterwards. */
  #joinTo(entry: number, first: number): void {
    this.#builder.setFields(entry, this.#builder.fieldsOf(first));
    this.#setObject(entry, this.#objects.subarray(first * MAC_BYTES, (first + 1) * MAC_BYTES));
    this.#builder.sameInodeAs.set(entry, first);
  }

  /** 11.7 rule 2: what tar importers record as a symlink is a hard link to a member of the archive, if that is a file. */
  async #resolveTarLinks(): Promise<void> {
    if (this.#tarLinks.length === 0) return;
    const byPath = this.#filesByPath(new Set(this.#tarLinks.map((link) => link.target)));
    const groups = new Map<BytePath, Set<number>>();
    for (const link of this.#tarLinks) {
      const target = byPath.get(link.target) ?? (await this.#adoptOutsider(link, groups));
      if (target === undefined) continue;
      this.#builder.linkTarget.delete(link.entry);
      this.#contentPaths.set(link.entry, link.target);
      const group = groups.get(link.target) ?? new Set([target]);
      groups.set(link.target, group.add(link.entry));
    }
    for (const group of groups.values()) this.#joinGroup(group);
  }

  /**
   * The first of a link group by index carries the inode, whichever of them the archive stored the content under: that
   * one comes first in the set.
   */
  #joinGroup(group: ReadonlySet<number>): void {
    const [stored] = group;
    let first = stored!;
    for (const entry of group) first = Math.min(first, entry);
    if (first !== stored) this.#joinTo(first, stored!);
    this.#builder.sameInodeAs.delete(first);
    for (const entry of group) if (entry !== first) this.#joinTo(entry, first);
  }

  /** A link whose member lies outside the served directory: it becomes a file with that member's content. */
  async #adoptOutsider(
    link: { readonly entry: number; readonly target: BytePath },
    groups: ReadonlyMap<BytePath, ReadonlySet<number>>,
  ): Promise<number | undefined> {
    const adopted = groups.get(link.target);
    if (adopted !== undefined) return adopted.values().next().value;
    if (this.#root === '/') return undefined; // Everything was walked: there is no such member.
    const member = await findEntry(this.#parts, link.target);
    if (member === undefined || member.type !== entryTypes.file || member.symlinkTarget.byteLength > 0)
      return undefined;
    this.#builder.setFields(link.entry, this.#fieldsOf(member, entryTypes.file));
    this.#setObject(link.entry, member.object);
    return link.entry;
  }

  #filesByPath(wanted: ReadonlySet<BytePath>): Map<BytePath, number> {
    const tree = this.#builder.finish();
    const found = new Map<BytePath, number>();
    const paths: BytePath[] = [this.#root];
    for (let i = 1; i < tree.length; i++) {
      const name = toBytePath(tree.nameBytes.subarray(tree.nameStart[i], tree.nameStart[i + 1]));
      const path = joinPath(paths[tree.parent[i]!]!, name);
      if (tree.type[i] === entryTypes.directory) paths[i] = path;
      if (tree.type[i] === entryTypes.file && wanted.has(path)) found.set(path, i);
    }
    return found;
  }

  async #readAttributes(): Promise<void> {
    if (this.#attributed.size === 0) return;
    const { repository, chunks, header } = this.#parts;
    const wanted = await this.#wantedAttributes();
    const values = await mapConcurrently(wanted, METADATA_IN_FLIGHT_MAX, (xattr) =>
      readWholeContent({ repository, chunks }, xattr.object, {
        snapshotId: header.id,
        path: xattr.path,
        bytesMax: ATTRIBUTE_BYTES_MAX,
      }),
    );
    // All names of an inode have its attributes: what the writer lost under one it may have kept under another.
    const byInode = new Map<number, Map<BytePath, ExtendedAttribute>>();
    for (const [i, xattr] of wanted.entries()) {
      const inode = this.#inodeOf(this.#attributed.get(toBytePath(xattr.path))!.entry);
      const attributes = byInode.get(inode) ?? new Map<BytePath, ExtendedAttribute>();
      attributes.set(toBytePath(xattr.name), { name: new Uint8Array(xattr.name), value: values[i]! });
      byInode.set(inode, attributes);
    }
    for (const [path, { entry, names }] of this.#attributed) {
      const attributes = [...(byInode.get(this.#inodeOf(entry))?.values() ?? [])];
      // The writer is known to lose values (11.4).
      if (attributes.length < names)
        this.#oddities.add('extended attributes whose value is not in the snapshot are left out', () =>
          fromBytePath(path),
        );
      if (attributes.length === 0) continue;
      this.#builder.attributes.set(
        entry,
        attributes.sort((a, b) => Buffer.compare(a.name, b.name)),
      );
    }
  }

  async #wantedAttributes(): Promise<XattrEntry[]> {
    const { repository, header } = this.#parts;
    if (header.trees.attributes.every((byte) => byte === 0)) return []; // Older snapshots have no such tree.
    const macs: Uint8Array[] = [];
    for await (const { value } of (await openAttributeTree(repository, header)).items()) macs.push(value);
    const xattrs = await mapConcurrently(macs, METADATA_IN_FLIGHT_MAX, async (mac) => {
      const xattr = parseXattrEntry(await repository.readBlob({ type: resourceTypes.xattrEntry, mac }));
      return xattr.isExtendedAttribute && this.#attributed.has(toBytePath(xattr.path)) ? xattr : undefined;
    });
    return xattrs.filter((xattr) => xattr !== undefined);
  }

  /** What the importer could not read: an entry is missing, or lacks its attributes (11.5). */
  async #countUnread(): Promise<void> {
    const { repository, header } = this.#parts;
    const prefix = this.#root === '/' ? '/' : `${this.#root}/`;
    try {
      const tree = await openErrorTree(repository, header);
      if (tree === undefined) return;
      for await (const { key } of tree.items()) {
        const path = toBytePath(key);
        if (path !== this.#root && !path.startsWith(prefix)) continue;
        this.#oddities.add('what could not be read when the backup was made is missing or incomplete', () =>
          fromBytePath(path),
        );
      }
    } catch (error) {
      // All that is there can be shown without it.
      if (!(error instanceof CorruptStoreError)) throw error;
      const message = 'the list of what could not be read when the backup was made is damaged';
      this.#oddities.add(message, () => fromBytePath(this.#root));
    }
  }

  #correctRoot(): void {
    const correction = dataDirectoryRoot(this.#builder.finish());
    if (correction === undefined) return;
    this.#builder.setFields(0, { ...this.#builder.fieldsOf(0), ...correction });
    this.#oddities.add(
      "the root is a PostgreSQL data directory with another owner or mode: it gets PG_VERSION's owner, group and time, and mode 0700",
      () => fromBytePath(this.#root),
    );
  }

  #inodeOf(entry: number): number {
    return this.#builder.sameInodeAs.get(entry) ?? entry;
  }

  #setObject(entry: number, object: Uint8Array): void {
    const end = (entry + 1) * MAC_BYTES;
    if (end > this.#objects.length) {
      const wider = new Uint8Array(Math.max(end, this.#objects.length * 2));
      wider.set(this.#objects);
      this.#objects = wider;
    }
    this.#objects.set(object, entry * MAC_BYTES);
  }
}

interface Directory {
  readonly entry: number;
  readonly path: BytePath;
}

/** An entry of a kind that a Linux filesystem can hold. */
type KnownEntry = VfsEntry & { readonly type: EntryType };

function isKnown(entry: VfsEntry): entry is KnownEntry {
  return entry.type !== undefined;
}

/** kloset-format 10.3: what to assume of a root whose entry was never stored. */
const ROOT_WITHOUT_BLOB: KnownEntry = {
  parentPath: Buffer.from('/'),
  name: Buffer.from('/'),
  type: entryTypes.directory,
  mode: 0o755,
  rawUnixBits: 0,
  size: 0,
  mtime: { seconds: 0, nanoseconds: 0 },
  uid: 0,
  gid: 0,
  linkCount: 1,
  sourceInode: undefined,
  symlinkTarget: new Uint8Array(0),
  object: new Uint8Array(MAC_BYTES),
  attributeNames: [],
};

/** The absolute path of an archive member that is named relative to the archive's root. */
function memberPath(target: Uint8Array): BytePath {
  const parts: string[] = [];
  for (const part of toBytePath(target).split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}
