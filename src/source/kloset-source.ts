import type { ChunkRef, ChunkStore } from '../core/chunk-store.ts';
import type { Reach } from '../core/device.ts';
import { CorruptStoreError, StoreUnavailableError } from '../core/errors.ts';
import { FileCosts } from '../core/file-costs.ts';
import { MAC_BYTES } from '../core/mac.ts';
import type { Oddity } from '../core/oddities.ts';
import { entryName, entryTypes, type SnapshotSource, type SnapshotTree } from '../core/snapshot-tree.ts';
import type { StopOptions } from '../core/stop.ts';
import type { ByteRange } from '../core/units.ts';
import type { Repository } from '../kloset/repository.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { walkSnapshotCached } from './cached-walk.ts';
import type { ChunkTables } from './chunk-tables.ts';
import { type BytePath, fromBytePath, joinPath, toBytePath } from './directory-lister.ts';
import { FileReader } from './file-reader.ts';
import { ENTRIES_BETWEEN_FILES_MAX } from './limits.ts';
import type { Prefetcher } from './prefetcher.ts';
import type { ReadAhead } from './read-ahead.ts';
import type { WalkedSnapshot, WalkOptions } from './snapshot-walk.ts';

/** Where the parts of an opened snapshot come from; all stay the caller's. */
export interface KlosetSourceParts {
  readonly repository: Repository;
  readonly header: SnapshotHeader;
  /** Reads metadata: directories' lists and attributes. Always the native reader. */
  readonly metadataChunks: ChunkStore;
  /** Reads files' contents: the native reader's chunks, or those that `plakar cat` gives. */
  readonly contentChunks: ChunkStore;
  /** Fetches into `contentChunks` what clients will read next; undefined: nobody does. */
  readonly readAhead?: ReadAhead | undefined;
  /** Fetches into `contentChunks` what is asked for by name or range; undefined: nobody does. */
  readonly prefetcher?: Prefetcher | undefined;
  /** Files' chunk tables; undefined: of this snapshot alone. */
  readonly tables?: ChunkTables | undefined;
}

/** A snapshot of a Kloset store, or a directory in it, as a tree and its contents. */
export class KlosetSource implements SnapshotSource {
  readonly snapshotId: string;
  readonly createdSeconds: number;
  readonly tree: SnapshotTree;
  /** What could not be taken over as recorded. */
  readonly oddities: readonly Oddity[];
  /** What reading each file has cost, by entries of `tree`. */
  readonly costs = new FileCosts();
  readonly #root: BytePath;
  readonly #objects: Uint8Array;
  readonly #files: FileReader;
  readonly #prefetcher: Prefetcher | undefined;

  private constructor(parts: KlosetSourceParts, root: BytePath, walked: WalkedSnapshot) {
    this.snapshotId = parts.header.id;
    this.createdSeconds = parts.header.timestamp.seconds;
    this.tree = walked.tree;
    this.oddities = walked.oddities;
    this.#root = root;
    this.#objects = walked.objects;
    this.#prefetcher = parts.prefetcher;
    this.#files = new FileReader({
      snapshotId: parts.header.id,
      repository: parts.repository,
      tables: parts.tables,
      chunks: parts.contentChunks,
      costs: this.costs,
      fileOf: (entry) => ({
        path: fromBytePath(walked.contentPaths.get(entry) ?? this.#pathOf(entry)),
        object: this.#objects.subarray(entry * MAC_BYTES, (entry + 1) * MAC_BYTES),
        sizeBytes: this.tree.sizeBytes[entry]!,
      }),
      ahead: parts.readAhead && {
        readAhead: parts.readAhead,
        order: {
          sizeOf: (entry) => this.tree.sizeBytes[entry]!,
          nextFile: (entry) => nextFile(this.tree, entry),
        },
      },
    });
  }

  /**
   * Walks the directory `path` of a snapshot, or has it from the cache (undefined: all of it; relative to the directory that was backed up unless
   * it begins with `/`). Rejects with UserError (exit 64) if there is no such directory, or as the reader does.
   */
  static async open(parts: KlosetSourceParts, path?: string, options: WalkOptions = {}): Promise<KlosetSource> {
    const root = resolveRoot(parts.header, path);
    const { repository, header, metadataChunks } = parts;
    const walked = await walkSnapshotCached({ repository, header, chunks: metadataChunks }, root, options);
    return new KlosetSource(parts, root, walked);
  }

  read(entry: number, offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    return this.#files.read(entry, offset, target, options);
  }

  readNow(entry: number, offset: number, target: Uint8Array, reach?: Reach): boolean {
    return this.#files.readNow(entry, offset, target, reach);
  }

  /** The chunks that hold bytes `from` up to `to` of a file, by default all, in order. Rejects as `read`. */
  chunksOf(entry: number, from?: number, to?: number): Promise<readonly ChunkRef[]> {
    return this.#files.chunksOf(entry, from, to);
  }

  /** As `read`, for what this program itself wants to know: it is not counted as a client's. */
  readUncounted(entry: number, offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    return this.#files.readUncounted(entry, offset, target, options);
  }

  async prefetch(entry: number, { offset, length }: ByteRange, { signal }: StopOptions = {}): Promise<number> {
    if (this.#prefetcher === undefined) return 0;
    try {
      const chunks = await this.chunksOf(entry, offset, offset + length);
      const bytesMax = this.#prefetcher.keptBytesMax;
      return (await this.#prefetcher.fetch(chunks, { purpose: 'prefetch', signal, bytesMax })).bytes;
    } catch (error) {
      // The list of the file's chunks cannot be read: nor can the file, and its reader hears why.
      if (error instanceof CorruptStoreError || error instanceof StoreUnavailableError) return 0;
      throw error;
    }
  }

  /** The absolute path of the directory that is the tree's root. */
  get root(): string {
    return fromBytePath(this.#root).toString();
  }

  async close(): Promise<void> {
    this.#files.close();
  }

  #pathOf(entry: number): BytePath {
    const names: BytePath[] = [];
    for (let at = entry; at !== 0; at = this.tree.parent[at]!) names.push(toBytePath(entryName(this.tree, at)));
    return names.reduceRight(joinPath, this.#root);
  }
}

/** The file behind `entry` in the order of the tree, which is that of the disk; names of one inode have one content. */
function nextFile({ length, type, sizeBytes, sameInodeAs }: SnapshotTree, entry: number): number | undefined {
  const end = Math.min(length, entry + 1 + ENTRIES_BETWEEN_FILES_MAX);
  for (let next = entry + 1; next < end; next++) {
    if (type[next] === entryTypes.file && sizeBytes[next]! > 0 && !sameInodeAs.has(next)) return next;
  }
  return undefined;
}

/** The absolute path of the directory that becomes the root, without `.`, `..` and double slashes. */
export function resolveRoot(header: SnapshotHeader, path: string | undefined): BytePath {
  if (path === undefined) return '/';
  const given = Buffer.from(path).toString('latin1');
  const absolute = given.startsWith('/') ? given : `${toBytePath(header.importer.directory)}/${given}`;
  const parts: string[] = [];
  for (const part of absolute.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}
