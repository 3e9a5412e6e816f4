/** Numbers and fixed layouts of the Kloset format; section numbers refer to the format's description. */
import { bytes, i64big, struct, u8, u32, u64 } from '../core/struct.ts';

/** Resource and blob types (0.2). */
export const resourceTypes = {
  config: 1,
  lock: 2,
  state: 3,
  packfile: 4,
  snapshot: 5,
  signature: 6,
  object: 7,
  chunk: 9,
  vfsTree: 10,
  vfsNode: 11,
  vfsEntry: 12,
  errorTree: 13,
  errorNode: 14,
  errorEntry: 15,
  xattrTree: 16,
  xattrNode: 17,
  xattrEntry: 18,
  indexTree: 19,
  indexNode: 20,
  vfsSummary: 21,
  padding: 255,
} as const;
export type ResourceType = (typeof resourceTypes)[keyof typeof resourceTypes];

/** Blobs whose name is the snapshot's random identifier: there is no MAC of the content to compare with. */
export const NAMED_AT_RANDOM: readonly number[] = [resourceTypes.snapshot, resourceTypes.signature];

/** The name of a resource type for messages. */
export function resourceTypeName(type: number): string {
  return Object.entries(resourceTypes).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
}

/** Versions are major << 16 | minor << 8 | patch. */
export function formatVersion(version: number): string {
  return `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`;
}
export const versions = { v1_0_0: 0x10000, v1_1_0: 0x10100 } as const;

/** Magic of every envelope (3); the older one is read too. */
export const envelopeMagics = ['_KLOSET_', '_PLAKAR_'] as const;
export const envelopeHeader = struct('envelope', 'le', 16, [
  ['magic', bytes(8)],
  ['type', u32],
  ['version', u32],
]);

/** Record types of a state (7.2). */
export const stateRecords = { location: 2, coloured: 3, packfile: 4, configuration: 5, remove: 6 } as const;
/** Ends the records; the metadata follows without a length. */
export const STATE_METADATA_MARKER = 1;

export const locationRecord = struct('location record', 'le', 85, [
  ['blobType', u8],
  ['version', u32],
  ['blobMac', bytes(32)],
  ['packfileMac', bytes(32)],
  ['offset', u64],
  ['length', u32],
  ['flags', u32],
]);
export const colouredRecord = struct('coloured record', 'le', 41, [
  ['resourceType', u8],
  ['mac', bytes(32)],
  ['whenNanoseconds', i64big],
]);
export const packfileRecord = struct('packfile record', 'le', 72, [
  ['packfileMac', bytes(32)],
  ['stateId', bytes(32)],
  ['timestampNanoseconds', i64big],
]);
export const removeRecord = struct('delete record', 'le', 66, [
  ['recordType', u8],
  ['blobType', u8],
  ['blobMac', bytes(32)],
  ['packfileMac', bytes(32)],
]);
export const stateMetadata = struct('state metadata', 'le', 28, [
  ['version', u32],
  ['timestampNanoseconds', i64big],
  ['serial', bytes(16)],
]);

/** A packfile's index, one record a blob, and its footer (8.1). */
export const packfileIndexRecord = struct('packfile index record', 'le', 56, [
  ['blobType', u32],
  ['version', u32],
  ['blobMac', bytes(32)],
  ['offset', u64],
  ['length', u32],
  ['flags', u32],
]);
export const packfileFooter = struct('packfile footer', 'le', 56, [
  ['timestampNanoseconds', i64big],
  ['count', u32],
  ['indexOffset', u64],
  ['indexMac', bytes(32)],
  ['flags', u32],
]);

/** Go's file mode bits (11.2), which Kloset stores; not st_mode. */
export const goMode = {
  directory: 2 ** 31,
  symlink: 2 ** 27,
  device: 2 ** 26,
  fifo: 2 ** 25,
  socket: 2 ** 24,
  setUid: 2 ** 23,
  setGid: 2 ** 22,
  characterDevice: 2 ** 21,
  sticky: 2 ** 20,
  irregular: 2 ** 19,
} as const;

/** Kinds of dirpack records (10.3): the record's first byte. */
export const dirpackHeader = struct('dirpack record', 'le', 5, [
  ['kind', u8],
  ['length', u32],
]);
