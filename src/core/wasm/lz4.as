// LZ4 blocks: the twin of lz4-block.ts, which tells the format. Copies move 16 bytes at a time and may write up to
// 15 bytes behind the last: the caller leaves room there, and what they write is overwritten or never looked at.

/** The value both functions return for a malformed block: no position and no length. */
const MALFORMED: usize = 0xffffffff;
const MATCH_BYTES_MIN: usize = 4;

/** Row `offset`: which of the `offset` bytes of a repeated pattern stands at each of 16 places. */
const PATTERNS = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
  0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0,
  0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0,
  0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0,
]);

/**
 * Decodes the block at [from, fromEnd) to `to`, not beyond `toEnd`; matches reach back to `history`. Returns the
 * position behind the last byte, or MALFORMED.
 */
export function decodeLz4Block(from: usize, fromEnd: usize, to: usize, toEnd: usize, history: usize): usize {
  while (from < fromEnd) {
    const token: usize = load<u8>(from++);

    let literals = token >> 4;
    if (literals == 15) {
      let more: usize;
      do {
        if (from >= fromEnd) return MALFORMED;
        more = load<u8>(from++);
        literals += more;
      } while (more == 255);
    }
    if (literals > fromEnd - from || literals > toEnd - to) return MALFORMED;
    for (let copied: usize = 0; copied < literals; copied += 16) v128.store(to + copied, v128.load(from + copied));
    from += literals;
    to += literals;
    if (from == fromEnd) return to;

    if (fromEnd - from < 2) return MALFORMED;
    const offset: usize = load<u16>(from);
    from += 2;
    if (offset == 0 || offset > to - history) return MALFORMED;
    let length = token & 15;
    if (length == 15) {
      let more: usize;
      do {
        if (from >= fromEnd) return MALFORMED;
        more = load<u8>(from++);
        length += more;
      } while (more == 255);
    }
    length += MATCH_BYTES_MIN;
    if (length > toEnd - to) return MALFORMED;
    const stop = to + length;
    if (offset >= 16) {
      for (; to < stop; to += 16) v128.store(to, v128.load(to - offset));
    } else {
      // The pattern repeats inside one vector; steps are whole repeats, so that it need not be turned.
      const pattern = i8x16.swizzle(v128.load(to - offset), v128.load(PATTERNS + 16 * offset));
      const step = <usize>16 - (<usize>16 % offset);
      for (; to < stop; to += step) v128.store(to, pattern);
    }
    to = stop;
  }
  return MALFORMED;
}

/** The plain length of the block at [from, fromEnd), from its lengths alone; or MALFORMED. */
export function measureLz4Block(from: usize, fromEnd: usize): usize {
  let plainBytes: usize = 0;
  while (from < fromEnd) {
    const token: usize = load<u8>(from++);
    let literals = token >> 4;
    if (literals == 15) {
      let more: usize;
      do {
        if (from >= fromEnd) return MALFORMED;
        more = load<u8>(from++);
        literals += more;
      } while (more == 255);
    }
    if (literals > fromEnd - from) return MALFORMED;
    from += literals;
    plainBytes += literals;
    if (from == fromEnd) return plainBytes;

    if (fromEnd - from < 2) return MALFORMED;
    from += 2;
    let length = token & 15;
    if (length == 15) {
      let more: usize;
      do {
        if (from >= fromEnd) return MALFORMED;
        more = load<u8>(from++);
        length += more;
      } while (more == 255);
    }
    plainBytes += length + MATCH_BYTES_MIN;
  }
  return MALFORMED;
}
