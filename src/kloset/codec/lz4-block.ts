/**
 * LZ4 blocks (LZ4 block format description): a run of sequences `token | literal length… | literals | offset u16 |
 * match length…`, the last one without offset and match. The WebAssembly kernel has a twin of this file, and both agree
 * on every input, malformed ones included.
 */
import { CorruptStoreError } from '../../core/errors.ts';

/** A match copies at least this much: lengths are stored less it. */
const MATCH_BYTES_MIN = 4;
/** Below this length copying in a loop beats a call of copyWithin or set. */
const SHORT_COPY_BYTES = 32;

/** Where a decoded block goes. */
export interface Lz4BlockTarget {
  readonly bytes: Uint8Array;
  /** The block's first byte goes to `bytes[start]`. */
  readonly start: number;
  /** No byte is written at or behind `bytes[end]`. */
  readonly end: number;
  /** Matches may reach back to `bytes[history]`, at most `start`. */
  readonly history: number;
}

/**
 * Decodes all of `block` and returns the position in `target.bytes` behind its last byte. Throws CorruptStoreError if
 * the block is malformed or does not fit; what was written by then has no meaning.
 */
export function decodeLz4Block(block: Uint8Array, target: Lz4BlockTarget): number {
  const { bytes, end, history } = target;
  const blockEnd = block.byteLength;
  let from = 0;
  let to = target.start;
  for (;;) {
    if (from >= blockEnd) throw malformedBlock();
    const token = block[from++]!;

    let literals = token >>> 4;
    if (literals === 15) {
      let more: number;
      do {
        if (from >= blockEnd) throw malformedBlock();
        more = block[from++]!;
        literals += more;
      } while (more === 255);
    }
    if (literals > blockEnd - from || literals > end - to) throw malformedBlock();
    if (literals < SHORT_COPY_BYTES) {
      for (const stop = from + literals; from < stop; ) bytes[to++] = block[from++]!;
    } else {
      bytes.set(block.subarray(from, from + literals), to);
      from += literals;
      to += literals;
    }
    if (from === blockEnd) return to;

    if (blockEnd - from < 2) throw malformedBlock();
    const offset = block[from]! | (block[from + 1]! << 8);
    from += 2;
    if (offset === 0 || offset > to - history) throw malformedBlock();
    let length = token & 15;
    if (length === 15) {
      let more: number;
      do {
        if (from >= blockEnd) throw malformedBlock();
        more = block[from++]!;
        length += more;
      } while (more === 255);
    }
    length += MATCH_BYTES_MIN;
    if (length > end - to) throw malformedBlock();
    to = copyMatch(bytes, to, offset, length);
  }
}

/** Repeats `length` bytes from `offset` before `to`; a match longer than its offset repeats what it has just written. */
function copyMatch(bytes: Uint8Array, to: number, offset: number, length: number): number {
  const stop = to + length;
  if (length < SHORT_COPY_BYTES) {
    for (let from = to - offset; to < stop; ) bytes[to++] = bytes[from++]!;
    return stop;
  }
  if (offset === 1) {
    bytes.fill(bytes[to - 1]!, to, stop);
    return stop;
  }
  // Each round copies the whole distance back to the match's start, which doubles what the next may copy at once.
  const start = to - offset;
  while (to < stop) {
    const step = Math.min(to - start, stop - to);
    bytes.copyWithin(to, start, start + step);
    to += step;
  }
  return stop;
}

/** The plain length of a block, in bytes, from its lengths alone. Throws CorruptStoreError if it is malformed. */
export function measureLz4Block(block: Uint8Array): number {
  const blockEnd = block.byteLength;
  let from = 0;
  let plainBytes = 0;
  for (;;) {
    if (from >= blockEnd) throw malformedBlock();
    const token = block[from++]!;
    let literals = token >>> 4;
    if (literals === 15) {
      let more: number;
      do {
        if (from >= blockEnd) throw malformedBlock();
        more = block[from++]!;
        literals += more;
      } while (more === 255);
    }
    if (literals > blockEnd - from) throw malformedBlock();
    from += literals;
    plainBytes += literals;
    if (from === blockEnd) return plainBytes;

    if (blockEnd - from < 2) throw malformedBlock();
    from += 2;
    let length = token & 15;
    if (length === 15) {
      let more: number;
      do {
        if (from >= blockEnd) throw malformedBlock();
        more = block[from++]!;
        length += more;
      } while (more === 255);
    }
    plainBytes += length + MATCH_BYTES_MIN;
  }
}

/** What both twins throw. */
export function malformedBlock(): CorruptStoreError {
  return new CorruptStoreError('an LZ4 block is malformed or longer than it should be');
}
