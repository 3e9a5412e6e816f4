import { randomInt } from 'node:crypto';
import { type Column, type ReadColumns, readColumns, writeColumns } from '../cache/columns.ts';
import { CacheDamagedError } from '../cache/errors.ts';
import type { SealedReader } from '../cache/sealed-reader.ts';
import type { SealedWriter } from '../cache/sealed-writer.ts';
import { CorruptStoreError } from '../core/errors.ts';
import { MAC_BYTES } from '../core/mac.ts';
import type { BlobIndex, BlobLocation } from './blob-index.ts';
import { removeRecord, resourceTypes, stateRecords } from './format.ts';
import { IndexMarks } from './index-marks.ts';
import { writeSorted } from './sorted-index.ts';
import { damagedState, fixedBody, orderStates, type State } from './state.ts';
import { type RecordedLocation, scanState } from './state-scan.ts';

/** Which bucket a MAC falls into cannot be told from outside. The factor is odd: multiplying by it loses nothing. */
const HASH_SEED = randomInt(2 ** 32);
const HASH_FACTOR = randomInt(2 ** 31) * 2 + 1;

/**
 * The merge of all states (kloset-format 7.3) in memory: a hash table over typed arrays, about 60 bytes a location,
 * because a store of small files has three locations a file. Stores with more than a few million have a SortedIndex.
 */
export class LocationIndex implements BlobIndex {
  #count = 0;
  #macs = new Uint8Array(0);
  #types = new Uint8Array(0);
  #packfiles = new Uint32Array(0);
  #offsets = new Float64Array(0);
  #lengths = new Uint32Array(0);
  /** Next location of the same bucket, or NONE. */
  #next = new Int32Array(0);
  #buckets = new Int32Array(0);
  #marks = new IndexMarks();
  readonly #snapshotLocations: number[] = [];

  /** Merges states, in whatever order they are given. Throws CorruptStoreError on malformed records. */
  static merge(states: readonly State[]): LocationIndex {
    const index = new LocationIndex();
    index.#applyAll(states);
    return index;
  }

  async extend(states: readonly State[]): Promise<LocationIndex | undefined> {
    if (!this.#marks.mayFollow(states)) return undefined;
    this.#applyAll(states);
    return this;
  }

  async locate(type: number, mac: Uint8Array): Promise<BlobLocation[]> {
    return this.find(type, mac);
  }

  /** As `locate`, at once. */
  find(type: number, mac: Uint8Array): BlobLocation[] {
    const live: BlobLocation[] = [];
    const marked: BlobLocation[] = [];
    for (const at of this.#find(type, mac)) {
      const packfile = this.#packfiles[at]!;
      if (!this.#marks.isListed(packfile)) continue;
      const id = this.#marks.packfileId(packfile);
      const location = { packfile: id, offset: this.#offsets[at]!, length: this.#lengths[at]! };
      (this.#marks.isColoured(resourceTypes.packfile, id) ? marked : live).push(location);
    }
    return [...live, ...marked];
  }

  snapshots(): Uint8Array[] {
    const isThere = (at: number) => this.#types[at] === resourceTypes.snapshot;
    const locations = this.#snapshotLocations
      .filter(isThere)
      .map((at) => ({ mac: this.#macAt(at), packfile: this.#packfiles[at]! }));
    return this.#marks.liveSnapshots(locations);
  }

  deletedAt(id: string): number | undefined {
    return this.#marks.deletedAt(id);
  }

  firstPackfileMarkedSince(sinceMs: number): number | undefined {
    return this.#marks.firstPackfileMarkedSince(sinceMs);
  }

  get locationCount(): number {
    return this.#count;
  }

  get states(): ReadonlySet<string> {
    return this.#marks.states;
  }

  async close(): Promise<void> {}

  /** Writes it into a file of the cache. */
  async writeTo(writer: Pick<SealedWriter, 'write'>): Promise<void> {
    const { values, columns } = this.#marks.toColumns();
    const own: Record<string, Column> = {
      macs: this.#macs.subarray(0, this.#count * MAC_BYTES),
      types: this.#types.subarray(0, this.#count),
      packfiles: this.#packfiles.subarray(0, this.#count),
      offsets: this.#offsets.subarray(0, this.#count),
      lengths: this.#lengths.subarray(0, this.#count),
    };
    await writeColumns(writer, { values, columns: { ...own, ...columns } });
  }

  /** Writes it as a file that SortedIndex reads. */
  writeSortedTo(writer: Pick<SealedWriter, 'write'>): Promise<void> {
    const columns = {
      count: this.#count,
      macs: this.#macs,
      types: this.#types,
      packfiles: this.#packfiles,
      offsets: this.#offsets,
      lengths: this.#lengths,
    };
    return writeSorted(writer, columns, this.#marks);
  }

  /** Reads what `writeTo` wrote. Rejects with CacheDamagedError. */
  static async readFrom(reader: SealedReader): Promise<LocationIndex> {
    const index = new LocationIndex();
    index.#take(await readColumns(reader));
    return index;
  }

  #take(read: ReadColumns): void {
    this.#marks = IndexMarks.fromColumns(read);
    this.#macs = read.column('macs', 'u8');
    this.#types = read.column('types', 'u8');
    this.#packfiles = read.column('packfiles', 'u32');
    this.#offsets = read.column('offsets', 'f64');
    this.#lengths = read.column('lengths', 'u32');
    this.#count = this.#types.length;
    const lengths = [this.#macs.length / MAC_BYTES, this.#packfiles.length, this.#offsets.length, this.#lengths.length];
    if (lengths.some((length) => length !== this.#count)) throw new CacheDamagedError('its columns differ in length');
    this.#linkAll();
    for (let at = 0; at < this.#count; at++) {
      if (this.#types[at] === resourceTypes.snapshot) this.#snapshotLocations.push(at);
    }
  }

  #applyAll(states: readonly State[]): void {
    for (const state of orderStates(states)) {
      try {
        this.#apply(state);
      } catch (error) {
        throw error instanceof CorruptStoreError ? damagedState(state.id, error.message, error) : error;
      }
      this.#marks.note(state);
    }
  }

  #apply(state: State): void {
    scanState(state, {
      location: (records, place) => this.#addLocation(records, place),
      other: (type, body) => {
        this.#marks.apply(type, body);
        if (type === stateRecords.remove) this.#removeLocation(body);
      },
    });
  }

  #removeLocation(body: Uint8Array): void {
    const record = removeRecord.read(fixedBody(body, removeRecord.sizeBytes));
    if (record.recordType !== stateRecords.location) return;
    const packfile = this.#marks.packfileNumber(record.packfileMac);
    for (const at of this.#find(record.blobType, record.blobMac)) {
      // Padding is never looked up: as its type the location is as good as gone, and the bucket chain stays whole.
      if (this.#packfiles[at] === packfile) this.#types[at] = resourceTypes.padding;
    }
  }

  #addLocation(records: Uint8Array, { type, macAt, packfileAt, offset, length }: RecordedLocation): void {
    if (type === resourceTypes.padding) return;
    const packfile = this.#marks.packfileNumber(records, packfileAt);
    for (let at = this.#first(records, macAt); at >= 0; at = this.#next[at]!) {
      // An existing location is kept (7.3).
      if (this.#types[at] === type && this.#packfiles[at] === packfile && this.#macEquals(at, records, macAt)) return;
    }
    if (this.#count === this.#types.length) this.#grow();
    const at = this.#count++;
    this.#macs.set(records.subarray(macAt, macAt + MAC_BYTES), at * MAC_BYTES);
    this.#types[at] = type;
    this.#packfiles[at] = packfile;
    this.#offsets[at] = offset;
    this.#lengths[at] = length;
    this.#link(at);
    if (type === resourceTypes.snapshot) this.#snapshotLocations.push(at);
  }

  *#find(type: number, mac: Uint8Array): Generator<number> {
    for (let at = this.#first(mac, 0); at >= 0; at = this.#next[at]!) {
      if (this.#types[at] === type && this.#macEquals(at, mac, 0)) yield at;
    }
  }

  /** The first location of the bucket that the MAC at `from` falls into, or NONE. */
  #first(bytes: Uint8Array, from: number): number {
    return this.#count === 0 ? -1 : this.#buckets[this.#bucketOf(bytes, from)]!;
  }

  #macEquals(at: number, bytes: Uint8Array, from: number): boolean {
    const start = at * MAC_BYTES;
    for (let i = 0; i < MAC_BYTES; i++) if (this.#macs[start + i] !== bytes[from + i]) return false;
    return true;
  }

  #macAt(at: number): Uint8Array {
    return this.#macs.slice(at * MAC_BYTES, (at + 1) * MAC_BYTES);
  }

  /** MACs are uniformly distributed, but a hostile state may name what it likes: hence all bytes, and a seed of this process. */
  #bucketOf(mac: Uint8Array, from: number): number {
    let hash = HASH_SEED;
    for (let at = from; at < from + MAC_BYTES; at += 4) {
      const word = mac[at]! | (mac[at + 1]! << 8) | (mac[at + 2]! << 16) | (mac[at + 3]! << 24);
      hash = Math.imul(hash ^ word, HASH_FACTOR);
      hash ^= hash >>> 15;
    }
    return (hash >>> 0) & (this.#buckets.length - 1);
  }

  #link(at: number): void {
    const bucket = this.#bucketOf(this.#macs, at * MAC_BYTES);
    this.#next[at] = this.#buckets[bucket]!;
    this.#buckets[bucket] = at;
  }

  #grow(): void {
    const capacity = Math.max(1024, this.#types.length * 2);
    this.#macs = grown(this.#macs, new Uint8Array(capacity * MAC_BYTES));
    this.#types = grown(this.#types, new Uint8Array(capacity));
    this.#packfiles = grown(this.#packfiles, new Uint32Array(capacity));
    this.#offsets = grown(this.#offsets, new Float64Array(capacity));
    this.#lengths = grown(this.#lengths, new Uint32Array(capacity));
    this.#linkAll();
  }

  /** Makes the hash table anew, for as many locations as the columns have room for. */
  #linkAll(): void {
    const capacity = this.#types.length;
    this.#next = new Int32Array(capacity);
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(Math.max(1024, capacity)))).fill(-1);
    for (let at = 0; at < this.#count; at++) this.#link(at);
  }
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
