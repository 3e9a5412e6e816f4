const LINE_FEED = 0x0a;

/** Cuts a stream into lines, and into stretches of bytes where the lines say so. */
export class LineReader {
  readonly #lineBytesMax: number;
  #pieces: Buffer[] = [];
  #length = 0;
  /** Bytes of the pieces that have been searched for a line feed. */
  #searched = 0;

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  push(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
  }

  /** The next line without its end; undefined until all of it has come. Throws RangeError for one that is too long. */
  line(): string | undefined {
    let before = 0;
    for (const piece of this.#pieces) {
      const from = Math.max(0, this.#searched - before);
      const at = from < piece.length ? piece.indexOf(LINE_FEED, from) : -1;
      if (at >= 0) {
        this.#searched = 0;
        return this.#take(before + at + 1).toString('utf8', 0, before + at);
      }
      before += piece.length;
    }
    this.#searched = this.#length;
    if (this.#length > this.#lineBytesMax) throw new RangeError('a line is too long');
    return undefined;
  }

  /** The next `length` bytes; undefined until all have come. */
  bytes(length: number): Buffer | undefined {
    if (this.#length < length) return undefined;
    this.#searched = 0;
    return this.#take(length);
  }

  #take(length: number): Buffer {
    const all = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    const rest = all.subarray(length);
    this.#pieces = rest.length === 0 ? [] : [rest];
    this.#length = rest.length;
    return all.subarray(0, length);
  }
}
