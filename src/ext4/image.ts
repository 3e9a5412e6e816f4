/** A layout as a device: metadata blocks are rendered when they are read, file data comes from the snapshot. */
import { forEachConcurrently } from '../core/concurrency.ts';
import type { Reach, ReadableDevice } from '../core/device.ts';
import { assert } from '../core/errors.ts';
import type { ContentReader } from '../core/snapshot-tree.ts';
import type { StopOptions } from '../core/stop.ts';
import { BLOCK_SIZE, type ByteRange } from '../core/units.ts';
import type { Layout } from './layout.ts';
import { extents, locate, type Place, type PlaceKind } from './locate.ts';
import { BlockRenderer } from './render.ts';

/** Reads of different files under way for one request: a request of 32 MiB can touch 8192 small ones. */
const CONTENT_READS_MAX = 64;

/** Files fetched at once for one request to bring a range closer: what they fetch is bounded elsewhere. */
const FILES_PREFETCHED_MAX = 8;

/** Metadata blocks rendered for one such request: what is kept of them is 8 MiB. */
const BLOCKS_RENDERED_MAX = 2048;

/** Bytes of a file. */
interface FileRange extends ByteRange {
  readonly entry: number;
}

/** What a block of the device is, for logs, metrics and read-ahead. */
export interface BlockDescription {
  readonly kind: PlaceKind;
  /** The entry it belongs to. */
  readonly entry?: number;
  /** Where in the file, directory or journal the block begins, in bytes. */
  readonly offsetBytes?: number;
  /** Blocks from this one on with the same kind and owner. */
  readonly blocks: number;
}

/** Bytes of a file that a request wants. */
interface ContentPiece {
  readonly entry: number;
  readonly offset: number;
  readonly target: Uint8Array;
}

/** Part of a metadata block that takes long to render. */
interface SlowBlock {
  readonly place: Place;
  readonly block: number;
  /** Where in the block the part begins. */
  readonly within: number;
  readonly target: Uint8Array;
}

export class Ext4Image implements ReadableDevice {
  readonly sizeBytes: number;
  readonly layout: Layout;
  /** Entries of `layout.tree`; see `contentEntry` for those that share an inode. */
  readonly content: ContentReader;
  readonly #renderer: BlockRenderer;
  #inFlight = 0;
  #closed = false;
  #idle: (() => void) | undefined;

  /** `content` stays the caller's to close, after this. */
  constructor(layout: Layout, content: ContentReader) {
    this.sizeBytes = layout.sizeBytes;
    this.layout = layout;
    this.content = content;
    this.#renderer = new BlockRenderer(layout);
  }

  async read(offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    this.#assertReadable(offset, target);
    const { pieces, slow } = this.#fillMetadata(offset, target);
    if (pieces.length === 0 && slow.length === 0) return;
    this.#inFlight++;
    try {
      for (const { place, block, within, target: here } of slow) {
        const bytes = await this.#renderer.renderLater(place, block);
        here.set(bytes.subarray(within, within + here.length));
      }
      await this.#readContent(pieces, options);
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) this.#idle?.();
    }
  }

  readNow(offset: number, target: Uint8Array, reach?: Reach): boolean {
    this.#assertReadable(offset, target);
    if (this.content.readNow === undefined) return false;
    const { pieces, slow } = this.#fillMetadata(offset, target);
    if (slow.length > 0) return false;
    for (const piece of pieces) {
      if (!this.content.readNow(piece.entry, piece.offset, piece.target, reach)) return false;
    }
    return true;
  }

  /** Brings the range closer: renders metadata, as much as is kept of it, and has files fetched. Rejects as rendering does. */
  async cache(range: ByteRange, options: StopOptions = {}): Promise<void> {
    this.#inFlight++;
    try {
      await forEachConcurrently(
        this.#fileRanges(range, options),
        FILES_PREFETCHED_MAX,
        async ({ entry, ...within }) => {
          await this.content.prefetch?.(entry, within, options);
        },
      );
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) this.#idle?.();
    }
  }

  /** Renders the metadata of a range on the way to the files in it. */
  async *#fileRanges({ offset, length }: ByteRange, { signal }: StopOptions): AsyncGenerator<FileRange> {
    const end = Math.ceil((offset + length) / BLOCK_SIZE);
    let rendered = 0;
    for (let block = Math.floor(offset / BLOCK_SIZE); block < end && !signal?.aborted; ) {
      const place = locate(this.layout, block);
      const isRun = place.zero || place.kind === 'file';
      const blocks = Math.min(isRun ? place.blocks : 1, end - block);
      if (place.kind === 'file') {
        const at = place.index * BLOCK_SIZE;
        const bytes = Math.min(blocks * BLOCK_SIZE, this.layout.fileSizeOf(place.entry) - at);
        if (bytes > 0) yield { entry: this.layout.numbers.contentEntry(place.entry), offset: at, length: bytes };
      } else if (!place.zero && rendered++ < BLOCKS_RENDERED_MAX) {
        await this.#renderer.renderLater(place, block);
      }
      block += blocks;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        const before = this.#idle;
        this.#idle = () => {
          before?.();
          resolve();
        };
      });
    }
  }

  /** What block number `block` is. */
  describe(block: number): BlockDescription {
    const place = locate(this.layout, block);
    const entry = place.entry < 0 ? {} : { entry: this.layout.numbers.contentEntry(place.entry) };
    const inContent = place.kind === 'file' || place.kind === 'directory' || place.kind === 'journal';
    const offset = inContent ? { offsetBytes: place.index * BLOCK_SIZE } : {};
    return { kind: place.kind, blocks: place.blocks, ...entry, ...offset };
  }

  /** Cuts a range into data and zeroes known as such, in order and without gaps; ends fall on the range's own or on blocks. */
  *extents({ offset, length }: ByteRange): Generator<ByteRange & { readonly zero: boolean }> {
    const end = offset + length;
    for (const extent of extents(this.layout, Math.floor(offset / BLOCK_SIZE), Math.ceil(end / BLOCK_SIZE))) {
      const from = Math.max(offset, extent.block * BLOCK_SIZE);
      const to = Math.min(end, (extent.block + extent.blocks) * BLOCK_SIZE);
      yield { offset: from, length: to - from, zero: extent.zero };
    }
  }

  #assertReadable(offset: number, target: Uint8Array): void {
    assert(!this.#closed, 'the image is open');
    assert(offset >= 0 && offset + target.length <= this.sizeBytes, 'the range lies on the device');
  }

  /** Writes what is there at once, and returns what is still to be read or rendered. */
  #fillMetadata(offset: number, target: Uint8Array): { pieces: ContentPiece[]; slow: SlowBlock[] } {
    const pieces: ContentPiece[] = [];
    const slow: SlowBlock[] = [];
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const block = Math.floor(at / BLOCK_SIZE);
      const within = at - block * BLOCK_SIZE;
      const place = locate(this.layout, block);
      const wholeRun = place.zero || place.kind === 'file';
      const length = Math.min(target.length - done, (wholeRun ? place.blocks : 1) * BLOCK_SIZE - within);
      const here = target.subarray(done, done + length);
      if (place.zero) here.fill(0);
      else if (place.kind === 'file') this.#fillTail(place, within, here, pieces);
      else if (this.#renderer.takesLong(place)) slow.push({ place, block, within, target: here });
      else here.set(this.#renderer.render(place, block).subarray(within, within + length));
      done += length;
    }
    return { pieces, slow };
  }

  /** Zeroes what lies behind a file's end in its last block, and notes the rest. */
  #fillTail(place: Place, within: number, target: Uint8Array, pieces: ContentPiece[]): void {
    const offset = place.index * BLOCK_SIZE + within;
    const length = Math.min(target.length, Math.max(0, this.layout.fileSizeOf(place.entry) - offset));
    target.fill(0, length);
    if (length === 0) return;
    pieces.push({
      entry: this.layout.numbers.contentEntry(place.entry),
      offset,
      target: target.subarray(0, length),
    });
  }

  /** Settles only when nothing writes to the target any more: the caller may reuse it after a failure, too. */
  async #readContent(pieces: readonly ContentPiece[], options: StopOptions | undefined): Promise<void> {
    let next = 0;
    let failure: { cause: unknown } | undefined;
    const readOn = async () => {
      while (next < pieces.length && failure === undefined) {
        const { entry, offset, target } = pieces[next++]!;
        try {
          await this.content.read(entry, offset, target, options);
        } catch (cause) {
          failure ??= { cause };
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(CONTENT_READS_MAX, pieces.length) }, readOn));
    if (failure !== undefined) throw failure.cause;
  }
}
