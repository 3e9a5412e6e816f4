import { assert } from '../core/errors.ts';

const nothing = Buffer.alloc(0);

/**
 * Bytes from a socket, cut into the pieces a parser asks for. A piece that lies whole in the chunk that arrived last is
 * a view into it, without a copy; one that is spread over several chunks, or that has a room of its own, is gathered.
 *
 * Sockets read into one buffer over and over: a view is valid until the handler of the chunk returns, that of a gathered
 * piece as long as its room.
 */
export class Inbox {
  /** Where the piece `take` found lies: `source` from `offset` on. */
  source: Buffer = nothing;
  offset = 0;

  #chunk: Buffer = nothing;
  #at = 0;
  #gathered: Buffer | undefined;
  #gatheredBytes = 0;

  /** Bytes that arrived and were not taken, a piece half gathered left out. */
  get pendingBytes(): number {
    return this.#chunk.length - this.#at;
  }

  /** Whether a piece has begun that has not come to its end. */
  get midPiece(): boolean {
    return this.#gathered !== undefined;
  }

  /** Adds the next chunk; the one before has been taken whole. */
  push(chunk: Buffer): void {
    assert(this.pendingBytes === 0, 'a chunk arrives when the last one has been taken');
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** What was not taken outlives the handler of its chunk. */
  keep(): void {
    this.#chunk = Buffer.from(this.#chunk.subarray(this.#at));
    this.#at = 0;
  }

  /**
   * Whether a piece of `length` bytes, at least 1, is there; then `source` and `offset` say where. If not, ask again
   * for the same length after the next push: what is there has been gathered, in what `room` gave, or in a fresh buffer.
   * With a `room` every piece is gathered.
   */
  take(length: number, room?: () => Buffer): boolean {
    const available = this.pendingBytes;
    if (this.#gathered === undefined) {
      if (available >= length && room === undefined) {
        this.source = this.#chunk;
        this.offset = this.#at;
        this.#at += length;
        return true;
      }
      if (available === 0) return false;
      // Slow: not from the pool, which a long-lived piece would hold on to.
      this.#gathered = room?.() ?? Buffer.allocUnsafeSlow(length);
      this.#gatheredBytes = 0;
    }
    assert(this.#gathered.length === length, 'a piece is asked for again with its length');
    const part = Math.min(available, length - this.#gatheredBytes);
    this.#chunk.copy(this.#gathered, this.#gatheredBytes, this.#at, this.#at + part);
    this.#at += part;
    this.#gatheredBytes += part;
    if (this.#gatheredBytes < length) return false;
    this.source = this.#gathered;
    this.offset = 0;
    this.#gathered = undefined;
    return true;
  }

  /** The piece that `take(length)` found, as a view. */
  view(length: number): Buffer {
    return this.source.subarray(this.offset, this.offset + length);
  }

  /** Takes all that is there, as a copy; no piece has begun. */
  takeRest(): Buffer {
    const { pendingBytes } = this;
    return pendingBytes > 0 && this.take(pendingBytes) ? Buffer.from(this.view(pendingBytes)) : nothing;
  }

  /** Throws away up to `length` bytes of what is there; returns how many. */
  skip(length: number): number {
    const part = Math.min(this.pendingBytes, length);
    this.#at += part;
    return part;
  }

  /** Lets go of everything. */
  clear(): void {
    this.source = nothing;
    this.#chunk = nothing;
    this.#at = 0;
    this.#gathered = undefined;
  }
}
