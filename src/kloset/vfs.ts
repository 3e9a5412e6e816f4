import { CorruptStoreError } from '../core/errors.ts';
import { MAC_BYTES, toHex } from '../core/mac.ts';
import { type EntryType, entryTypes } from '../core/snapshot-tree.ts';
import { dirpackHeader, goMode, resourceTypes } from './format.ts';
import type { Timestamp } from './msgpack.ts';
import { MsgpackRecord } from './record.ts';
import type { Repository } from './repository.ts';

/** A vfs-entry as recorded (kloset-format 11.1, 11.2); importers' habits (11.7) are not corrected here. */
export interface VfsEntry {
  readonly parentPath: Uint8Array;
  /** Base name; `/` for the root. */
  readonly name: Uint8Array;
  /** Undefined for what the source's system has and Linux has not (Go's irregular files). */
  readonly type: EntryType | undefined;
  /** 07777: permissions from the Go bits, and set-uid, set-gid and sticky from theirs. */
  readonly mode: number;
  /** Bits 07000 of the raw value: what tar importers put there. */
  readonly rawUnixBits: number;
  readonly size: number;
  readonly mtime: Timestamp;
  readonly uid: number;
  readonly gid: number;
  readonly linkCount: number;
  /** `dev:ino` of the source, as text: only compared. Undefined when the importer recorded none. */
  readonly sourceInode: string | undefined;
  readonly symlinkTarget: Uint8Array;
  /** MAC of the object with the content, for regular files. */
  readonly object: Uint8Array;
  readonly attributeNames: readonly Uint8Array[];
}

/** Parses a vfs-entry; `data` is its blob or the same bytes out of a dirpack. */
export function parseVfsEntry(data: Uint8Array): VfsEntry {
  const record = MsgpackRecord.decode(data, 'vfs-entry');
  const info = record.record('file_info');
  const mode = info.integer('mode');
  const inode = info.integerText('ino');
  return {
    parentPath: record.bytes('parent_path'),
    name: info.bytes('name'),
    type: entryTypeOf(mode),
    mode:
      (mode & 0o777) |
      (bit(mode, goMode.setUid) << 11) |
      (bit(mode, goMode.setGid) << 10) |
      (bit(mode, goMode.sticky) << 9),
    rawUnixBits: mode & 0o7000,
    size: info.integer('size'),
    mtime: info.time('mod_time'),
    uid: info.roundedInteger('uid'),
    gid: info.roundedInteger('gid'),
    linkCount: info.integer('nlink'),
    sourceInode: inode === '0' ? undefined : `${info.integerText('dev')}:${inode}`,
    symlinkTarget: record.bytes('symlink_target'),
    object: record.mac('object'),
    attributeNames: record.byteStrings('extended_attributes'),
  };
}

/** Division, not `&`: bit 31 is the sign bit of a bitwise result. */
function bit(mode: number, value: number): number {
  return Math.floor(mode / value) % 2;
}

function entryTypeOf(mode: number): EntryType | undefined {
  if (bit(mode, goMode.directory)) return entryTypes.directory;
  if (bit(mode, goMode.symlink)) return entryTypes.symlink;
  if (bit(mode, goMode.fifo)) return entryTypes.fifo;
  if (bit(mode, goMode.socket)) return entryTypes.socket;
  if (bit(mode, goMode.characterDevice)) return entryTypes.characterDevice;
  if (bit(mode, goMode.device)) return entryTypes.blockDevice;
  if (bit(mode, goMode.irregular)) return undefined;
  return entryTypes.file;
}

/**
 * The entries of a dirpack's content (10.3), the MAC of each verified, in the order they stand in. Throws
 * CorruptStoreError if records do not add up.
 */
export function parseDirpack(content: Uint8Array, repository: Pick<Repository, 'requireMac'>): VfsEntry[] {
  const entries: VfsEntry[] = [];
  for (let at = 0; at < content.byteLength; ) {
    const { length } = dirpackHeader.read(content, at);
    const start = at + dirpackHeader.sizeBytes;
    at = start + length;
    if (length < MAC_BYTES || at > content.byteLength)
      throw new CorruptStoreError('a dirpack record runs past its end');
    const entry = content.subarray(start, at - MAC_BYTES);
    repository.requireMac(entry, content.subarray(at - MAC_BYTES, at));
    entries.push(parseVfsEntry(entry));
  }
  return entries;
}

/** One value of an extended attribute (11.4). */
export interface XattrEntry {
  readonly path: Uint8Array;
  readonly name: Uint8Array;
  readonly isExtendedAttribute: boolean;
  readonly object: Uint8Array;
}

/** Path and name come from the entry, not from the tree's key: a name may contain the separator. */
export function parseXattrEntry(data: Uint8Array): XattrEntry {
  const record = MsgpackRecord.decode(data, 'xattr-entry');
  return {
    path: record.bytes('path'),
    name: record.bytes('name'),
    isExtendedAttribute: record.integer('type') === 0,
    object: record.mac('object'),
  };
}

/** Chunks of one object in order: MACs concatenated, and where each begins in the content. */
export interface ChunkTable {
  /** 32 bytes a chunk. */
  readonly macs: Uint8Array;
  /** Byte offset of each chunk, and the content's length at the end. */
  readonly starts: Float64Array;
  /** MAC of the whole content. */
  readonly contentMac: Uint8Array;
}

/** Reads the object with that MAC (section 12). Rejects with CorruptStoreError on lengths that cannot be. */
export async function readChunkTable(repository: Repository, mac: Uint8Array): Promise<ChunkTable> {
  const what = `object ${toHex(mac)}`;
  const record = MsgpackRecord.decode(await repository.readBlob({ type: resourceTypes.object, mac }), what);
  const chunks = record.records('chunks');
  const macs = new Uint8Array(chunks.length * MAC_BYTES);
  const starts = new Float64Array(chunks.length + 1);
  for (const [i, chunk] of chunks.entries()) {
    const length = chunk.integer('length');
    if (length < 0 || length > repository.config.chunkBytesMax) {
      throw new CorruptStoreError(
        `${what}: chunk ${i} has ${length} bytes, the store's limit is ${repository.config.chunkBytesMax}`,
      );
    }
    macs.set(chunk.mac('contentMAC'), i * MAC_BYTES);
    starts[i + 1] = starts[i]! + length;
  }
  return { macs, starts, contentMac: record.mac('contentMAC') };
}
