/**
 * Encodes values as a store's writer does, and in ways it could but does not: LZ4 frames with any flags, compressed by a
 * small greedy matcher, and encrypted values by way of @noble/ciphers. For tests and benchmarks.
 */
import { createCipheriv } from 'node:crypto';
import { gcmsiv } from '@noble/ciphers/aes.js';
import { MiB } from '../../../../src/core/units.ts';
import { xxh32 } from '../../../../src/core/xxh32.ts';

export interface Lz4FrameOptions {
  /** 4 … 7: blocks of 64 KiB, 256 KiB, 1 MiB, 4 MiB. */
  readonly blockCode?: number;
  /** Plain bytes put into one block, at most what blockCode allows. */
  readonly blockBytes?: number;
  readonly dependentBlocks?: boolean;
  readonly blockChecksums?: boolean;
  readonly contentSize?: boolean;
  readonly contentChecksum?: boolean;
  /** Stores every block as it is. */
  readonly stored?: boolean;
  readonly dictionaryId?: number;
}

/** The flags that plakar always sets are the defaults. */
export function writeLz4Frame(plain: Uint8Array, options: Lz4FrameOptions = {}): Buffer {
  const { blockCode = 7, blockBytes = 4 * MiB, dependentBlocks = false, blockChecksums = false } = options;
  const { contentSize = false, contentChecksum = true, stored = false, dictionaryId } = options;
  const flags =
    0x40 |
    (dependentBlocks ? 0 : 0x20) |
    (blockChecksums ? 0x10 : 0) |
    (contentSize ? 0x08 : 0) |
    (contentChecksum ? 0x04 : 0) |
    (dictionaryId === undefined ? 0 : 0x01);
  const descriptor = Buffer.concat([
    Buffer.from([flags, blockCode << 4]),
    contentSize ? u64(plain.byteLength) : Buffer.alloc(0),
    dictionaryId === undefined ? Buffer.alloc(0) : u32(dictionaryId),
  ]);
  const parts: Uint8Array[] = [u32(0x184d2204), descriptor, Buffer.from([(xxh32(descriptor) >>> 8) & 0xff])];
  for (let from = 0; from < plain.byteLength; from += blockBytes) {
    const end = Math.min(from + blockBytes, plain.byteLength);
    const history = dependentBlocks ? Math.max(0, from - 65535) : from;
    const compressed = stored ? undefined : compressLz4Block(plain, { from, end, history });
    const useful = compressed !== undefined && compressed.byteLength < end - from;
    const data = useful ? compressed : plain.subarray(from, end);
    parts.push(u32(useful ? data.byteLength : data.byteLength + 0x80000000), data);
    if (blockChecksums) parts.push(u32(xxh32(data)));
  }
  parts.push(u32(0));
  if (contentChecksum) parts.push(u32(xxh32(plain)));
  return Buffer.concat(parts);
}

/** One LZ4 block of plain[from, end), whose matches may begin at `history`. */
export function compressLz4Block(
  plain: Uint8Array,
  { from, end, history }: { from: number; end: number; history: number },
): Uint8Array {
  const out = Buffer.alloc(2 * (end - from) + 16);
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const seen = new Int32Array(1 << 16).fill(-1);
  const hashAt = (at: number) => Math.imul(view.getUint32(at, true), 2654435761) >>> 16;
  let to = 0;
  const putLength = (length: number) => {
    for (; length >= 255; length -= 255) out[to++] = 255;
    out[to++] = length;
  };
  const putSequence = (literalsFrom: number, literalsEnd: number, match?: { offset: number; length: number }) => {
    const literals = literalsEnd - literalsFrom;
    const extra = match === undefined ? 0 : match.length - 4;
    out[to++] = (Math.min(literals, 15) << 4) | Math.min(extra, 15);
    if (literals >= 15) putLength(literals - 15);
    out.set(plain.subarray(literalsFrom, literalsEnd), to);
    to += literals;
    if (match === undefined) return;
    to = out.writeUInt16LE(match.offset, to);
    if (extra >= 15) putLength(extra - 15);
  };
  // The format wants the last match to begin 12 bytes before the end, and the last 5 bytes to be literals.
  for (let at = history; at < from && at + 4 <= end; at++) seen[hashAt(at)] = at;
  let literalsFrom = from;
  for (let at = from; at + 12 <= end; ) {
    const slot = hashAt(at);
    const candidate = seen[slot]!;
    seen[slot] = at;
    const fits = candidate >= 0 && at - candidate <= 65535;
    if (!fits || view.getUint32(candidate, true) !== view.getUint32(at, true)) {
      at++;
      continue;
    }
    let length = 4;
    while (at + length < end - 5 && plain[candidate + length] === plain[at + length]) length++;
    putSequence(literalsFrom, at, { offset: at - candidate, length });
    at += length;
    literalsFrom = at;
  }
  putSequence(literalsFrom, end);
  return out.subarray(0, to);
}

/** Random bytes of a seed: the same on every machine (xorshift32). */
export function randomBytesOf(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  for (let at = 0; at < length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

export interface EncryptOptions {
  readonly key: Uint8Array;
  readonly subKeyAlgorithm: 'AES256-KW' | 'AES256-GCM';
  readonly segmentBytes: number;
  /** Makes subkeys and nonces. */
  readonly seed?: number;
}

/** One encrypted value (kloset-format.md 5.2). */
export function encryptValue(plain: Uint8Array, options: EncryptOptions): Buffer {
  const { key, subKeyAlgorithm, segmentBytes, seed = 1 } = options;
  const subkey = randomBytesOf(seed, 32);
  const parts = [wrapSubkey(subkey, key, subKeyAlgorithm, seed)];
  for (let from = 0; from < plain.byteLength; from += segmentBytes) {
    const nonce = randomBytesOf(seed + 1000 + from, 12);
    parts.push(nonce, gcmsiv(subkey, nonce).encrypt(plain.subarray(from, from + segmentBytes)));
  }
  return Buffer.concat(parts);
}

function wrapSubkey(
  subkey: Uint8Array,
  key: Uint8Array,
  algorithm: EncryptOptions['subKeyAlgorithm'],
  seed: number,
): Uint8Array {
  if (algorithm === 'AES256-KW') {
    const cipher = createCipheriv('id-aes256-wrap', key, Buffer.alloc(8, 0xa6));
    return Buffer.concat([cipher.update(subkey), cipher.final()]);
  }
  const nonce = randomBytesOf(seed + 7, 12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  return Buffer.concat([nonce, cipher.update(subkey), cipher.final(), cipher.getAuthTag()]);
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value >>> 0);
  return buffer;
}

function u64(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
}

/** One Zstandard frame of raw and run-length blocks: Node 20 has no compressor. `contentSize` puts its length in front. */
export function writeZstdFrame(
  plain: Uint8Array,
  { contentSize = false, blockBytes = 128 * 1024 }: { contentSize?: boolean; blockBytes?: number } = {},
): Buffer {
  // Four bytes of content size without the single-segment flag; a window of 8 MiB (exponent 13).
  const parts: Uint8Array[] = [u32(0xfd2fb528), Buffer.from([contentSize ? 0x80 : 0, 13 << 3])];
  if (contentSize) parts.push(u32(plain.byteLength));
  let from = 0;
  do {
    const data = plain.subarray(from, from + blockBytes);
    from += blockBytes;
    const run = data.byteLength > 1 && data.every((byte) => byte === data[0]);
    const header = (data.byteLength << 3) | (run ? 2 : 0) | (from >= plain.byteLength ? 1 : 0);
    parts.push(u32(header).subarray(0, 3), run ? data.subarray(0, 1) : data);
  } while (from < plain.byteLength);
  return Buffer.concat(parts);
}
