/**
 * The merged index of a big store as a file of the cache: locations sorted by MAC and type, read a segment at a time,
 * with each segment's first key in memory (some 3 MB for 30 million locations).
 *
 *   locations            49 bytes each, a whole number to a segment: MAC, type, packfile number, offset, length
 *   columns              each segment's first key; the marks; which locations are snapshots
 *   where they begin     8 bytes
 */
import { LRUCache } from 'lru-cache';
import { type Column, type ReadColumns, readColumns, writeColumns } from '../cache/columns.ts';
import { CacheDamagedError } from '../cache/errors.ts';
import { LOOKUP_SEGMENT_BYTES } from '../cache/limits.ts';
import type { SealedReader } from '../cache/sealed-reader.ts';
import type { SealedWriter } from '../cache/sealed-writer.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { bytes, struct, u8, u32, u64 } from '../core/struct.ts';
import type { BlobIndex, BlobLocation } from './blob-index.ts';
import { resourceTypes } from './format.ts';
import { IndexMarks, type MarkValues } from './index-marks.ts';
import { INDEX_SEGMENTS_BYTES_MAX } from './limits.ts';

const sortedLocation = struct('sorted location', 'le', 49, [
  ['mac', bytes(MAC_BYTES)],
  ['type', u8],
  ['packfile', u32],
  ['offset', u64],
  ['length', u32],
]);
const RECORD_BYTES = sortedLocation.sizeBytes;
/** MAC and type: the order of the file. */
const KEY_BYTES = MAC_BYTES + 1;
const RECORDS_PER_SEGMENT = Math.floor(LOOKUP_SEGMENT_BYTES / RECORD_BYTES);
/** Plain bytes of a segment of such a file: no location lies in two. */
export const SORTED_SEGMENT_BYTES = RECORDS_PER_SEGMENT * RECORD_BYTES;
const TAIL_BYTES = 8;
/** MACs with one first byte, and how many of them one 52-bit number can tell apart: 32 bits of the MAC, 20 of the place. */
const BUCKETS = 256;
const PLACES = 2 ** 20;

interface SortedValues extends MarkValues {
  readonly sortedCount: number;
}

/** Locations to be written, as columns: element i of each is location i's. */
export interface LocationColumns {
  readonly count: number;
  readonly macs: Uint8Array;
  readonly types: Uint8Array;
  readonly packfiles: Uint32Array;
  readonly offsets: Float64Array;
  readonly lengths: Uint32Array;
}

/** Writes a sorted file: in memory there is one bucket of it at a time, beside the columns themselves. */
export async function writeSorted(
  writer: Pick<SealedWriter, 'write'>,
  locations: LocationColumns,
  marks: IndexMarks,
): Promise<void> {
  const fences: Uint8Array[] = [];
  const snapshots: { macs: Uint8Array[]; packfiles: number[] } = { macs: [], packfiles: [] };
  const buckets = bucketsOf(locations);
  let written = 0;
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    const places = sortBucket(locations, buckets.places.subarray(buckets.starts[bucket], buckets.starts[bucket + 1]));
    const encoded = new Uint8Array(places.length * RECORD_BYTES);
    for (const [i, place] of places.entries()) {
      const at = i * RECORD_BYTES;
      encodeLocation(encoded, at, locations, place);
      if (written++ % RECORDS_PER_SEGMENT === 0) fences.push(encoded.slice(at, at + KEY_BYTES));
      if (locations.types[place] !== resourceTypes.snapshot) continue;
      snapshots.macs.push(encoded.slice(at, at + MAC_BYTES));
      snapshots.packfiles.push(locations.packfiles[place]!);
    }
    await writer.write(encoded);
  }
  const { values, columns } = marks.toColumns();
  const own: Record<string, Column> = {
    fences: new Uint8Array(Buffer.concat(fences)),
    snapshotMacs: new Uint8Array(Buffer.concat(snapshots.macs)),
    snapshotPackfiles: Uint32Array.from(snapshots.packfiles),
  };
  const sortedValues: SortedValues = { ...values, sortedCount: written };
  await writeColumns(writer, { values: sortedValues, columns: { ...own, ...columns } });
  const tail = new Uint8Array(TAIL_BYTES);
  u64.write(new DataView(tail.buffer), 0, written * RECORD_BYTES, true);
  await writer.write(tail);
}

/** All places that are no padding's, those with one first byte of the MAC together. */
function bucketsOf({ count, macs, types }: LocationColumns): { places: Uint32Array; starts: Uint32Array } {
  const starts = new Uint32Array(BUCKETS + 1);
  for (let at = 0; at < count; at++) if (types[at] !== resourceTypes.padding) starts[macs[at * MAC_BYTES]! + 1]!++;
  for (let bucket = 0; bucket < BUCKETS; bucket++) starts[bucket + 1]! += starts[bucket]!;
  const next = starts.slice();
  const places = new Uint32Array(starts[BUCKETS]!);
  for (let at = 0; at < count; at++) {
    if (types[at] !== resourceTypes.padding) places[next[macs[at * MAC_BYTES]!]!++] = at;
  }
  return { places, starts };
}

function sortBucket(locations: LocationColumns, places: Uint32Array): Uint32Array {
  const { macs } = locations;
  // Numbers sort without calling back. Where the numbers cannot tell two apart, or there are too many, all is compared.
  if (places.length > PLACES) return places.sort((a, b) => compareLocations(locations, a, b));
  const keys = new Float64Array(places.length);
  const view = new DataView(macs.buffer, macs.byteOffset, macs.byteLength);
  for (const [i, place] of places.entries()) keys[i] = view.getUint32(place * MAC_BYTES + 1, false) * PLACES + i;
  keys.sort();
  const sorted = Uint32Array.from(keys, (key) => places[key % PLACES]!);
  for (let from = 0; from < sorted.length; ) {
    let to = from + 1;
    const prefix = Math.floor(keys[from]! / PLACES);
    while (to < sorted.length && Math.floor(keys[to]! / PLACES) === prefix) to++;
    if (to - from > 1) sorted.subarray(from, to).sort((a, b) => compareLocations(locations, a, b));
    from = to;
  }
  return sorted;
}

function compareLocations({ macs, types, packfiles }: LocationColumns, a: number, b: number): number {
  for (let i = 0; i < MAC_BYTES; i++) {
    const difference = macs[a * MAC_BYTES + i]! - macs[b * MAC_BYTES + i]!;
    if (difference !== 0) return difference;
  }
  return types[a]! - types[b]! || packfiles[a]! - packfiles[b]!;
}

function encodeLocation(target: Uint8Array, at: number, locations: LocationColumns, place: number): void {
  const view = new DataView(target.buffer, target.byteOffset + at, RECORD_BYTES);
  target.set(locations.macs.subarray(place * MAC_BYTES, (place + 1) * MAC_BYTES), at);
  view.setUint8(sortedLocation.offsetOf('type'), locations.types[place]!);
  view.setUint32(sortedLocation.offsetOf('packfile'), locations.packfiles[place]!, true);
  u64.write(view, sortedLocation.offsetOf('offset'), locations.offsets[place]!, true);
  view.setUint32(sortedLocation.offsetOf('length'), locations.lengths[place]!, true);
}

/** Looks locations up in a sorted file. */
export class SortedIndex implements BlobIndex {
  readonly #reader: SealedReader;
  readonly #marks: IndexMarks;
  readonly #fences: Uint8Array;
  readonly #snapshots: readonly { readonly mac: Uint8Array; readonly packfile: number }[];
  readonly #segments: LRUCache<number, Promise<Uint8Array>>;
  readonly locationCount: number;
  /** Look-ups under way, and what waits for the last of them. */
  #busy = 0;
  #idle: () => void = () => {};

  private constructor(reader: SealedReader, read: ReadColumns) {
    this.#reader = reader;
    this.#marks = IndexMarks.fromColumns(read);
    this.#fences = read.column('fences', 'u8');
    this.locationCount = (read.values as SortedValues).sortedCount;
    const macs = read.column('snapshotMacs', 'u8');
    this.#snapshots = Array.from(read.column('snapshotPackfiles', 'u32'), (packfile, i) => ({
      mac: macs.slice(i * MAC_BYTES, (i + 1) * MAC_BYTES),
      packfile,
    }));
    this.#segments = new LRUCache({ max: Math.floor(INDEX_SEGMENTS_BYTES_MAX / SORTED_SEGMENT_BYTES) });
  }

  /** Takes the reader over unless it rejects. Rejects with CacheDamagedError. */
  static async open(reader: SealedReader): Promise<SortedIndex> {
    const tail = new Uint8Array(TAIL_BYTES);
    if (reader.plainBytes < TAIL_BYTES) throw new CacheDamagedError('it is no sorted index');
    await reader.read(reader.plainBytes - TAIL_BYTES, tail);
    const start = u64.read(new DataView(tail.buffer), 0, true);
    const index = new SortedIndex(reader, await readColumns(reader, { start, end: reader.plainBytes - TAIL_BYTES }));
    const segments = Math.ceil(index.locationCount / RECORDS_PER_SEGMENT);
    const fits = start === index.locationCount * RECORD_BYTES && index.#fences.length === segments * KEY_BYTES;
    if (!fits || reader.segmentBytes !== SORTED_SEGMENT_BYTES) throw new CacheDamagedError('its parts do not fit');
    return index;
  }

  async locate(type: number, mac: Uint8Array): Promise<BlobLocation[]> {
    this.#busy++;
    try {
      return await this.#find(type, mac);
    } finally {
      if (--this.#busy === 0) this.#idle();
    }
  }

  snapshots(): readonly Uint8Array[] {
    return this.#marks.liveSnapshots(this.#snapshots);
  }

  deletedAt(id: string): number | undefined {
    return this.#marks.deletedAt(id);
  }

  firstPackfileMarkedSince(sinceMs: number): number | undefined {
    return this.#marks.firstPackfileMarkedSince(sinceMs);
  }

  get states(): ReadonlySet<string> {
    return this.#marks.states;
  }

  /** A file is not added to: all states are merged anew. */
  async extend(): Promise<undefined> {
    return undefined;
  }

  /** Waits for the look-ups that are under way. */
  async close(): Promise<void> {
    if (this.#busy > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.#reader.close();
  }

  async #find(type: number, mac: Uint8Array): Promise<BlobLocation[]> {
    const key = new Uint8Array(KEY_BYTES);
    key.set(mac);
    key[MAC_BYTES] = type;
    const live: BlobLocation[] = [];
    const marked: BlobLocation[] = [];
    // A key's locations may begin at the end of the segment before the first that begins with it.
    const first = Math.max(0, firstNotBelow(this.#fences, KEY_BYTES, key) - 1);
    for (let number = first; number * RECORDS_PER_SEGMENT < this.locationCount; number++) {
      const segment = await this.#segment(number);
      const here = Math.min(RECORDS_PER_SEGMENT, this.locationCount - number * RECORDS_PER_SEGMENT);
      const records = segment.subarray(0, here * RECORD_BYTES);
      let at = firstNotBelow(records, RECORD_BYTES, key);
      for (; at < here && compareKey(records, at * RECORD_BYTES, key) === 0; at++) {
        const { packfile, offset, length } = sortedLocation.read(records, at * RECORD_BYTES);
        if (!this.#marks.isListed(packfile)) continue;
        const id = this.#marks.packfileId(packfile);
        (this.#marks.isColoured(resourceTypes.packfile, id) ? marked : live).push({ packfile: id, offset, length });
      }
      if (at < here) break;
    }
    return [...live, ...marked];
  }

  #segment(number: number): Promise<Uint8Array> {
    let reading = this.#segments.get(number);
    if (reading === undefined) {
      reading = this.#reader.readSegment(number);
      this.#segments.set(number, reading);
    }
    return reading;
  }
}

/** The number of the first record in `records` whose key is not below `key`; how many there are, if all are. */
function firstNotBelow(records: Uint8Array, recordBytes: number, key: Uint8Array): number {
  let low = 0;
  let high = records.length / recordBytes;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareKey(records, middle * recordBytes, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

function compareKey(records: Uint8Array, at: number, key: Uint8Array): number {
  for (let i = 0; i < KEY_BYTES; i++) {
    const difference = records[at + i]! - key[i]!;
    if (difference !== 0) return difference;
  }
  return 0;
}
