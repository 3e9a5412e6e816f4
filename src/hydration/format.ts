/**
 * The hydrated directory: what snapshots of one store need, as the store has it. All numbers are little-endian.
 *
 *     DIR/CONFIG           the store's CONFIG, byte for byte
 *     DIR/index            header and records, below
 *     DIR/data/00000001 …  stored bytes of blobs (compressed, encrypted), one behind the other; nothing else
 *     DIR/lock             whoever writes holds flock(2) on it
 *
 * Header of the index, 64 bytes, written once under another name and renamed:
 *
 *      0  magic      8  "KNBDHYDR"
 *      8  version    4  1
 *     12  record     4  112: bytes of a record
 *     16  salt      32  random; the index's key is HKDF-SHA256 of the store's key with it (core/derived-key.ts)
 *     48  padding   12
 *     60  crc        4  CRC-32 of bytes 0 to 59
 *
 * Then records of 112 bytes. A record's place is its number, and nothing else depends on those before it: one that is
 * damaged is left out, and one that a crash tore, at the end, is cut off by the next writer. Of two records of one blob
 * the later one counts. Both kinds end in
 *
 *     88  tag       16  first half of HMAC-SHA256 over bytes 0 to 87, keyed as above: looked at before a record is used
 *    104  crc        4  CRC-32 of bytes 0 to 103: looked at when the index is read
 *    108  padding    4
 *
 * and begin, for a blob, with
 *
 *      0  kind       4  1
 *      4  type       4  resource type of the Kloset format
 *      8  mac       32  MAC of the blob's content; of a snapshot's header and signature, which are named at random: their id
 *     40  sha256    32  of the stored bytes, for those that are named at random; zero for others, which `mac` covers
 *     72  offset     8  in the data file, bytes
 *     80  file       4  number of the data file
 *     84  length     4  stored bytes
 *
 * or for a snapshot (the last record of a snapshot is how far it is)
 *
 *      0  kind       4  2
 *      4  state      4  1: begun, 2: complete
 *      8  id        32
 *     40  chunkBytes 8  stored bytes of all its chunks, each once
 *     48  doneBytes  8  of those that are here
 *     56  chunks     8  number of its chunks, each once
 *     64  damaged    8  blobs that the store has not, or not sound: they are not here either
 *     72  time       8  when this was written, milliseconds since 1970
 *     80  padding    8
 *
 * Order of writing: data, fdatasync, records, fdatasync. So what a record names is there, and kill -9 or a power cut at
 * any moment leaves a state to go on from. Data behind the last record of the last data file is cut off by the next writer.
 */
import { createHmac, type KeyObject } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { CorruptStoreError, UnsupportedError } from '../core/errors.ts';
import { equalBytes, MAC_BYTES } from '../core/mac.ts';
import { bytes, struct, u32, u64 } from '../core/struct.ts';

const MAGIC = Buffer.from('KNBDHYDR');
const VERSION = 1;
const TAG_BYTES = 16;
/** Bytes of every record. */
export const RECORD_BYTES = 112;
/** What the key of an index is derived for. */
export const INDEX_KEY_PURPOSE = 'hydrated index';

export const indexHeader = struct('index_header', 'le', 64, [
  ['magic', bytes(8)],
  ['version', u32],
  ['record', u32],
  ['salt', bytes(32)],
  ['crc', u32, { at: 60 }],
]);

export const recordKinds = { blob: 1, snapshot: 2 } as const;
export const snapshotStates = { begun: 1, complete: 2 } as const;

const blobRecord = struct('blob_record', 'le', RECORD_BYTES, [
  ['kind', u32],
  ['type', u32],
  ['mac', bytes(MAC_BYTES)],
  ['sha256', bytes(32)],
  ['offset', u64],
  ['file', u32],
  ['length', u32],
  ['tag', bytes(TAG_BYTES)],
  ['crc', u32],
]);

const snapshotRecord = struct('snapshot_record', 'le', RECORD_BYTES, [
  ['kind', u32],
  ['state', u32],
  ['id', bytes(MAC_BYTES)],
  ['chunkBytes', u64],
  ['doneBytes', u64],
  ['chunks', u64],
  ['damaged', u64],
  ['time', u64],
  ['tag', bytes(TAG_BYTES), { at: 88 }],
  ['crc', u32],
]);

const TAG_AT = blobRecord.offsetOf('tag');
const CRC_AT = blobRecord.offsetOf('crc');

/** Where a blob's stored bytes lie. */
export interface HydratedBlob {
  readonly type: number;
  readonly mac: Uint8Array;
  /** All zero for blobs that their MAC covers. */
  readonly sha256: Uint8Array;
  readonly offset: number;
  readonly file: number;
  readonly length: number;
}

/** How far a snapshot is. */
export interface HydratedSnapshot {
  readonly isComplete: boolean;
  readonly id: Uint8Array;
  readonly chunkBytes: number;
  readonly doneBytes: number;
  readonly chunks: number;
  readonly damaged: number;
  readonly timeMs: number;
}

export function encodeHeader(salt: Uint8Array): Uint8Array {
  const header = indexHeader.encode({ magic: MAGIC, version: VERSION, record: RECORD_BYTES, salt });
  indexHeader.write(header, { crc: crc32(header.subarray(0, indexHeader.offsetOf('crc'))) });
  return header;
}

/** The salt. Throws UnsupportedError for a newer version, CorruptStoreError for what is none. */
export function decodeHeader(data: Uint8Array): Uint8Array {
  const { magic, version, record, salt, crc } = indexHeader.read(data);
  if (!equalBytes(magic, MAGIC)) throw new CorruptStoreError('it is no index of hydrated blobs');
  if (version !== VERSION || record !== RECORD_BYTES) {
    throw new UnsupportedError(`it is of version ${version}, this kloset-nbd reads version ${VERSION}`);
  }
  if (crc32(data.subarray(0, indexHeader.offsetOf('crc'))) !== crc) {
    throw new CorruptStoreError('the checksum of its header is wrong');
  }
  return new Uint8Array(salt);
}

export function encodeBlob(blob: HydratedBlob, key: KeyObject): Uint8Array {
  return seal(blobRecord.encode({ kind: recordKinds.blob, ...blob }), key);
}

export function encodeSnapshot(snapshot: HydratedSnapshot, key: KeyObject): Uint8Array {
  const { isComplete, timeMs, ...fields } = snapshot;
  const state = isComplete ? snapshotStates.complete : snapshotStates.begun;
  return seal(snapshotRecord.encode({ kind: recordKinds.snapshot, state, time: timeMs, ...fields }), key);
}

function seal(record: Uint8Array, key: KeyObject): Uint8Array {
  record.set(tagOf(record, key), TAG_AT);
  blobRecord.write(record, { crc: crc32(record.subarray(0, CRC_AT)) });
  return record;
}

/** Whether the record is whole: not torn, not damaged by chance. Says nothing about who wrote it. */
export function isWhole(record: Uint8Array): boolean {
  return u32At(record, CRC_AT) === crc32(record.subarray(0, CRC_AT));
}

/** Whether it was written with `key`. */
export function isSealed(record: Uint8Array, key: KeyObject): boolean {
  return equalBytes(record.subarray(TAG_AT, CRC_AT), tagOf(record, key));
}

function tagOf(record: Uint8Array, key: KeyObject): Uint8Array {
  return createHmac('sha256', key).update(record.subarray(0, TAG_AT)).digest().subarray(0, TAG_BYTES);
}

/** A whole record's fields; undefined for a kind that this version does not know. Byte strings are views. */
export function decodeRecord(
  record: Uint8Array,
): { readonly blob: HydratedBlob } | { readonly snapshot: HydratedSnapshot } | undefined {
  const kind = u32At(record, blobRecord.offsetOf('kind'));
  if (kind === recordKinds.blob) return { blob: blobRecord.read(record) };
  if (kind !== recordKinds.snapshot) return undefined;
  const { state, time, ...fields } = snapshotRecord.read(record);
  return { snapshot: { ...fields, isComplete: state === snapshotStates.complete, timeMs: time } };
}

/** Read alone: of a record that is not whole, other fields may hold what no field can. */
function u32At(record: Uint8Array, at: number): number {
  return new DataView(record.buffer, record.byteOffset, record.byteLength).getUint32(at, true);
}
