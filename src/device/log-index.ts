/** What the log says, in memory: which place each block has, and how much of each segment still counts. */
import { assert, OverlayError } from '../core/errors.ts';
import { BlockMap, isZeroValue, ZERO_FLAG } from './block-map.ts';
import { type BlockChecksums, type BlockForm, entryKinds, SEGMENT_BLOCKS_MAX, SEGMENTS_MAX } from './log-format.ts';
import type { IndexWords, LogEntry } from './log-tables.ts';
import { RunCollector } from './run-collector.ts';
import type { SegmentCipher } from './segment-cipher.ts';

/**
 * Entries collected at least before the map is built from them, 48 MB. More are collected while the map is larger, so
 * that building it again and again costs no more than building it twice.
 */
const COLLECTED_MIN = 2 ** 22;

/** Places a segment's index takes up: a place is slot * PLACES + the block's ordinal in the segment. */
const PLACES = SEGMENT_BLOCKS_MAX + 1;

/** One segment. 8 bytes of memory for each block of data it was given, dead or alive. */
export class Segment {
  /** From its file name; rises for ever. */
  readonly number: number;
  readonly #blockBytes: number;
  /** Its row in the index; used again when it is gone. */
  readonly slot: number;
  /** Bytes of its records: where the next one goes, or where they end. */
  endBytes = 0;
  /** Of its blocks of data, and blocks zeroed by its entries, those that are still the latest. */
  liveData = 0;
  liveZero = 0;
  /** No record will be added. */
  complete = false;
  /** Damage was found in it: it stays where it is, as evidence and because moving would need its bytes. */
  damaged = false;
  /** Position in the file, and checksum, of each block of data in the order they came. */
  readonly positions = new WordList();
  readonly checksums = new WordList();
  /** Of an encrypted log. */
  cipher: SegmentCipher | undefined;
  /** Entries for the INDEX record; only while the segment grows. */
  entries: WordList | undefined;

  constructor(number: number, slot: number, blockBytes: number) {
    this.number = number;
    this.slot = slot;
    this.#blockBytes = blockBytes;
  }

  get dead(): boolean {
    return this.liveData === 0 && this.liveZero === 0;
  }

  /** Of its data, as it is stored. */
  get liveBytes(): number {
    return this.liveData * this.#blockBytes;
  }

  get deadBytes(): number {
    return Math.max(0, this.endBytes - this.liveBytes);
  }
}

/** A growing list of 32-bit numbers. */
export class WordList {
  #words = new Uint32Array(16);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  at(index: number): number {
    return this.#words[index]!;
  }

  push(word: number): void {
    this.#reserve(1);
    this.#words[this.#length++] = word;
  }

  append(words: Uint32Array): void {
    this.#reserve(words.length);
    this.#words.set(words, this.#length);
    this.#length += words.length;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#words.length) return;
    const larger = new Uint32Array(Math.max(this.#words.length * 2, this.#length + count));
    larger.set(this.#words);
    this.#words = larger;
  }

  /** A view: valid until the next push. */
  view(): Uint32Array {
    return this.#words.subarray(0, this.#length);
  }
}

export class LogIndex {
  readonly blockBytes: number;
  readonly checksumsOf: BlockChecksums;
  #map = new BlockMap();
  /** Entries that are not yet in the map; undefined once the log is open. */
  #collected: RunCollector | undefined = new RunCollector();
  readonly #rows: (Segment | undefined)[] = [];
  readonly #freeRows: number[] = [];
  readonly #segments = new Map<number, Segment>();
  /** Bytes of the records of complete segments, and the others. */
  #completeBytes = 0;
  readonly #growing = new Set<Segment>();
  /** Complete segments that nothing needs any more, apart from the DROP that says so. */
  readonly dead = new Set<Segment>();

  constructor({ blockBytes, checksumsOf }: BlockForm) {
    this.blockBytes = blockBytes;
    this.checksumsOf = checksumsOf;
  }

  /** Nothing is in it before `endRecovery`. */
  get map(): BlockMap {
    return this.#map;
  }

  /** Oldest first. */
  get segments(): Iterable<Segment> {
    return this.#segments.values();
  }

  /** Bytes of all records. */
  get storedBytes(): number {
    let bytes = this.#completeBytes;
    for (const { endBytes } of this.#growing) bytes += endBytes;
    return bytes;
  }

  /** Segments must be added in ascending order. */
  addSegment(number: number): Segment {
    const slot = this.#freeRows.pop() ?? this.#rows.length;
    if (slot >= SEGMENTS_MAX) throw new OverlayError('the overlay has its largest size', { reason: 'full' });
    const segment = new Segment(number, slot, this.blockBytes);
    this.#rows[slot] = segment;
    this.#segments.set(number, segment);
    this.#growing.add(segment);
    return segment;
  }

  /** The dead segment is no longer part of the log. Requests in flight may know places in it until `freeRow`. */
  forget(segment: Segment): void {
    assert(segment.dead, 'a segment in use is not removed');
    if (this.#segments.delete(segment.number) && !this.#growing.delete(segment))
      this.#completeBytes -= segment.endBytes;
    this.dead.delete(segment);
  }

  /** No record will be added to the segment. */
  complete(segment: Segment): void {
    segment.complete = true;
    if (this.#growing.delete(segment)) this.#completeBytes += segment.endBytes;
    segment.entries = undefined;
    if (segment.dead) this.dead.add(segment);
  }

  /** Everything a log being opened has to say has landed: builds the map. From now on entries go to it one by one. */
  endRecovery(): void {
    this.#buildMap();
    this.#collected = undefined;
  }

  /** Builds the map from its runs, the oldest, and the collected entries; counts again what is alive. */
  #buildMap(): void {
    const entries = this.#collected;
    if (entries === undefined || entries.length === 0) return;
    let collected = entries;
    if (this.#map.runCount > 0) {
      const merged = new RunCollector();
      const copy = (first: number, count: number, value: number) => merged.add(first, count, value);
      collected = merged;
      this.#map.forEach(copy);
      entries.forEach(copy);
    }
    const map = new BlockMap();
    for (const segment of this.#segments.values()) segment.liveData = segment.liveZero = 0;
    collected.resolve((first, count, value) => {
      map.append(first, count, value);
      const slot = isZeroValue(value) ? value - ZERO_FLAG : Math.floor(value / PLACES);
      const segment = this.#rows[slot]!;
      if (isZeroValue(value)) segment.liveZero += count;
      else segment.liveData += count;
    });
    this.#map = map;
    this.#collected = new RunCollector();
  }

  /** Lets another segment have the row of a forgotten one. */
  freeRow(segment: Segment): void {
    this.#rows[segment.slot] = undefined;
    this.#freeRows.push(segment.slot);
  }

  /** Applies entries of `segment` in order; `checksums` belong to their blocks of data. */
  land(segment: Segment, entries: readonly LogEntry[], checksums: Uint32Array): void {
    assert(
      segment.positions.length + checksums.length <= SEGMENT_BLOCKS_MAX,
      'a segment holds no more than its places',
    );
    segment.checksums.append(checksums);
    const { positions } = segment;
    for (const { block, count, position } of entries) {
      if (position === undefined) {
        this.#set(segment, block, count, ZERO_FLAG + segment.slot);
        continue;
      }
      const ordinal = positions.length;
      for (let at = 0; at < count; at++) positions.push(position + at * this.blockBytes);
      this.#set(segment, block, count, segment.slot * PLACES + ordinal);
    }
  }

  /** Applies a whole segment's INDEX, without an object an entry. */
  landIndex(segment: Segment, { words, checksums }: IndexWords): void {
    assert(segment.positions.length === 0 && checksums.length <= SEGMENT_BLOCKS_MAX, 'an INDEX is of a whole segment');
    segment.checksums.append(checksums);
    const positions = new Uint32Array(checksums.length);
    const firstPlace = segment.slot * PLACES;
    let ordinal = 0;
    for (let at = 0; at < words.length; at += 4) {
      const [block, count] = [words[at]!, words[at + 1]!];
      if (words[at + 2] !== entryKinds.data) {
        this.#set(segment, block, count, ZERO_FLAG + segment.slot);
        continue;
      }
      this.#set(segment, block, count, firstPlace + ordinal);
      const position = words[at + 3]!;
      for (let i = 0; i < count; i++) positions[ordinal++] = position + i * this.blockBytes;
    }
    segment.positions.append(positions);
  }

  #set(segment: Segment, block: number, count: number, value: number): void {
    const collected = this.#collected;
    if (collected !== undefined) {
      collected.add(block, count, value);
      if (collected.length >= Math.max(COLLECTED_MIN, this.#map.runCount)) this.#buildMap();
      return;
    }
    this.#map.set(block, count, value, this.#replaced);
    if (isZeroValue(value)) segment.liveZero += count;
    else segment.liveData += count;
  }

  /** Remembers entries for the INDEX of a segment that grows. */
  note(segment: Segment, entries: readonly LogEntry[]): void {
    const words = new Uint32Array(entries.length * 4);
    entries.forEach(({ block, count, position }, index) => {
      const kind = position === undefined ? entryKinds.zero : entryKinds.data;
      words.set([block, count, kind, position ?? 0], index * 4);
    });
    segment.entries?.append(words);
  }

  /** The segment a value of the map leads to, and for data which of its blocks. */
  locate(value: number): { segment: Segment; ordinal: number } {
    const slot = isZeroValue(value) ? value - ZERO_FLAG : Math.floor(value / PLACES);
    const segment = this.#rows[slot];
    assert(segment !== undefined, 'the block map names a segment that exists');
    return { segment, ordinal: isZeroValue(value) ? 0 : value % PLACES };
  }

  /** The value that block `ordinal` of a segment has in the map, or its zeroed blocks for undefined. */
  valueOf(segment: Segment, ordinal: number | undefined): number {
    return ordinal === undefined ? ZERO_FLAG + segment.slot : segment.slot * PLACES + ordinal;
  }

  readonly #replaced = (value: number, blocks: number): void => {
    const slot = isZeroValue(value) ? value - ZERO_FLAG : Math.floor(value / PLACES);
    const segment = this.#rows[slot]!;
    if (isZeroValue(value)) segment.liveZero -= blocks;
    else segment.liveData -= blocks;
    if (segment.complete && segment.dead) this.dead.add(segment);
  };
}
