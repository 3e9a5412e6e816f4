import { randomInt } from 'node:crypto';
import { CorruptStoreError } from '../core/errors.ts';
import { MAC_BYTES, toHex } from '../core/mac.ts';
import type { BlobIndex, BlobLocation } from './blob-index.ts';
import { colouredRecord, locationRecord, packfileRecord, removeRecord, resourceTypes, stateRecords } from './format.ts';
import { damagedState, fixedBody, orderStates, type State, stateRecordsOf } from './state.ts';

/** Which bucket a MAC falls into cannot be told from outside. The factor is odd: multiplying by it loses nothing. */
const HASH_SEED = randomInt(2 ** 32);
const HASH_FACTOR = randomInt(2 ** 31) * 2 + 1;

/**
 * The merge of all states (kloset-format 7.3): (type, MAC) -> locations. A hash table over typed arrays, about 60 bytes a
 * location, because a store of small files has three locations a file.
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
  readonly #packfileIds: string[] = [];
  readonly #packfileNumbers = new Map<string, number>();
  /** Packfiles that the packfile table lists; locations elsewhere are dead. */
  readonly #listedPackfiles = new Set<number>();
  /** When everything that is marked as deleted was marked, milliseconds since 1970; by `type:hex`. */
  readonly #coloured = new Map<string, number>();
  readonly #snapshotLocations: number[] = [];
  /** Of the newest state merged. */
  #newestNanoseconds = -(2n ** 63n);

  /** Merges states, in whatever order they are given. Throws CorruptStoreError on malformed records. */
  static merge(states: readonly State[]): LocationIndex {
    const index = new LocationIndex();
    index.#applyAll(states);
    return index;
  }

  /**
   * Merges further states into this index, if that gives what merging all of them anew would: if they are newer than
   * those it holds, none of which they can precede then. Otherwise returns false, nothing changed. Throws
   * CorruptStoreError on malformed records; what stood before them is merged then.
   */
  extend(states: readonly State[]): boolean {
    if (states.some(({ timestampNanoseconds }) => timestampNanoseconds <= this.#newestNanoseconds)) return false;
    this.#applyAll(states);
    return true;
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
      if (!this.#listedPackfiles.has(packfile)) continue;
      const id = this.#packfileIds[packfile]!;
      const location = { packfile: id, offset: this.#offsets[at]!, length: this.#lengths[at]! };
      (this.#isColoured(resourceTypes.packfile, id) ? marked : live).push(location);
    }
    return [...live, ...marked];
  }

  snapshots(): Uint8Array[] {
    const ids = new Map<string, Uint8Array>();
    for (const at of this.#snapshotLocations) {
      if (!this.#listedPackfiles.has(this.#packfiles[at]!) || this.#types[at] !== resourceTypes.snapshot) continue;
      const id = this.#macAt(at);
      const hex = toHex(id);
      if (!this.#isColoured(resourceTypes.snapshot, hex)) ids.set(hex, id);
    }
    return [...ids.values()];
  }

  deletedAt(id: string): number | undefined {
    return this.#coloured.get(colourKey(resourceTypes.snapshot, id));
  }

  firstPackfileMarkedSince(sinceMs: number): number | undefined {
    let first: number | undefined;
    for (const [key, markedAtMs] of this.#coloured) {
      if (!key.startsWith(PACKFILE_COLOUR) || markedAtMs < sinceMs) continue;
      if (first === undefined || markedAtMs < first) first = markedAtMs;
    }
    return first;
  }

  get locationCount(): number {
    return this.#count;
  }

  async close(): Promise<void> {}

  #applyAll(states: readonly State[]): void {
    for (const state of orderStates(states)) {
      try {
        this.#apply(state);
      } catch (error) {
        throw error instanceof CorruptStoreError ? damagedState(state.id, error.message, error) : error;
      }
      if (state.timestampNanoseconds > this.#newestNanoseconds) this.#newestNanoseconds = state.timestampNanoseconds;
    }
  }

  #apply(state: State): void {
    for (const { type, body } of stateRecordsOf(state)) {
      switch (type) {
        case stateRecords.location:
          this.#addLocation(fixedBody(body, locationRecord.sizeBytes));
          break;
        case stateRecords.coloured: {
          const record = colouredRecord.read(fixedBody(body, colouredRecord.sizeBytes));
          this.#coloured.set(
            colourKey(record.resourceType, toHex(record.mac)),
            Number(record.whenNanoseconds / 1_000_000n),
          );
          break;
        }
        case stateRecords.packfile: {
          const record = packfileRecord.read(fixedBody(body, packfileRecord.sizeBytes));
          this.#listedPackfiles.add(this.#packfileNumber(toHex(record.packfileMac)));
          break;
        }
        case stateRecords.remove:
          this.#remove(fixedBody(body, removeRecord.sizeBytes));
          break;
        default: // Configuration is of no use to a reader; unknown records are skipped (7.2).
      }
    }
  }

  #remove(body: Uint8Array): void {
    const record = removeRecord.read(body);
    const blob = toHex(record.blobMac);
    switch (record.recordType) {
      case stateRecords.location: {
        const packfile = this.#packfileNumber(toHex(record.packfileMac));
        for (const at of this.#find(record.blobType, record.blobMac)) {
          // Padding is never looked up: as its type the location is as good as gone, and the bucket chain stays whole.
          if (this.#packfiles[at] === packfile) this.#types[at] = resourceTypes.padding;
        }
        break;
      }
      case stateRecords.coloured:
        this.#coloured.delete(colourKey(record.blobType, blob));
        break;
      case stateRecords.packfile:
        this.#listedPackfiles.delete(this.#packfileNumber(toHex(record.packfileMac)));
        break;
      default: // Removal of something this version does not keep.
    }
  }

  #addLocation(body: Uint8Array): void {
    const { blobType, blobMac, packfileMac, offset, length } = locationRecord.read(body);
    if (blobType === resourceTypes.padding) return;
    const packfile = this.#packfileNumber(toHex(packfileMac));
    for (const at of this.#find(blobType, blobMac)) {
      if (this.#packfiles[at] === packfile) return; // An existing location is kept (7.3).
    }
    if (this.#count === this.#types.length) this.#grow();
    const at = this.#count++;
    this.#macs.set(blobMac, at * MAC_BYTES);
    this.#types[at] = blobType;
    this.#packfiles[at] = packfile;
    this.#offsets[at] = offset;
    this.#lengths[at] = length;
    this.#link(at);
    if (blobType === resourceTypes.snapshot) this.#snapshotLocations.push(at);
  }

  *#find(type: number, mac: Uint8Array): Generator<number> {
    if (this.#count === 0) return;
    for (let at = this.#buckets[this.#bucketOf(mac)]!; at >= 0; at = this.#next[at]!) {
      if (this.#types[at] === type && this.#macEquals(at, mac)) yield at;
    }
  }

  #macEquals(at: number, mac: Uint8Array): boolean {
    const start = at * MAC_BYTES;
    for (let i = 0; i < MAC_BYTES; i++) if (this.#macs[start + i] !== mac[i]) return false;
    return true;
  }

  #macAt(at: number): Uint8Array {
    return this.#macs.slice(at * MAC_BYTES, (at + 1) * MAC_BYTES);
  }

  /** MACs are uniformly distributed, but a hostile state may name what it likes: hence all bytes, and a seed of this process. */
  #bucketOf(mac: Uint8Array, from = 0): number {
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
    this.#next = new Int32Array(capacity);
    this.#buckets = new Int32Array(capacity).fill(-1); // A power of two, as the capacity is.
    for (let at = 0; at < this.#count; at++) this.#link(at);
  }

  #packfileNumber(id: string): number {
    let number = this.#packfileNumbers.get(id);
    if (number === undefined) {
      number = this.#packfileIds.push(id) - 1;
      this.#packfileNumbers.set(id, number);
    }
    return number;
  }

  #isColoured(type: number, hex: string): boolean {
    return this.#coloured.has(colourKey(type, hex));
  }
}

const PACKFILE_COLOUR = `${resourceTypes.packfile}:`;

function colourKey(type: number, hex: string): string {
  return `${type}:${hex}`;
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
