/** Whether reads follow each other: one reader's place in the files, as far as its requests tell. */
import { KiB, MiB } from '../core/units.ts';

/** What a client reads of a file. */
export interface TouchedRange {
  readonly entry: number;
  /** Bytes of the file, `end` not included. */
  readonly offset: number;
  readonly end: number;
}

/** The files of a disk in its order. */
export interface FileOrder {
  sizeOf(entry: number): number;
  /** The file whose content comes behind that of `entry`; undefined if there is none near. */
  nextFile(entry: number): number | undefined;
}

/**
 * Requests of so many bytes come from clients that read ahead themselves, several at once, so they may arrive out of
 * order. Smaller ones must touch: two reads of a page are near each other by chance all the time.
 */
const LARGE_REQUEST_BYTES = 64 * KiB;

/** How far a large request may lie beyond the place where the last one ended: in its own lengths, and bytes at most. */
const GAP_REQUESTS_MAX = 8;
const GAP_BYTES_MAX = 16 * MiB;

/** How far behind the furthest request one may arrive: 64 requests of 256 KiB are what nbdcopy has under way. */
const LATE_BYTES_MAX = 16 * MiB;

export class Sequence {
  readonly files: FileOrder;
  entry: number;
  /** Where the furthest request ended. */
  end: number;
  /** It went from the end of a file to the beginning of the next one. */
  hasCrossed = false;
  /** Bytes read since the first request, and bytes that they lie within. */
  #readBytes = 0;
  #spanBytes = 0;

  constructor(files: FileOrder, { entry, end }: TouchedRange) {
    this.files = files;
    this.entry = entry;
    this.end = end;
  }

  /** Bytes that were read one after another; 0 as long as there are more gaps than bytes. */
  get steadyBytes(): number {
    return this.#readBytes * 2 >= this.#spanBytes ? this.#readBytes : 0;
  }

  get isAtEnd(): boolean {
    return this.end >= this.files.sizeOf(this.entry);
  }

  /** Takes the range in if it goes on here, or belongs to what has been passed just now. */
  follow(files: FileOrder, range: TouchedRange): boolean {
    if (files !== this.files) return false;
    if (range.entry !== this.entry) return this.#cross(range);
    const length = range.end - range.offset;
    if (range.end <= this.end) return this.#isLate(range, length);
    const gap = range.offset - this.end;
    const gapMax = length < LARGE_REQUEST_BYTES ? 0 : Math.min(GAP_BYTES_MAX, GAP_REQUESTS_MAX * length);
    if (gap > gapMax || gap < -LATE_BYTES_MAX) return false;
    this.#readBytes += gap > 0 ? length : length + gap;
    this.#spanBytes += length + gap;
    this.end = range.end;
    return true;
  }

  #isLate({ offset }: TouchedRange, length: number): boolean {
    if (offset < this.end - Math.min(LATE_BYTES_MAX, this.#spanBytes)) return false;
    if (length >= LARGE_REQUEST_BYTES) this.#readBytes = Math.min(this.#spanBytes, this.#readBytes + length);
    return true;
  }

  #cross({ entry, offset, end }: TouchedRange): boolean {
    if (offset !== 0 || entry < this.entry || !this.isAtEnd || this.files.nextFile(this.entry) !== entry) return false;
    this.entry = entry;
    this.end = end;
    this.#readBytes += end;
    this.#spanBytes += end;
    this.hasCrossed = true;
    return true;
  }
}
