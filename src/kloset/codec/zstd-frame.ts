/**
 * The outline of a Zstandard frame (RFC 8878, 3.1.1), read before it is decompressed: how much it can hold, and that it
 * is whole. The decompressors themselves stop silently at a cut (Node 22) or allocate what the header claims.
 *
 *   magic u32 | descriptor u8 | [window u8] | [dictionary id] | [content size]
 *   block header u24: last:1 type:2 size:21 | data       repeated
 *   [content checksum u32]
 *
 * Deliberately not done: dictionaries, skippable frames and several frames in a row, none of which a store holds.
 */
import { CorruptStoreError } from '../../core/errors.ts';
import { KiB, MiB } from '../../core/units.ts';

const MAGIC = 0xfd2fb528;
const BLOCK_BYTES_MAX = 128 * KiB;
/** What decoders take unasked (ZSTD_WINDOWLOG_LIMIT_DEFAULT); the writer's library stays at 32 MiB unless told otherwise. */
const WINDOW_BYTES_MAX = 128 * MiB;
const blockTypes = { raw: 0, rle: 1, compressed: 2 } as const;

export interface ZstdFrame {
  /** Plain bytes are never fewer than this: blocks that are not compressed. */
  readonly plainBytesMin: number;
  /** Plain bytes are never more than this. */
  readonly plainBytesMax: number;
}

/** Throws CorruptStoreError unless `frame` is exactly one complete frame that needs no dictionary. */
export function readZstdFrame(frame: Uint8Array): ZstdFrame {
  const reader = new FrameReader(frame);
  if (reader.unsigned(4) !== MAGIC) throw malformed('it does not begin with the magic number');
  const descriptor = reader.unsigned(1);
  if ((descriptor & 0x08) !== 0) throw malformed('its reserved bit is set');
  const singleSegment = (descriptor & 0x20) !== 0;
  const windowBytes = singleSegment ? undefined : windowSize(reader.unsigned(1));
  if (reader.unsigned([0, 1, 2, 4][descriptor & 3]!) !== 0) {
    throw malformed('it needs a dictionary, which no store has');
  }
  const contentBytes = contentSize(reader, descriptor >> 6, singleSegment);
  // A single segment has no window: it is as large as the content.
  const window = windowBytes ?? contentBytes!;
  if (windowBytes !== undefined && windowBytes > WINDOW_BYTES_MAX) throw malformed('its window is above 128 MiB');

  const blocks = readBlocks(reader, Math.min(window, BLOCK_BYTES_MAX));
  if ((descriptor & 0x04) !== 0) reader.skip(4);
  if (!reader.atEnd()) throw malformed('something follows it');
  if (contentBytes === undefined) return blocks;
  if (contentBytes < blocks.plainBytesMin || contentBytes > blocks.plainBytesMax) {
    throw malformed('its blocks cannot hold the bytes it announces');
  }
  return { plainBytesMin: contentBytes, plainBytesMax: contentBytes };
}

function readBlocks(reader: FrameReader, blockBytesMax: number): ZstdFrame {
  let plainBytesMin = 0;
  let plainBytesMax = 0;
  for (let last = false; !last; ) {
    const header = reader.unsigned(3);
    last = (header & 1) !== 0;
    const type = (header >> 1) & 3;
    const size = header >> 3;
    if (size > blockBytesMax) throw malformed('a block is above its block size');
    if (type === blockTypes.compressed) {
      reader.skip(size);
      plainBytesMax += blockBytesMax;
    } else if (type === blockTypes.raw || type === blockTypes.rle) {
      reader.skip(type === blockTypes.raw ? size : 1);
      plainBytesMin += size;
      plainBytesMax += size;
    } else {
      throw malformed('a block is of an unknown type');
    }
  }
  return { plainBytesMin, plainBytesMax };
}

/** Window_Descriptor: exponent in the high five bits, eighths of the power in the low three. In bytes. */
function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

/** Frame_Content_Size; undefined if the frame does not tell. */
function contentSize(reader: FrameReader, flag: number, singleSegment: boolean): number | undefined {
  if (flag === 0) return singleSegment ? reader.unsigned(1) : undefined;
  // Two bytes count from 256: smaller contents have the one-byte form.
  if (flag === 1) return reader.unsigned(2) + 256;
  if (flag === 2) return reader.unsigned(4);
  return reader.unsigned(4) + reader.unsigned(4) * 2 ** 32;
}

class FrameReader {
  readonly #data: Uint8Array;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  /** A little-endian unsigned integer of 0 to 4 bytes. */
  unsigned(bytes: number): number {
    const from = this.#at;
    this.skip(bytes);
    let value = 0;
    for (let at = this.#at - 1; at >= from; at--) value = value * 256 + this.#data[at]!;
    return value;
  }

  skip(bytes: number): void {
    if (bytes > this.#data.byteLength - this.#at) throw malformed('it is cut short');
    this.#at += bytes;
  }

  atEnd(): boolean {
    return this.#at === this.#data.byteLength;
  }
}

function malformed(what: string): CorruptStoreError {
  return new CorruptStoreError(`a Zstandard frame is malformed: ${what}`);
}
