import type { HeldChunk } from './held-chunk.ts';

/** A segment of a chunk, kept or, without its bytes, remembered. */
export interface Piece {
  readonly chunk: KeptChunk;
  readonly index: number;
  bytes: Uint8Array | undefined;
  /** Its bytes are a part of `chunk.held`; otherwise they are its own. */
  isPart: boolean;
  /** What it counts for where it is. */
  costBytes: number;
  /** Bytes read of it, and what had come into the cache when it was first read; undefined before. */
  readBytes: number;
  firstReadAt: number | undefined;
  /** It was dropped, and fetched again. */
  cameBack: boolean;
  list: PieceList | undefined;
  previous: Piece | undefined;
  next: Piece | undefined;
}

/** A chunk of which there are pieces. */
export interface KeptChunk {
  readonly key: string;
  readonly pieces: (Piece | undefined)[];
  /** Pieces that are kept or remembered. */
  count: number;
  /** All of the chunk as it came, as long as there are pieces that are parts of it. */
  held: HeldChunk | undefined;
  /** How many, and the bytes of `held` that are no piece's. */
  parts: number;
  unusedBytes: number;
  /** When its use was last recorded elsewhere, milliseconds since 1970. */
  useRecordedMs: number;
}

/** Pieces in an order: each is in one list, or in none. */
export class PieceList {
  #first: Piece | undefined;
  #last: Piece | undefined;
  length = 0;
  /** What all of them count for. */
  bytes = 0;

  /** The one that was pushed first. */
  get first(): Piece | undefined {
    return this.#first;
  }

  /** The one that was pushed last. */
  get last(): Piece | undefined {
    return this.#last;
  }

  push(piece: Piece): void {
    piece.list = this;
    piece.previous = this.#last;
    piece.next = undefined;
    if (this.#last === undefined) this.#first = piece;
    else this.#last.next = piece;
    this.#last = piece;
    this.length++;
    this.bytes += piece.costBytes;
  }

  remove(piece: Piece): void {
    if (piece.previous === undefined) this.#first = piece.next;
    else piece.previous.next = piece.next;
    if (piece.next === undefined) this.#last = piece.previous;
    else piece.next.previous = piece.previous;
    piece.list = undefined;
    piece.previous = undefined;
    piece.next = undefined;
    this.length--;
    this.bytes -= piece.costBytes;
  }
}
