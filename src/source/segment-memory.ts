/**
 * Decoded chunks in memory, in segments: of a chunk of which a few blocks are asked for again and again, only those stay.
 *
 *   new ──► probation ──used again──► main ──least recently used──► gone
 *              │ oldest first           ▲
 *              ▼                        │ came back, and is used
 *            ghosts (no bytes) ─────────┘
 *
 * As 2Q (Johnson and Shasha, VLDB 1994): what is read once passes through probation, which is a quarter of the memory as
 * soon as main wants the rest, and pushes out nothing that was used again. The requests of one sequential read are
 * one use: another is a byte that is read twice, or a read after much else has come in.
 *
 * A chunk that comes in whole is kept as it is, without a copy: its segments on probation are parts of its buffer. One that is
 * used again is copied out of it to main, and the buffer goes when the last of its segments has left it, which they all do
 * one after the other. What has no use in it till then counts, too.
 *
 * Ghosts are only of what was read: what was fetched along with it and never asked for is no sign that it will be.
 */
import { copyBytes } from '../core/copy-bytes.ts';
import type { CacheCounters } from '../core/counters.ts';
import type { SharedArena } from '../core/shared-arena.ts';
import type { HeldChunk } from './held-chunk.ts';
import { GHOSTS_MAX, SEGMENT_BYTES } from './limits.ts';
import { type KeptChunk, type Piece, PieceList } from './piece-list.ts';

/** What a segment costs beside its bytes: objects, list and map entries, a part of its chunk's key. */
const OVERHEAD_BYTES = 512;
/** The part of the memory that probation keeps when main wants more, and how much coming in makes a second read a new use. */
const PROBATION_PART = 1 / 4;
const ONE_USE_PART = 1 / 8;
/** Chunks up to this part of the memory are kept as they come; of larger ones a few would be all there is. */
const WHOLE_CHUNK_PART = 1 / 8;

export class SegmentMemory {
  readonly #bytesMax: number;
  readonly #chunks = new Map<string, KeptChunk>();
  readonly #probation = new PieceList();
  readonly #main = new PieceList();
  readonly #ghosts = new PieceList();
  readonly #arena: SharedArena;
  /** Of chunks kept as they came, bytes that are no piece's any more. */
  #unusedBytes = 0;
  /** Bytes that came in since the beginning: the clock. */
  #cameIn = 0;
  readonly #mainBytesMax: number;
  readonly #counters: CacheCounters;

  /** Counts what it drops in `counters`. Segments on their own are from `arena`. */
  constructor(bytesMax: number, counters: CacheCounters, arena: SharedArena) {
    this.#bytesMax = bytesMax;
    this.#mainBytesMax = bytesMax * (1 - PROBATION_PART);
    this.#counters = counters;
    this.#arena = arena;
  }

  /** What is kept, overhead included. */
  get bytes(): number {
    return this.#probation.bytes + this.#main.bytes + this.#unusedBytes;
  }

  /** Fills `target` with bytes of a chunk; false, and nothing of meaning in it, unless all of them are here. */
  read(key: string, offset: number, target: Uint8Array): boolean {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined) return false;
    const end = offset + target.byteLength;
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / SEGMENT_BYTES);
      const start = index * SEGMENT_BYTES;
      const piece = chunk.pieces[index];
      if (piece?.bytes === undefined) return false;
      const part = piece.bytes.subarray(at - start, end - start);
      copyBytes(part, target, at - offset);
      this.#use(piece, part.byteLength);
      at += part.byteLength;
    }
    this.#makeRoom(0);
    return true;
  }

  /** Counts a read of a chunk's bytes which were had from elsewhere, as they came in. */
  countRead(key: string, offset: number, length: number): void {
    const chunk = this.#chunks.get(key);
    const end = offset + length;
    for (let at = offset; chunk !== undefined && at < end; ) {
      const index = Math.floor(at / SEGMENT_BYTES);
      const partEnd = Math.min(end, (index + 1) * SEGMENT_BYTES);
      const piece = chunk.pieces[index];
      if (piece?.bytes !== undefined) this.#use(piece, partEnd - at);
      at = partEnd;
    }
    this.#makeRoom(0);
  }

  /**
   * What a later server will likely be asked for again, at most as much as main may keep: what was used again, what was
   * read by pages and is here or remembered, and what an earlier server had read so and is here. Segments that were read from
   * beginning to end once were part of a scan, which begins elsewhere. The least recently used come first.
   */
  workingSet(): readonly Pick<Piece, 'chunk' | 'index'>[] {
    const found: Piece[] = [];
    let bytes = 0;
    for (const list of [this.#main, this.#probation, this.#ghosts]) {
      for (let piece = list.last; piece !== undefined; piece = piece.previous) {
        if (list !== this.#main && !wasReadByPages(piece)) continue;
        bytes += piece.costBytes;
        if (bytes > this.#mainBytesMax) return found.reverse();
        found.push(piece);
      }
    }
    return found.reverse();
  }

  /** Whether a segment is here. It counts as no use. */
  has(key: string, index: number): boolean {
    return this.#chunks.get(key)?.pieces[index]?.bytes !== undefined;
  }

  /** Whether a segment of that length can come in beside all that is here, and leave probation its part. */
  hasRoomBeside(length: number): boolean {
    return this.bytes + length + OVERHEAD_BYTES <= this.#mainBytesMax;
  }

  /** Whether all of a chunk is here. It counts as no use. */
  hasAll(key: string, lengthBytes: number): boolean {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined) return lengthBytes === 0;
    for (let i = 0; i * SEGMENT_BYTES < lengthBytes; i++) if (chunk.pieces[i]?.bytes === undefined) return false;
    return true;
  }

  /** All of a chunk as it came, which whoever wants it must hold; undefined if that is not here. It counts as no use. */
  whole(key: string): HeldChunk | undefined {
    return this.#chunks.get(key)?.held;
  }

  /** Keeps a chunk: holds it for as long as it is needed, or copies its segments. */
  insertChunk(key: string, held: HeldChunk): void {
    const { plain } = held;
    const count = Math.ceil(plain.byteLength / SEGMENT_BYTES);
    const costBytes = held.heldBytes + count * OVERHEAD_BYTES;
    const isLarge = costBytes > this.#bytesMax * WHOLE_CHUNK_PART;
    if (isLarge || this.whole(key) !== undefined) this.#insertCopies(key, plain);
    else if (this.#makeRoom(costBytes)) this.#adopt(key, held, count);
  }

  #insertCopies(key: string, plain: Uint8Array): void {
    for (let start = 0, index = 0; start < plain.byteLength; start += SEGMENT_BYTES, index++) {
      const part = plain.subarray(start, start + SEGMENT_BYTES);
      if (!this.#makeRoom(part.byteLength + OVERHEAD_BYTES)) return;
      const bytes = this.take(part.byteLength);
      copyBytes(part, bytes);
      this.insert(key, index, bytes);
    }
  }

  /** Keeps those of its segments that are not here, as parts of it. */
  #adopt(key: string, held: HeldChunk, count: number): void {
    const { plain } = held;
    const missing = Array.from({ length: count }, (_, index) => this.#pieceOf(key, index)).filter(
      ({ bytes }) => bytes === undefined,
    );
    if (missing.length === 0) return;
    const { chunk } = missing[0]!;
    chunk.held = held.hold();
    chunk.parts = missing.length;
    let usedBytes = 0;
    for (const piece of missing) {
      const start = piece.index * SEGMENT_BYTES;
      const bytes = plain.subarray(start, start + SEGMENT_BYTES);
      usedBytes += bytes.byteLength;
      this.#keep(piece, bytes, true);
    }
    chunk.unusedBytes = held.heldBytes - usedBytes;
    this.#unusedBytes += chunk.unusedBytes;
  }

  /**
   * Keeps a segment that was read into what `take` gave. Ignored if it is here, or larger than all memory. `cameBack`: it
   * was used before, by whatever server, so that its next use is another one.
   */
  insert(key: string, index: number, bytes: Uint8Array, { cameBack = false } = {}): void {
    const costBytes = bytes.byteLength + OVERHEAD_BYTES;
    if (this.has(key, index) || !this.#makeRoom(costBytes)) {
      this.giveBack(bytes);
      return;
    }
    // Looked up only now: making room may have dropped the chunk's last piece.
    const piece = this.#pieceOf(key, index);
    this.#keep(piece, bytes, false);
    if (cameBack) piece.cameBack = true;
  }

  /** Puts a piece that is not here on probation. */
  #keep(piece: Piece, bytes: Uint8Array, isPart: boolean): void {
    piece.cameBack = piece.list === this.#ghosts;
    piece.list?.remove(piece);
    piece.bytes = bytes;
    piece.isPart = isPart;
    piece.costBytes = bytes.byteLength + OVERHEAD_BYTES;
    piece.readBytes = 0;
    piece.firstReadAt = undefined;
    this.#probation.push(piece);
    this.#cameIn += piece.costBytes;
  }

  /** A buffer to be filled with a segment, and then inserted or given back. */
  take(length: number): Uint8Array {
    return this.#arena.take(length, 'high');
  }

  giveBack(bytes: Uint8Array): void {
    this.#arena.give(bytes);
  }

  /** True at most once in `everyMs` for a chunk that is here: then its use is to be recorded where it lies, too. */
  mustRecordUse(key: string, nowMs: number, everyMs: number): boolean {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined || nowMs - chunk.useRecordedMs < everyMs) return false;
    chunk.useRecordedMs = nowMs;
    return true;
  }

  clear(): void {
    this.#chunks.clear();
    this.#unusedBytes = 0;
    for (const list of [this.#probation, this.#main, this.#ghosts]) while (list.first) list.remove(list.first);
  }

  #use(piece: Piece, length: number): void {
    const { bytes, list } = piece;
    piece.readBytes += length;
    piece.firstReadAt ??= this.#cameIn;
    const isUsedAgain =
      piece.cameBack ||
      piece.readBytes > bytes!.byteLength ||
      this.#cameIn - piece.firstReadAt > this.#bytesMax * ONE_USE_PART;
    if (list === this.#probation && !isUsedAgain) return;
    list!.remove(piece);
    if (piece.isPart) {
      piece.bytes = this.take(bytes!.byteLength);
      copyBytes(bytes!, piece.bytes);
      this.#leave(piece, bytes!.byteLength);
    }
    this.#main.push(piece);
  }

  /** The piece is no part of the chunk's buffer any more; of `byteLength` bytes of it nobody has any use. */
  #leave(piece: Piece, byteLength: number): void {
    const { chunk } = piece;
    piece.isPart = false;
    chunk.parts--;
    chunk.unusedBytes += byteLength;
    this.#unusedBytes += byteLength;
    if (chunk.parts > 0) return;
    this.#unusedBytes -= chunk.unusedBytes;
    chunk.unusedBytes = 0;
    chunk.held!.release();
    chunk.held = undefined;
  }

  /** False, and nothing dropped, if there can never be as much room. */
  #makeRoom(costBytes: number): boolean {
    if (costBytes > this.#bytesMax) return false;
    while (this.bytes + costBytes > this.#bytesMax) {
      const isProbationLarge = this.#probation.bytes + costBytes > this.#bytesMax * PROBATION_PART;
      const from =
        this.#probation.length > 0 && (isProbationLarge || this.#main.length === 0) ? this.#probation : this.#main;
      this.#drop(from.first!);
    }
    return true;
  }

  #drop(piece: Piece): void {
    this.#counters.evictions++;
    const wasOnProbation = piece.list === this.#probation;
    piece.list!.remove(piece);
    if (piece.isPart) this.#leave(piece, piece.bytes!.byteLength);
    else this.giveBack(piece.bytes!);
    piece.bytes = undefined;
    if (wasOnProbation && piece.firstReadAt !== undefined) this.#ghosts.push(piece);
    else this.#forget(piece);
    while (this.#ghosts.length > GHOSTS_MAX || this.#ghosts.bytes > this.#bytesMax) {
      const oldest = this.#ghosts.first!;
      this.#ghosts.remove(oldest);
      this.#forget(oldest);
    }
  }

  #forget({ chunk, index }: Piece): void {
    chunk.pieces[index] = undefined;
    if (--chunk.count === 0) this.#chunks.delete(chunk.key);
  }

  #pieceOf(key: string, index: number): Piece {
    const chunk = this.#chunks.get(key) ?? newChunk(key);
    this.#chunks.set(key, chunk);
    const known = chunk.pieces[index];
    if (known !== undefined) return known;
    const piece: Piece = {
      chunk,
      index,
      bytes: undefined,
      isPart: false,
      costBytes: 0,
      readBytes: 0,
      firstReadAt: undefined,
      cameBack: false,
      list: undefined,
      previous: undefined,
      next: undefined,
    };
    chunk.pieces[index] = piece;
    chunk.count++;
    return piece;
  }
}

/** Some of it was read, or all of a chunk that has no more: a small file. Here or before it came back. */
function wasReadByPages({ firstReadAt, readBytes, costBytes, index, cameBack }: Piece): boolean {
  if (firstReadAt === undefined) return cameBack;
  const length = costBytes - OVERHEAD_BYTES;
  return readBytes < length || (index === 0 && length < SEGMENT_BYTES);
}

function newChunk(key: string): KeptChunk {
  return { key, pieces: [], count: 0, held: undefined, parts: 0, unusedBytes: 0, useRecordedMs: Date.now() };
}
