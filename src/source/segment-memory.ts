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
 * Segments of full length lie in buffers that are used again, so that memory does not wait for the garbage collector. They
 * are shared memory, though no other thread sees them: of other memory each new megabyte makes it collect earlier.
 */
import { copyBytes } from '../core/copy-bytes.ts';
import type { CacheCounters } from '../core/counters.ts';
import { GHOSTS_MAX, SEGMENT_BYTES, SPARE_SEGMENTS_MAX } from './limits.ts';
import { type KeptChunk, type Piece, PieceList } from './piece-list.ts';

/** What a segment costs beside its bytes: objects, list and map entries, a part of its chunk's key. */
const OVERHEAD_BYTES = 512;
/** The part of the memory that probation keeps when main wants more, and how much coming in makes a second read a new use. */
const PROBATION_PART = 1 / 4;
const ONE_USE_PART = 1 / 8;

export class SegmentMemory {
  readonly #bytesMax: number;
  readonly #chunks = new Map<string, KeptChunk>();
  readonly #probation = new PieceList();
  readonly #main = new PieceList();
  readonly #ghosts = new PieceList();
  readonly #spare: Uint8Array[] = [];
  /** Bytes that came in since the beginning: the clock. */
  #cameIn = 0;
  readonly #counters: CacheCounters;

  /** Counts what it drops in `counters`. */
  constructor(bytesMax: number, counters: CacheCounters) {
    this.#bytesMax = bytesMax;
    this.#counters = counters;
  }

  /** What is kept, overhead included. */
  get bytes(): number {
    return this.#probation.bytes + this.#main.bytes;
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
  }

  /** Whether all of a chunk is here. It counts as no use. */
  hasAll(key: string, lengthBytes: number): boolean {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined) return lengthBytes === 0;
    for (let i = 0; i * SEGMENT_BYTES < lengthBytes; i++) if (chunk.pieces[i]?.bytes === undefined) return false;
    return true;
  }

  /** Fills `target` with all of a chunk; false unless all of it is here. It counts as no use. */
  copyAll(key: string, target: Uint8Array): boolean {
    if (!this.hasAll(key, target.byteLength)) return false;
    for (const piece of this.#chunks.get(key)?.pieces ?? [])
      copyBytes(piece!.bytes!, target, piece!.index * SEGMENT_BYTES);
    return true;
  }

  /** Keeps copies of a chunk's segments. */
  insertChunk(key: string, plain: Uint8Array): void {
    for (let start = 0, index = 0; start < plain.byteLength; start += SEGMENT_BYTES, index++) {
      const part = plain.subarray(start, start + SEGMENT_BYTES);
      if (!this.#makeRoom(part.byteLength + OVERHEAD_BYTES)) return;
      const bytes = this.take(part.byteLength);
      copyBytes(part, bytes);
      this.insert(key, index, bytes);
    }
  }

  /** Keeps a segment that was read into what `take` gave. Ignored if it is here, or larger than all memory. */
  insert(key: string, index: number, bytes: Uint8Array): void {
    const costBytes = bytes.byteLength + OVERHEAD_BYTES;
    if (this.#chunks.get(key)?.pieces[index]?.bytes !== undefined || !this.#makeRoom(costBytes)) {
      this.giveBack(bytes);
      return;
    }
    // Looked up only now: making room may have dropped the chunk's last piece.
    const piece = this.#pieceOf(key, index);
    piece.cameBack = piece.list === this.#ghosts;
    piece.list?.remove(piece);
    piece.bytes = bytes;
    piece.costBytes = costBytes;
    piece.readBytes = 0;
    piece.firstReadAt = undefined;
    this.#probation.push(piece);
    this.#cameIn += costBytes;
  }

  /** A buffer to be filled with a segment, and then inserted or given back. */
  take(length: number): Uint8Array {
    if (length !== SEGMENT_BYTES) return new Uint8Array(length);
    return this.#spare.pop() ?? new Uint8Array(new SharedArrayBuffer(SEGMENT_BYTES));
  }

  giveBack(bytes: Uint8Array): void {
    if (bytes.byteLength === SEGMENT_BYTES && this.#spare.length < SPARE_SEGMENTS_MAX) this.#spare.push(bytes);
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
    for (const list of [this.#probation, this.#main, this.#ghosts]) while (list.first) list.remove(list.first);
    this.#spare.length = 0;
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
    this.#main.push(piece);
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
    this.giveBack(piece.bytes!);
    piece.bytes = undefined;
    if (wasOnProbation) this.#ghosts.push(piece);
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
    const chunk = this.#chunks.get(key) ?? { key, pieces: [], count: 0, useRecordedMs: Date.now() };
    this.#chunks.set(key, chunk);
    const known = chunk.pieces[index];
    if (known !== undefined) return known;
    const piece: Piece = {
      chunk,
      index,
      bytes: undefined,
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
