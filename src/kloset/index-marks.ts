import type { Column, ReadColumns } from '../cache/columns.ts';
import { MAC_BYTES, toHex } from '../core/mac.ts';
import { colouredRecord, packfileRecord, removeRecord, resourceTypes, stateRecords } from './format.ts';
import { fixedBody, type State } from './state.ts';

/**
 * What merged states say besides locations (kloset-format 7.3): which packfiles there are, and what is marked as
 * deleted. Packfiles have numbers, so that a location needs four bytes for its own.
 */
export class IndexMarks {
  readonly #packfileIds: string[] = [];
  readonly #packfileNumbers = new Map<string, number>();
  /** Packfiles that the packfile table lists; locations elsewhere are dead. */
  readonly #listed = new Set<number>();
  /** When everything that is marked as deleted was marked, milliseconds since 1970; by `type:hex`. */
  readonly #coloured = new Map<string, number>();
  /** Parents that states name and that were not there. */
  readonly #missingParents = new Set<string>();
  readonly #states = new Set<string>();
  /** Of the newest state merged. */
  #newestNanoseconds = -(2n ** 63n);
  /** The packfile asked for last, and its number: records of one packfile follow each other. */
  readonly #lastId = new Uint8Array(MAC_BYTES);
  #lastNumber = -1;

  /** The number of the packfile whose id stands in `bytes` at `at`; a new one for one not met before. */
  packfileNumber(bytes: Uint8Array, at = 0): number {
    if (this.#lastNumber >= 0 && this.#isLast(bytes, at)) return this.#lastNumber;
    const id = toHex(bytes.subarray(at, at + MAC_BYTES));
    let number = this.#packfileNumbers.get(id);
    if (number === undefined) {
      number = this.#packfileIds.push(id) - 1;
      this.#packfileNumbers.set(id, number);
    }
    this.#lastId.set(bytes.subarray(at, at + MAC_BYTES));
    this.#lastNumber = number;
    return number;
  }

  /** Applies a record that is no location's and removes none; others are skipped, as are unknown ones (7.2). */
  apply(type: number, body: Uint8Array): void {
    if (type === stateRecords.coloured) {
      const { resourceType, mac, whenNanoseconds } = colouredRecord.read(fixedBody(body, colouredRecord.sizeBytes));
      this.#coloured.set(colourKey(resourceType, toHex(mac)), Number(whenNanoseconds / 1_000_000n));
    } else if (type === stateRecords.packfile) {
      const { packfileMac } = packfileRecord.read(fixedBody(body, packfileRecord.sizeBytes));
      this.#listed.add(this.packfileNumber(packfileMac));
    } else if (type === stateRecords.remove) {
      const record = removeRecord.read(fixedBody(body, removeRecord.sizeBytes));
      if (record.recordType === stateRecords.coloured) {
        this.#coloured.delete(colourKey(record.blobType, toHex(record.blobMac)));
      } else if (record.recordType === stateRecords.packfile) {
        this.#listed.delete(this.packfileNumber(record.packfileMac));
      }
    }
  }

  /** Notes that a state was merged, after those before it. */
  note({ id, parent, timestampNanoseconds }: State): void {
    this.#states.add(id);
    this.#missingParents.delete(id);
    if (parent !== undefined && !this.#states.has(parent)) this.#missingParents.add(parent);
    if (timestampNanoseconds > this.#newestNanoseconds) this.#newestNanoseconds = timestampNanoseconds;
  }

  /**
   * Whether merging `states` behind those that are merged gives what merging all anew would: if none of them can come
   * before one of those, being older or the parent of one.
   */
  mayFollow(states: readonly State[]): boolean {
    return states.every(
      ({ id, timestampNanoseconds }) => timestampNanoseconds > this.#newestNanoseconds && !this.#missingParents.has(id),
    );
  }

  isListed(packfile: number): boolean {
    return this.#listed.has(packfile);
  }

  packfileId(packfile: number): string {
    return this.#packfileIds[packfile]!;
  }

  isColoured(type: number, hex: string): boolean {
    return this.#coloured.has(colourKey(type, hex));
  }

  /** As BlobIndex has it. */
  deletedAt(id: string): number | undefined {
    return this.#coloured.get(colourKey(resourceTypes.snapshot, id));
  }

  /** As BlobIndex has it. */
  firstPackfileMarkedSince(sinceMs: number): number | undefined {
    let first: number | undefined;
    for (const [key, markedAtMs] of this.#coloured) {
      if (!key.startsWith(PACKFILE_COLOUR) || markedAtMs < sinceMs) continue;
      if (first === undefined || markedAtMs < first) first = markedAtMs;
    }
    return first;
  }

  /** The snapshots among `locations` that are there and not deleted: ids of 32 bytes. */
  liveSnapshots(locations: Iterable<{ readonly mac: Uint8Array; readonly packfile: number }>): Uint8Array[] {
    const ids = new Map<string, Uint8Array>();
    for (const { mac, packfile } of locations) {
      const hex = toHex(mac);
      if (this.isListed(packfile) && !this.isColoured(resourceTypes.snapshot, hex)) ids.set(hex, mac);
    }
    return [...ids.values()];
  }

  /** As columns and plain values, for the cache. */
  toColumns(): { values: MarkValues; columns: Record<string, Column> } {
    const coloured = [...this.#coloured];
    const colours = coloured.map(([key]) => key.split(':') as [string, string]);
    return {
      values: {
        newestNanoseconds: String(this.#newestNanoseconds),
        states: [...this.#states],
        missingParents: [...this.#missingParents],
      },
      columns: {
        packfileIds: new Uint8Array(Buffer.from(this.#packfileIds.join(''), 'hex')),
        listed: Uint32Array.from(this.#listed),
        colouredTypes: Uint32Array.from(colours, ([type]) => Number(type)),
        colouredMacs: new Uint8Array(Buffer.from(colours.map(([, hex]) => hex).join(''), 'hex')),
        colouredMs: Float64Array.from(coloured, ([, markedAtMs]) => markedAtMs),
      },
    };
  }

  static fromColumns(read: ReadColumns): IndexMarks {
    const marks = new IndexMarks();
    const { newestNanoseconds, states, missingParents } = read.values as MarkValues;
    marks.#newestNanoseconds = BigInt(newestNanoseconds);
    for (const id of states) marks.#states.add(id);
    for (const id of missingParents) marks.#missingParents.add(id);
    const ids = read.column('packfileIds', 'u8');
    for (let at = 0; at < ids.length; at += MAC_BYTES) marks.packfileNumber(ids, at);
    for (const packfile of read.column('listed', 'u32')) marks.#listed.add(packfile);
    const macs = read.column('colouredMacs', 'u8');
    const times = read.column('colouredMs', 'f64');
    for (const [i, type] of read.column('colouredTypes', 'u32').entries()) {
      marks.#coloured.set(colourKey(type, toHex(macs.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES))), times[i]!);
    }
    return marks;
  }

  /** Ids of all states that are merged. */
  get states(): ReadonlySet<string> {
    return this.#states;
  }

  #isLast(bytes: Uint8Array, at: number): boolean {
    for (let i = 0; i < MAC_BYTES; i++) if (bytes[at + i] !== this.#lastId[i]) return false;
    return true;
  }
}

/** What is cached besides columns. */
export interface MarkValues {
  readonly newestNanoseconds: string;
  readonly states: readonly string[];
  readonly missingParents: readonly string[];
}

const PACKFILE_COLOUR = `${resourceTypes.packfile}:`;

function colourKey(type: number, hex: string): string {
  return `${type}:${hex}`;
}
