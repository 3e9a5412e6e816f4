/**
 * LZ4 frames (LZ4 frame format description 1.6.x; kloset-format.md 5.1):
 *
 *   magic u32 | FLG u8 | BD u8 | [content size u64] | [dictionary id u32] | header checksum u8
 *   block size u32, high bit: stored | data | [block checksum u32]      repeated
 *   0 u32 | [content checksum u32]
 *
 * The writer sets always the same flags, but they are read, not assumed. A value is one frame: nothing may follow it.
 * Deliberately not done: dictionaries, legacy and skippable frames, none of which a store holds.
 */
import { copyBytes } from '../../core/copy-bytes.ts';
import { CorruptStoreError } from '../../core/errors.ts';
import { KiB } from '../../core/units.ts';
import { xxh32 } from '../../core/xxh32.ts';
import type { Kernels } from './kernels.ts';

const MAGIC = 0x184d2204;
const FLG = {
  version: 0xc0,
  version1: 0x40,
  independentBlocks: 0x20,
  blockChecksum: 0x10,
  contentSize: 0x08,
  contentChecksum: 0x04,
  reserved: 0x02,
  dictionary: 0x01,
} as const;
const BD_RESERVED = 0x8f;
/** Block size codes 4, 5, 6, 7 mean 64 KiB, 256 KiB, 1 MiB, 4 MiB: each is four times the one before. */
const BLOCK_CODE_MIN = 4;
const BLOCK_BYTES_OF_CODE_MIN = 64 * KiB;
const STORED_BLOCK = 0x80000000;
/** How far back a match can reach: its offset has 16 bits. */
const WINDOW_BYTES = 65535;

/** Whether xxHash32 checksums are computed: 10-18 % of a decode, wasted where a MAC is verified over the same bytes. */
export type Checksums = 'verify' | 'skip';

interface Header {
  readonly independentBlocks: boolean;
  readonly blockChecksums: boolean;
  readonly contentChecksum: boolean;
  readonly blockBytesMax: number;
  /** Plain bytes of the whole frame, if it says so. */
  readonly contentBytes: number | undefined;
  /** Where the first block begins. */
  readonly end: number;
}

/** Decodes `frame` into exactly all of `target`. Throws CorruptStoreError if it is malformed or of another length. */
export function decodeLz4FrameInto(
  frame: Uint8Array,
  target: Uint8Array,
  { kernels, checksums }: { kernels: Kernels; checksums: Checksums },
): void {
  const header = readHeader(frame);
  if (header.contentBytes !== undefined && header.contentBytes !== target.byteLength) throw wrongLength();
  let at = 0;
  const contentChecksum = eachBlock(frame, header, checksums, (data, stored) => {
    const end = Math.min(at + header.blockBytesMax, target.byteLength);
    if (stored) {
      if (data.byteLength > end - at) throw wrongLength();
      copyBytes(data, target, at);
      at += data.byteLength;
    } else {
      const history = header.independentBlocks ? at : Math.max(0, at - WINDOW_BYTES);
      at = kernels.decodeLz4Block(data, { bytes: target, start: at, end, history });
    }
  });
  if (at !== target.byteLength) throw wrongLength();
  if (checksums === 'verify' && contentChecksum !== undefined && kernels.xxh32(target) !== contentChecksum) {
    throw new CorruptStoreError('the content checksum of an LZ4 frame does not match');
  }
}

/**
 * Decodes `frame` into a fresh buffer of just its plain length. Throws CorruptStoreError if it is malformed or its plain
 * length is above `plainBytesMax`, before anything is allocated: a block that announces 4 MiB mostly holds 100 bytes,
 * so lengths are summed up from the sequences first.
 */
export function decodeLz4Frame(
  frame: Uint8Array,
  plainBytesMax: number,
  options: { kernels: Kernels; checksums: Checksums },
): Uint8Array {
  const header = readHeader(frame);
  let plainBytes = 0;
  eachBlock(frame, header, 'skip', (data, stored) => {
    const blockBytes = stored ? data.byteLength : options.kernels.measureLz4Block(data);
    if (blockBytes > header.blockBytesMax) throw wrongLength();
    plainBytes += blockBytes;
    if (plainBytes > plainBytesMax) throw wrongLength();
  });
  const plain = new Uint8Array(plainBytes);
  decodeLz4FrameInto(frame, plain, options);
  return plain;
}

function readHeader(frame: Uint8Array): Header {
  if (frame.byteLength < 7 || readU32(frame, 0) !== MAGIC) throw malformed('it does not begin with the magic number');
  const flags = frame[4]!;
  const descriptor = frame[5]!;
  if ((flags & FLG.version) !== FLG.version1 || (flags & FLG.reserved) !== 0 || (descriptor & BD_RESERVED) !== 0) {
    throw malformed('its flags are of another version');
  }
  if ((flags & FLG.dictionary) !== 0) throw malformed('it needs a dictionary, which no store has');
  const blockCode = descriptor >> 4;
  if (blockCode < BLOCK_CODE_MIN) throw malformed('its block size is unknown');

  const hasContentSize = (flags & FLG.contentSize) !== 0;
  const checksumAt = hasContentSize ? 14 : 6;
  if (frame.byteLength <= checksumAt) throw malformed('its header is cut short');
  if (frame[checksumAt] !== ((xxh32(frame.subarray(4, checksumAt)) >>> 8) & 0xff)) {
    throw malformed('its header checksum does not match');
  }
  return {
    independentBlocks: (flags & FLG.independentBlocks) !== 0,
    blockChecksums: (flags & FLG.blockChecksum) !== 0,
    contentChecksum: (flags & FLG.contentChecksum) !== 0,
    blockBytesMax: BLOCK_BYTES_OF_CODE_MIN * 4 ** (blockCode - BLOCK_CODE_MIN),
    contentBytes: hasContentSize ? readU32(frame, 6) + readU32(frame, 10) * 2 ** 32 : undefined,
    end: checksumAt + 1,
  };
}

/**
 * Hands each block to `visit`, as a view, and returns the content checksum, if there is one. A visit and not a list: a
 * hostile frame can hold a block for every five of its bytes.
 */
function eachBlock(
  frame: Uint8Array,
  header: Header,
  checksums: Checksums,
  visit: (data: Uint8Array, stored: boolean) => void,
): number | undefined {
  const u32At = (at: number) => {
    if (at + 4 > frame.byteLength) throw malformed('it is cut short');
    return readU32(frame, at);
  };
  let at = header.end;
  for (;;) {
    const size = u32At(at);
    at += 4;
    if (size === 0) break;
    const stored = size >= STORED_BLOCK;
    const dataBytes = stored ? size - STORED_BLOCK : size;
    if (dataBytes > header.blockBytesMax) throw malformed('a block is above its block size');
    if (dataBytes > frame.byteLength - at) throw malformed('it is cut short');
    const data = frame.subarray(at, at + dataBytes);
    at += dataBytes;
    if (header.blockChecksums) {
      const expected = u32At(at);
      at += 4;
      if (checksums === 'verify' && xxh32(data) !== expected) throw malformed('a block checksum does not match');
    }
    visit(data, stored);
  }
  const contentChecksum = header.contentChecksum ? u32At(at) : undefined;
  if (contentChecksum !== undefined) at += 4;
  if (at !== frame.byteLength) throw malformed('something follows it');
  return contentChecksum;
}

function readU32(data: Uint8Array, at: number): number {
  return (data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24)) >>> 0;
}

function malformed(what: string): CorruptStoreError {
  return new CorruptStoreError(`an LZ4 frame is malformed: ${what}`);
}

function wrongLength(): CorruptStoreError {
  return new CorruptStoreError('an LZ4 frame holds another number of bytes than it should');
}
