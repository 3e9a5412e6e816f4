/**
 * Renders any metadata block of a layout, with bounded caches; file content never passes here. All but the blocks of very
 * large directories are there at once.
 */
import { assert } from '../core/errors.ts';
import { BLOCK_SIZE, KiB, MiB } from '../core/units.ts';
import { renderAttributeBlock } from './attributes.ts';
import { renderBlockBitmap, renderInodeBitmap } from './bitmaps.ts';
import { ByteCache } from './cache.ts';
import {
  type DirectoryFrame,
  renderEmptyDirectoryBlock,
  renderIndexedDirectory,
  renderSmallDirectory,
} from './directory.ts';
import {
  type DirectoryIndex,
  type IndexOptions,
  indexDirectory,
  indexDirectoryInSlices,
  indexSizeBytes,
} from './directory-index.ts';
import { type DirectoryShape, indexedShape, LEAF_BYTES } from './directory-shape.ts';
import { renderExtentBlock } from './extents.ts';
import { fileTypes, inodeNumbers, SUPERBLOCK_OFFSET } from './format.ts';
import { GroupDescriptors } from './group-descriptors.ts';
import { renderInodeBlock } from './inode.ts';
import type { Layout } from './layout.ts';
import type { Place, PlaceKind } from './locate.ts';
import { type NameTable, recordBytes } from './names.ts';
import {
  renderJournalSuperblock,
  renderReservedDescriptors,
  renderResizeBlock,
  renderSuperblock,
} from './superblock.ts';

/** Rendered blocks kept for unaligned and repeated reads; the client's own cache does the rest. */
const BLOCK_CACHE_BYTES_MAX = 8 * MiB;
/** Hashed directories kept in order: a million names take 4 MiB. */
const DIRECTORY_CACHE_BYTES_MAX = 64 * MiB;
/** Larger directories are hashed in slices: these take some ten milliseconds. */
const NAMES_AT_ONCE_MAX = 10_000;
/** Objects and map slots around a cached value. */
const CACHE_OVERHEAD_BYTES = KiB;

/** A large directory, ready to render any of its blocks. */
interface IndexedDirectory {
  readonly names: NameTable;
  readonly shape: DirectoryShape;
  readonly index: DirectoryIndex;
}

/** Writes one block, `block` on the device, over zeroes. */
type Renderer = (place: Place, target: Uint8Array, block: number) => void;

export class BlockRenderer {
  readonly #layout: Layout;
  readonly #renderers: Readonly<Record<Exclude<PlaceKind, 'file' | 'free'>, Renderer>>;
  readonly #blocks = new ByteCache<Uint8Array>({
    bytesMax: BLOCK_CACHE_BYTES_MAX,
    sizeOf: (block) => block.byteLength + CACHE_OVERHEAD_BYTES,
  });
  readonly #directories = new ByteCache<IndexedDirectory>({
    bytesMax: DIRECTORY_CACHE_BYTES_MAX,
    sizeOf: ({ names, index }) => names.start.byteLength + indexSizeBytes(index) + CACHE_OVERHEAD_BYTES,
  });

  /** Large directories being hashed, by entry. */
  readonly #indexing = new Map<number, Promise<IndexedDirectory>>();

  constructor(layout: Layout) {
    this.#layout = layout;
    const { geometry } = layout;
    const descriptors = new GroupDescriptors(layout);
    this.#renderers = {
      // The first block begins with room for a boot sector; a backup begins with its superblock.
      superblock: ({ index }, target) =>
        target.set(renderSuperblock(layout, index), index === 0 ? SUPERBLOCK_OFFSET : 0),
      'group-descriptors': ({ index }, target) => descriptors.render(index, target),
      'reserved-descriptors': ({ index }, target) => renderReservedDescriptors(geometry, index, target),
      'block-bitmap': ({ index }, target) => renderBlockBitmap(geometry, index, target),
      'inode-bitmap': ({ index }, target) => renderInodeBitmap(geometry, index, layout.lastInode, target),
      'inode-table': ({ index }, target) => renderInodeBlock(layout, index, target),
      'resize-inode': (_, target) => renderResizeBlock(geometry, target),
      'extent-tree': ({ entry, index }, target) => this.#renderEntryExtents(entry, index, target),
      directory: ({ entry, index }, target) => this.#renderDirectory(entry, index, target),
      symlink: ({ entry }, target) => target.set(layout.linkTargetOf(entry)),
      attributes: ({ entry }, target, block) => this.#renderAttributes(entry, block, target),
      'lost-found': ({ index }, target) => this.#renderLostFound(index, target),
      'attribute-value': ({ index }, target) => this.#renderValue(index, target),
      'journal-tree': ({ index }, target) =>
        renderExtentBlock(layout.journalExtents(), index, layout.inodeSeed(inodeNumbers.journal), target),
      journal: (_, target) => renderJournalSuperblock(layout, target),
    };
  }

  /**
   * Whether a block needs a directory hashed that is too large for `render`, which would keep everything else waiting:
   * then `renderLater` it.
   */
  takesLong({ kind, entry }: Place): boolean {
    return (
      kind === 'directory' && this.#layout.tree.childCount[entry]! > NAMES_AT_ONCE_MAX && !this.#directories.has(entry)
    );
  }

  /** As `render`, for blocks that take long; those who want the same directory wait for it together. */
  async renderLater(place: Place, block: number): Promise<Uint8Array> {
    if (!this.takesLong(place)) return this.render(place, block);
    const { entry } = place;
    let indexing = this.#indexing.get(entry);
    if (indexing === undefined) {
      indexing = indexNamesInSlices(this.#layout, entry);
      this.#indexing.set(entry, indexing);
      const done = () => void this.#indexing.delete(entry);
      indexing.then(done, done);
    }
    const directory = await indexing;
    // Kept as the newest until this very block is rendered, however large it is.
    this.#directories.get(entry, () => directory);
    return this.render(place, block);
  }

  /** The block `block` of the device, which is the first of `place`. Shared with the cache: read, never write. */
  render(place: Place, block: number): Uint8Array {
    const { kind } = place;
    assert(kind !== 'file' && !place.zero && kind !== 'free', 'only metadata is rendered');
    return this.#blocks.get(block, () => {
      const target = new Uint8Array(BLOCK_SIZE);
      this.#renderers[kind](place, target, block);
      return target;
    });
  }

  #renderEntryExtents(entry: number, index: number, target: Uint8Array): void {
    const layout = this.#layout;
    const plan = layout.extentsOf(entry, layout.attributesOf(entry));
    renderExtentBlock(plan, index, layout.inodeSeed(layout.numbers.inodeOf(entry)), target);
  }

  #renderAttributes(entry: number, block: number, target: Uint8Array): void {
    const layout = this.#layout;
    const plan = layout.attributesOf(entry);
    const firstValueInode = plan.outside.length > 0 ? layout.numbers.entriesEnd + layout.firstValueOf(entry) : 0;
    renderAttributeBlock(plan, { seed: layout.checksumSeed, block, firstValueInode }, target);
  }

  #renderValue(index: number, target: Uint8Array): void {
    const { starts } = this.#layout.values;
    const value = starts.findLastIndex((start) => start <= index);
    const offset = (index - starts[value]!) * BLOCK_SIZE;
    target.set(this.#layout.valueBytes(value).subarray(offset, offset + BLOCK_SIZE));
  }

  #renderLostFound(index: number, target: Uint8Array): void {
    const inode = inodeNumbers.firstFree;
    const inodeSeed = this.#layout.inodeSeed(inode);
    if (index > 0) {
      renderEmptyDirectoryBlock(inodeSeed, target);
      return;
    }
    const noNames: NameTable = { bytes: new Uint8Array(0), start: new Float64Array(1), count: 0 };
    const frame: DirectoryFrame = {
      inodeSeed,
      inode,
      parentInode: inodeNumbers.root,
      inodeOf: () => 0,
      fileTypeOf: () => 0,
    };
    renderSmallDirectory(frame, noNames, target);
  }

  #renderDirectory(entry: number, index: number, target: Uint8Array): void {
    const layout = this.#layout;
    const frame = directoryFrame(layout, entry);
    const { contentBlocks } = layout.metadataOf(entry, layout.attributesOf(entry));
    if (contentBlocks === 1) {
      renderSmallDirectory(frame, layout.namesOf(entry), target);
      return;
    }
    const directory = this.#directories.get(entry, () => indexNames(layout, entry));
    renderIndexedDirectory(frame, directory.names, { ...directory, block: index }, target);
  }
}

function indexNames(layout: Layout, entry: number): IndexedDirectory {
  const { names, shape, options } = indexTask(layout, entry);
  return { names, shape, index: indexDirectory(names, options) };
}

async function indexNamesInSlices(layout: Layout, entry: number): Promise<IndexedDirectory> {
  const { names, shape, options } = indexTask(layout, entry);
  return { names, shape, index: await indexDirectoryInSlices(names, options) };
}

function indexTask(layout: Layout, entry: number): Omit<IndexedDirectory, 'index'> & { options: IndexOptions } {
  const names = layout.namesOf(entry);
  let recordBytesSum = 0;
  for (let k = 0; k < names.count; k++) recordBytesSum += recordBytes(names.start[k + 1]! - names.start[k]!);
  const shape = indexedShape(recordBytesSum);
  assert(shape !== undefined, 'a directory of several blocks is indexed');
  return { names, shape, options: { seed: layout.hashSeed, leaves: shape.leaves, leafBytes: LEAF_BYTES } };
}

/** By entryTypes' values. */
const fileTypeOfEntry = [
  fileTypes.directory,
  fileTypes.file,
  fileTypes.symlink,
  fileTypes.fifo,
  fileTypes.socket,
  fileTypes.characterDevice,
  fileTypes.blockDevice,
] as const;

function directoryFrame(layout: Layout, entry: number): DirectoryFrame {
  const { tree, numbers } = layout;
  const first = tree.firstChild[entry]!;
  const lostFound = entry === 0 && layout.addLostFound ? tree.childCount[entry]! : -1;
  const inode = numbers.inodeOf(entry);
  return {
    inodeSeed: layout.inodeSeed(inode),
    inode,
    parentInode: numbers.inodeOf(tree.parent[entry]!),
    inodeOf: (name) => (name === lostFound ? inodeNumbers.firstFree : numbers.inodeOf(first + name)),
    fileTypeOf: (name) => (name === lostFound ? fileTypes.directory : fileTypeOfEntry[layout.typeOf(first + name)]),
  };
}
