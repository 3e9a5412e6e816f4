import { LRUCache } from 'lru-cache';
import type { ChunkOptions, ChunkRef, ChunkStore, FileRef } from '../core/chunk-store.ts';
import { mapConcurrently } from '../core/concurrency.ts';
import { copyBytes } from '../core/copy-bytes.ts';
import type { Reach } from '../core/device.ts';
import { CorruptStoreError } from '../core/errors.ts';
import type { FileCost, FileCosts } from '../core/file-costs.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { orStopped, type StopOptions } from '../core/stop.ts';
import type { Repository } from '../kloset/repository.ts';
import { type ChunkTable, readChunkTable } from '../kloset/vfs.ts';
import { ChunkTables } from './chunk-tables.ts';
import { nameChunk, namePath } from './error-names.ts';
import { CHUNK_TABLES_BYTES_MAX, CHUNKS_PER_READ_IN_FLIGHT_MAX } from './limits.ts';
import type { AheadFiles, ChunkRun, ReadAhead } from './read-ahead.ts';
import type { FileOrder } from './sequence.ts';

/** A file of the snapshot as the reader needs it. */
export interface ContentFile {
  /** Absolute path inside the snapshot, raw bytes. */
  readonly path: Uint8Array;
  /** MAC of the object that lists its chunks. */
  readonly object: Uint8Array;
  /** As recorded for the entry; the chunks may disagree in a damaged snapshot. */
  readonly sizeBytes: number;
}

interface OpenFile {
  readonly table: ChunkTable;
  readonly ref: FileRef & { readonly cost: FileCost };
}

interface Opening {
  readonly file: Promise<OpenFile>;
  /** The same once it is there. */
  readonly opened: OpenFile | undefined;
}

/** Bytes a chunk's reference takes beside its 40 bytes of table. */
const CHUNK_REF_BYTES = 160;

/** File offset -> chunks. Chunk tables are read when a file is first read, and kept in a bounded cache. */
export class FileReader {
  readonly #snapshotId: string;
  readonly #tables: ChunkTables;
  readonly #chunks: ChunkStore;
  readonly #fileOf: (entry: number) => ContentFile;
  readonly #costs: FileCosts;
  readonly #open: LRUCache<number, Opening>;
  readonly #readAhead: ReadAhead | undefined;
  /** The files as reading ahead sees them. */
  readonly #aheadFiles: AheadFiles | undefined;

  constructor(parts: {
    snapshotId: string;
    repository: Repository;
    /** Chunk tables that several share; default: none do. */
    tables?: ChunkTables | undefined;
    chunks: ChunkStore;
    fileOf: (entry: number) => ContentFile;
    /** Where it is counted what each file costs. */
    costs: FileCosts;
    /** Undefined: nothing is fetched before it is asked for. */
    ahead?: { readonly readAhead: ReadAhead; readonly order: FileOrder } | undefined;
  }) {
    this.#snapshotId = parts.snapshotId;
    this.#tables = parts.tables ?? new ChunkTables(parts.repository);
    this.#chunks = parts.chunks;
    this.#fileOf = parts.fileOf;
    this.#costs = parts.costs;
    this.#readAhead = parts.ahead?.readAhead;
    this.#aheadFiles = parts.ahead && {
      ...parts.ahead.order,
      chunksFrom: (entry, offset, bytes) => this.#chunksFrom(entry, offset, bytes),
    };
    this.#open = new LRUCache({ maxSize: CHUNK_TABLES_BYTES_MAX });
  }

  /** Fills `target` from `offset` of the file `entry`; rejects with CorruptStoreError where its chunks end too early. */
  async read(entry: number, offset: number, target: Uint8Array, options: StopOptions = {}): Promise<void> {
    if (target.byteLength === 0) return;
    const cost = this.#costs.of(entry);
    cost.requests++;
    cost.bytes += target.byteLength;
    const startedMs = performance.now();
    const isInSequence = this.#touched(entry, offset, offset + target.byteLength);
    try {
      await this.#read(entry, offset, target, { ...options, isInSequence });
    } finally {
      cost.waitMs += performance.now() - startedMs;
    }
  }

  /** As `read`, without counting it as a client's. */
  readUncounted(entry: number, offset: number, target: Uint8Array, options: StopOptions = {}): Promise<void> {
    return this.#read(entry, offset, target, options);
  }

  async #read(entry: number, offset: number, target: Uint8Array, options: ReadOptions): Promise<void> {
    // What others will need as well is not stopped.
    const { table, ref } = await orStopped(this.#file(entry), options.signal);
    const end = offset + target.byteLength;
    const contentBytes = table.starts[table.starts.length - 1]!;
    if (end > contentBytes) {
      throw new CorruptStoreError(
        `Snapshot ${this.#snapshotId.slice(0, 8)}, file ${Buffer.from(ref.path)}: it is recorded with ` +
          `${this.#fileOf(entry).sizeBytes} bytes, its chunks hold ${contentBytes}`,
        { details: { snapshot: this.#snapshotId, file: Buffer.from(ref.path).toString() } },
      );
    }
    const pieces: ChunkRef[] = [];
    for (let i = chunkAt(table.starts, offset); i < ref.chunks.length && table.starts[i]! < end; i++) {
      if (ref.chunks[i]!.lengthBytes > 0) pieces.push(ref.chunks[i]!);
    }
    await mapConcurrently(pieces, CHUNKS_PER_READ_IN_FLIGHT_MAX, async (chunk) => {
      this.#readAhead?.used(chunk);
      await readPart(this.#chunks, chunk, partOf({ chunk, table }, { offset, target }), options);
    });
  }

  /** As ContentReader.readNow. Whatever is not as it should be is left to `read`, which says so. */
  readNow(entry: number, offset: number, target: Uint8Array, reach?: Reach): boolean {
    const opened = this.#open.get(entry)?.opened;
    if (opened === undefined || this.#chunks.readIntoNow === undefined) return false;
    const { table, ref } = opened;
    const end = offset + target.byteLength;
    if (end > table.starts[table.starts.length - 1]!) return false;
    for (let i = chunkAt(table.starts, offset); i < ref.chunks.length && table.starts[i]! < end; i++) {
      const chunk = ref.chunks[i]!;
      if (chunk.lengthBytes === 0) continue;
      const part = partOf({ chunk, table }, { offset, target });
      if (!this.#chunks.readIntoNow(chunk, part.offset, part.target, reach)) return false;
      if (reach !== 'unseen') this.#readAhead?.used(chunk);
    }
    if (reach === 'unseen') return true;
    this.#touched(entry, offset, end);
    const { cost } = ref;
    cost.requests++;
    cost.bytes += target.byteLength;
    return true;
  }

  /** The chunks that hold bytes `from` up to `to` of the file `entry`, in order; empty ones are left out. Rejects as `read`. */
  async chunksOf(entry: number, from = 0, to = Number.POSITIVE_INFINITY): Promise<readonly ChunkRef[]> {
    const { table, ref } = await this.#file(entry);
    const found: ChunkRef[] = [];
    for (let i = chunkAt(table.starts, from); i < ref.chunks.length && table.starts[i]! < to; i++) {
      if (ref.chunks[i]!.lengthBytes > 0 && table.starts[i + 1]! > from) found.push(ref.chunks[i]!);
    }
    return found;
  }

  /** Ends what is fetched ahead. */
  close(): void {
    if (this.#aheadFiles !== undefined) this.#readAhead?.forget(this.#aheadFiles);
  }

  /** True if that goes on in a sequence of reads. */
  #touched(entry: number, offset: number, end: number): boolean {
    if (this.#aheadFiles === undefined || this.#readAhead === undefined) return false;
    return this.#readAhead.touched(this.#aheadFiles, { entry, offset, end });
  }

  async #chunksFrom(entry: number, offset: number, bytes: number): Promise<ChunkRun> {
    const { table } = await this.#file(entry);
    const chunks = await this.chunksOf(entry, offset, offset + bytes);
    const [first] = chunks;
    const last = chunks.at(-1);
    if (first === undefined || last === undefined) return { chunks, start: offset, end: offset + bytes };
    return { chunks, start: table.starts[first.indexInFile]!, end: table.starts[last.indexInFile + 1]! };
  }

  #file(entry: number): Promise<OpenFile> {
    const known = this.#open.get(entry);
    if (known !== undefined) return known.file;
    const file = this.#openFile(entry);
    this.#open.set(entry, { file, opened: undefined }, { size: 1 }); // Its real size is known once it is read.
    return file;
  }

  async #openFile(entry: number): Promise<OpenFile> {
    const { path, object } = this.#fileOf(entry);
    try {
      const table = await this.#tables.read(object);
      const named = { snapshotId: this.#snapshotId, path, cost: this.#costs.of(entry) };
      const file = { table, ref: makeFileRef(named, table) };
      const size = 256 + file.ref.chunks.length * (MAC_BYTES + 8 + CHUNK_REF_BYTES);
      // One that is larger than the whole cache has it to itself: read anew for every block it would stop everything.
      this.#open.set(
        entry,
        { file: Promise.resolve(file), opened: file },
        { size: Math.min(size, CHUNK_TABLES_BYTES_MAX) },
      );
      return file;
    } catch (error) {
      this.#open.delete(entry);
      throw namePath(error, { snapshotId: this.#snapshotId, path });
    }
  }
}

type ReadOptions = Pick<ChunkOptions, 'signal' | 'isInSequence'>;

/** A chunk's bytes, of the length that the file's object says: a shorter one would leave old bytes in the reply. */
async function getChecked(chunks: ChunkStore, chunk: ChunkRef, options?: ReadOptions): Promise<Uint8Array> {
  try {
    const plain = await chunks.get(chunk, options);
    if (plain.byteLength !== chunk.lengthBytes) {
      throw new CorruptStoreError(`it has ${plain.byteLength} bytes instead of ${chunk.lengthBytes}`);
    }
    return plain;
  } catch (error) {
    // Whoever joins a fetch that another file asked for gets its own name on the error, too.
    throw nameChunk(error, chunk);
  }
}

/** Bytes of a chunk: from `offset` in it, as many as `target` takes. */
interface ChunkPart {
  readonly offset: number;
  readonly target: Uint8Array;
}

/** Fills a part from the chunk, of which no more is made than it takes. */
async function readPart(chunks: ChunkStore, chunk: ChunkRef, part: ChunkPart, options: ReadOptions): Promise<void> {
  if (chunks.readInto === undefined) return copyPart(await getChecked(chunks, chunk, options), part);
  try {
    await chunks.readInto(chunk, part.offset, part.target, options);
  } catch (error) {
    throw nameChunk(error, chunk);
  }
}

function copyPart(plain: Uint8Array, { offset, target }: ChunkPart): void {
  copyBytes(plain.subarray(offset, offset + target.byteLength), target);
}

/** What a chunk has of the range of its file that begins at `offset` and is as long as `target`. */
function partOf(
  { chunk, table }: { readonly chunk: ChunkRef; readonly table: ChunkTable },
  { offset, target }: { readonly offset: number; readonly target: Uint8Array },
): ChunkPart {
  const start = table.starts[chunk.indexInFile]!;
  const from = Math.max(offset, start);
  const to = Math.min(offset + target.byteLength, start + chunk.lengthBytes);
  return { offset: from - start, target: target.subarray(from - offset, to - offset) };
}

/** Index of the chunk that holds byte `offset`: the last that begins at or before it. */
function chunkAt(starts: Float64Array, offset: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (starts[middle]! <= offset) low = middle;
    else high = middle;
  }
  return low;
}

function makeFileRef<T extends Omit<FileRef, 'chunks'>>(named: T, table: ChunkTable): T & FileRef {
  const chunks: ChunkRef[] = [];
  const file = { ...named, chunks };
  for (let i = 0; i + 1 < table.starts.length; i++) {
    chunks.push({
      mac: table.macs.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES),
      lengthBytes: table.starts[i + 1]! - table.starts[i]!,
      file,
      indexInFile: i,
    });
  }
  return file;
}

/** Reads a whole content that is metadata: a dirpack, or an attribute's value. Its MAC is verified too. */
export async function readWholeContent(
  parts: { repository: Repository; chunks: ChunkStore },
  object: Uint8Array,
  file: { snapshotId: string; path: Uint8Array; bytesMax: number },
): Promise<Uint8Array> {
  try {
    const table = await readChunkTable(parts.repository, object);
    const sizeBytes = table.starts[table.starts.length - 1]!;
    if (sizeBytes > file.bytesMax) {
      throw new CorruptStoreError(`${sizeBytes} bytes of metadata, more than ${file.bytesMax}`);
    }
    const content = new Uint8Array(sizeBytes);
    const { chunks } = makeFileRef(file, table);
    for (const chunk of chunks) {
      if (chunk.lengthBytes > 0) content.set(await getChecked(parts.chunks, chunk), table.starts[chunk.indexInFile]);
    }
    // A single chunk's MAC is the content's.
    if (chunks.length > 1) parts.repository.requireMac(content, table.contentMac);
    return content;
  } catch (error) {
    throw namePath(error, file);
  }
}
