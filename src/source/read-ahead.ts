/**
 * Reads ahead of clients that read one byte after another: finds them among all reads, and has chunks fetched before
 * they are asked for.
 *
 *     reads ──► candidates, the last few places that were read
 *                   │ so many bytes one after another
 *                   ▼
 *               streams, each with a window of chunks ahead of it ──► Prefetcher
 *
 * A window grows with each chunk of it that its reader reaches, and is halved for each that goes unused. Streams whose
 * chunks go unused also make it harder for the next ones to be taken for streams. A stream goes on in the next file of
 * the disk only if its reader has done so before: a table is read to its end, a disk beyond it.
 */
import type { ChunkRef } from '../core/chunk-store.ts';
import { KiB, MiB } from '../core/units.ts';
import type { Prefetcher } from './prefetcher.ts';
import { type FileOrder, Sequence, type TouchedRange } from './sequence.ts';

/** A run of chunks in a file. */
export interface ChunkRun {
  readonly chunks: readonly ChunkRef[];
  /** The byte of the file where the first begins, and where the last one ends. */
  readonly start: number;
  readonly end: number;
}

/** The files that clients read, and their chunks. */
export interface AheadFiles extends FileOrder {
  /** The chunks that hold `bytes` bytes of a file from `offset` on, which lies inside it. Rejects as a read does. */
  chunksFrom(entry: number, offset: number, bytes: number): Promise<ChunkRun>;
}

export interface ReadAheadOptions {
  readonly prefetcher: Prefetcher;
  /** Plain bytes fetched ahead and not yet read, of all streams: a share of the cache, so that they are still there when their turn comes. */
  readonly bytesMax: number;
}

/** Readers followed at once: workers of a parallel scan, connections of nbdcopy, a few of each. */
const STREAMS_MAX = 16;

/** Places remembered that may become streams: random readers leave one with each read, so those between two reads of a stream must fit. */
const CANDIDATES_MAX = 64;

/** Bytes read one after another that make a stream: two of the kernel's own read-aheads, which random reads cause, too. */
const STEADY_BYTES_MIN = 256 * KiB;

/** The same where streams have ended early again and again. */
const STEADY_BYTES_MAX = 8 * MiB;

/** What is fetched ahead of a new stream: one chunk as a rule. */
const WINDOW_BYTES_MIN = 512 * KiB;

/** Ahead of one that has gone on for long: a quarter of a second at the speed of a fast network. */
const WINDOW_BYTES_MAX = 32 * MiB;

/** Files whose chunks are asked for in one go, where files are small. */
const FILES_AT_ONCE_MAX = 64;

/** A chunk ahead of a stream, from when it is decided on until its reader has come by. */
interface AheadChunk {
  readonly chunk: ChunkRef;
  readonly entry: number;
  /** The byte of the file where it begins. */
  readonly start: number;
  isPassed: boolean;
}

/** A reader that is read ahead of. */
interface Stream {
  readonly sequence: Sequence;
  readonly files: AheadFiles;
  readonly stop: AbortController;
  windowBytes: number;
  /** In order. */
  ahead: AheadChunk[];
  aheadBytes: number;
  /** Where the next chunk to be fetched begins. */
  tail: { readonly entry: number; readonly offset: number };
  isFilling: boolean;
  /** Chunks that its reader has reached after they were decided on. */
  reached: number;
}

export class ReadAhead {
  readonly #prefetcher: Prefetcher;
  readonly #bytesMax: number;
  /** Both in the order of use, the last one last. */
  readonly #streams: Stream[] = [];
  readonly #candidates: Sequence[] = [];
  #steadyBytes = STEADY_BYTES_MIN;

  constructor({ prefetcher, bytesMax }: ReadAheadOptions) {
    this.#prefetcher = prefetcher;
    this.#bytesMax = bytesMax;
  }

  /** A client reads that range of a file; true if it goes on in a stream. Costs no promise where nothing is to be fetched. */
  touched(files: AheadFiles, range: TouchedRange): boolean {
    const stream = this.#findStream(files, range);
    if (stream !== undefined) this.#goOn(stream);
    else this.#watch(files, range);
    return stream !== undefined;
  }

  /** A client gets bytes of the chunk. */
  used(chunk: ChunkRef): void {
    this.#prefetcher.ledger.use(chunk);
  }

  /** The files are closed: nothing of them is fetched any more. */
  forget(files: AheadFiles): void {
    for (const stream of this.#streams.filter((each) => each.files === files)) this.#end(stream);
    const others = this.#candidates.filter((each) => each.files !== files);
    this.#candidates.splice(0, this.#candidates.length, ...others);
  }

  #findStream(files: AheadFiles, range: TouchedRange): Stream | undefined {
    for (let i = this.#streams.length - 1; i >= 0; i--) {
      const stream = this.#streams[i]!;
      if (stream.files !== files) continue;
      if (!stream.sequence.follow(files, range) && !this.#isAhead(stream, range)) continue;
      moveToEnd(this.#streams, i);
      return stream;
    }
    return undefined;
  }

  /** The range is being fetched ahead of the stream already: some other reader's, or the same one's that skips a little. */
  #isAhead({ sequence, tail }: Stream, { entry, offset }: TouchedRange): boolean {
    const isBehind = entry < sequence.entry || (entry === sequence.entry && offset < sequence.end);
    return !isBehind && (entry < tail.entry || (entry === tail.entry && offset < tail.offset));
  }

  #watch(files: AheadFiles, range: TouchedRange): void {
    const candidates = this.#candidates;
    for (let i = candidates.length - 1; i >= 0; i--) {
      const sequence = candidates[i]!;
      if (!sequence.follow(files, range)) continue;
      if (sequence.steadyBytes < this.#steadyBytes) moveToEnd(candidates, i);
      else {
        candidates.splice(i, 1);
        this.#begin(files, sequence);
      }
      return;
    }
    if (candidates.length === CANDIDATES_MAX) candidates.shift();
    candidates.push(new Sequence(files, range));
  }

  #begin(files: AheadFiles, sequence: Sequence): void {
    if (this.#streams.length === STREAMS_MAX) this.#end(this.#streams[0]!);
    const stream: Stream = {
      sequence,
      files,
      stop: new AbortController(),
      windowBytes: WINDOW_BYTES_MIN,
      ahead: [],
      aheadBytes: 0,
      tail: { entry: sequence.entry, offset: sequence.end },
      isFilling: false,
      reached: 0,
    };
    this.#streams.push(stream);
    this.#goOn(stream);
  }

  #goOn(stream: Stream): void {
    this.#pass(stream);
    const { sequence, tail } = stream;
    const isOvertaken = tail.entry < sequence.entry || (tail.entry === sequence.entry && tail.offset < sequence.end);
    if (isOvertaken) stream.tail = { entry: sequence.entry, offset: sequence.end };
    // It has read all that it will as far as is known. Should it go on in the next file it is a stream again at once.
    if (sequence.isAtEnd && !sequence.hasCrossed) this.#retire(stream);
    // Half a window at a time: asking for one chunk after the other costs more than it wins.
    else if (!stream.isFilling && stream.aheadBytes * 2 < this.#windowOf(stream)) void this.#fill(stream);
  }

  /** Takes the chunks that the reader has reached from what is ahead of it. */
  #pass(stream: Stream): void {
    const { ahead, sequence } = stream;
    let passed = 0;
    while (passed < ahead.length && isReached(ahead[passed]!, sequence)) {
      const { chunk } = ahead[passed]!;
      ahead[passed]!.isPassed = true;
      stream.aheadBytes -= chunk.lengthBytes;
      stream.windowBytes = Math.min(WINDOW_BYTES_MAX, stream.windowBytes + chunk.lengthBytes);
      passed++;
    }
    if (passed === 0) return;
    ahead.splice(0, passed);
    stream.reached += passed;
  }

  #windowOf({ windowBytes }: Stream): number {
    return Math.min(windowBytes, this.#bytesMax / this.#streams.length);
  }

  /** Never rejects: whoever reads what cannot be read is told then. */
  async #fill(stream: Stream): Promise<void> {
    stream.isFilling = true;
    try {
      const added = await this.#extend(stream);
      if (added.length > 0 && !stream.stop.signal.aborted) void this.#fetch(stream, added);
    } catch {
      // The file's list of chunks is damaged, or the store away: its reader hears of it.
      this.#end(stream);
    } finally {
      stream.isFilling = false;
    }
  }

  /** Decides on the next chunks, as many as the window has room for. */
  async #extend(stream: Stream): Promise<AheadChunk[]> {
    const { files, sequence, stop } = stream;
    const added: AheadChunk[] = [];
    for (let opened = 0; opened < FILES_AT_ONCE_MAX && !stop.signal.aborted; opened++) {
      const { entry, offset } = stream.tail;
      const room = this.#windowOf(stream) - stream.aheadBytes;
      if (room <= 0) break;
      if (offset >= files.sizeOf(entry)) {
        const next = sequence.hasCrossed ? files.nextFile(entry) : undefined;
        if (next === undefined) break;
        stream.tail = { entry: next, offset: 0 };
        continue;
      }
      const run = await files.chunksFrom(entry, offset, room);
      let start = run.start;
      for (const chunk of run.chunks) {
        const item = { chunk, entry, start, isPassed: false };
        start += chunk.lengthBytes;
        // The one that the reader is in need not be fetched.
        if (isReached(item, sequence)) continue;
        added.push(item);
        stream.ahead.push(item);
        stream.aheadBytes += chunk.lengthBytes;
      }
      stream.tail = { entry, offset: Math.max(run.end, offset + 1) };
    }
    return added;
  }

  async #fetch(stream: Stream, added: readonly AheadChunk[]): Promise<void> {
    await this.#prefetcher.fetch(notPassed(added), {
      purpose: 'read-ahead',
      signal: stream.stop.signal,
      onDropped: () => {
        stream.windowBytes = Math.max(WINDOW_BYTES_MIN, stream.windowBytes / 2);
      },
    });
  }

  /** The stream needs no more: what is known of its reader stays. */
  #retire(stream: Stream): void {
    if (this.#end(stream) === 0 && stream.reached > 0)
      this.#steadyBytes = Math.max(STEADY_BYTES_MIN, this.#steadyBytes / 2);
    if (this.#candidates.length === CANDIDATES_MAX) this.#candidates.shift();
    this.#candidates.push(stream.sequence);
  }

  /** Returns how many chunks were fetched for nothing. */
  #end(stream: Stream): number {
    const at = this.#streams.indexOf(stream);
    if (at === -1) return 0;
    this.#streams.splice(at, 1);
    stream.stop.abort();
    let unused = 0;
    for (const { chunk } of stream.ahead) if (this.#prefetcher.ledger.drop(chunk)) unused++;
    if (unused > stream.reached) this.#steadyBytes = Math.min(STEADY_BYTES_MAX, this.#steadyBytes * 2);
    return unused;
  }
}

function isReached({ entry, start }: AheadChunk, sequence: Sequence): boolean {
  return entry < sequence.entry || (entry === sequence.entry && start < sequence.end);
}

/** Looked at when their turn comes: what the reader has reached by then it fetches itself. */
function* notPassed(chunks: readonly AheadChunk[]): Generator<ChunkRef> {
  for (const { chunk, isPassed } of chunks) if (!isPassed) yield chunk;
}

function moveToEnd<T>(items: T[], at: number): void {
  if (at === items.length - 1) return;
  items.push(...items.splice(at, 1));
}
