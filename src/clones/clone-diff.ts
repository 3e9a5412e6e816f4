/** What differs between a clone and its snapshot, by what the blocks are: files by path, the rest summed up. */
import { entryPathBytes, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import type { FrozenOverlay } from '../exports/overlays.ts';
import type { Ext4Image } from '../ext4/image.ts';

/** Bytes of a file, or of a directory's list of names, in whole blocks; the last may reach beyond the file's end. */
export interface ChangedRange {
  readonly offset: number;
  readonly length: number;
  /** Zeroed or trimmed: reads as zeroes. */
  readonly zero: boolean;
}

export interface ChangedPath {
  /** On the disk, beginning with `/`; bytes that are no UTF-8 are replaced, `pathBytes` has them. */
  readonly path: string;
  /** The exact bytes in base64, where `path` is not them. */
  readonly pathBytes?: string;
  readonly type: keyof typeof entryTypes;
  /** Written blocks of its content. */
  readonly dirtyBytes: number;
  readonly ranges: readonly ChangedRange[];
  /** Ranges beyond those listed. */
  readonly moreRanges: number;
  /** Written blocks that hold where its content lies, its attributes or its target. */
  readonly metadataBytes: number;
}

export interface CloneDiff {
  /** Blocks are compared by whether they were written: one that was written with what it held counts. */
  readonly dirtyBytes: number;
  /** Of these, zeroed or trimmed. */
  readonly zeroBytes: number;
  /** Of what the snapshot has, in the order of the disk. */
  readonly paths: readonly ChangedPath[];
  /** Paths beyond those listed. */
  readonly morePaths: number;
  /** Data in what was free space in the snapshot: new files, and files that have grown. Zeroes are left out. */
  readonly newBytes: number;
  /** Written blocks of the filesystem's own: journal, bitmaps, inode tables…, by kind. */
  readonly metadataBytes: Readonly<Record<string, number>>;
}

/** Paths of one diff, and ranges of one path: what is beyond is counted. Keeps an answer below some tens of MiB. */
const PATHS_MAX = 100_000;
const RANGES_MAX = 10_000;

/** How kinds of blocks that belong to no entry are called together. */
const metadataNames: Readonly<Record<string, string>> = {
  superblock: 'superblocks',
  'group-descriptors': 'group descriptors',
  'reserved-descriptors': 'group descriptors',
  'resize-inode': 'group descriptors',
  'block-bitmap': 'bitmaps',
  'inode-bitmap': 'bitmaps',
  'inode-table': 'inode tables',
  'lost-found': 'lost+found',
  'attribute-value': 'attributes',
  'journal-tree': 'journal',
  journal: 'journal',
};

interface PathTotals {
  readonly entry: number;
  dirtyBytes: number;
  metadataBytes: number;
  readonly ranges: { offset: number; length: number; zero: boolean }[];
  moreRanges: number;
}

/** Reads no content. */
export function diffClone(image: Ext4Image, frozen: Pick<FrozenOverlay, 'sizeBytes' | 'changedRanges'>): CloneDiff {
  const paths = new Map<number, PathTotals>();
  const metadataBytes: Record<string, number> = {};
  let morePaths = 0;
  const skipped = new Set<number>();
  const totals = { dirtyBytes: 0, zeroBytes: 0, newBytes: 0 };
  for (const piece of changedPieces(image, frozen)) {
    const { entry, kind, length, zero } = piece;
    totals.dirtyBytes += length;
    if (zero) totals.zeroBytes += length;
    if (kind === 'free') {
      if (!zero) totals.newBytes += length;
    } else if (entry === undefined) {
      const name = metadataNames[kind] ?? kind;
      metadataBytes[name] = (metadataBytes[name] ?? 0) + length;
    } else {
      const known = paths.get(entry);
      if (known === undefined && paths.size === PATHS_MAX) {
        if (!skipped.has(entry)) morePaths++;
        skipped.add(entry);
        continue;
      }
      const path = known ?? { entry, dirtyBytes: 0, metadataBytes: 0, ranges: [], moreRanges: 0 };
      paths.set(entry, path);
      addToPath(path, piece);
    }
  }
  const { tree } = image.layout;
  return { ...totals, morePaths, metadataBytes, paths: [...paths.values()].map((path) => describePath(tree, path)) };
}

/** Changed blocks of one kind and owner. */
interface Piece {
  readonly kind: string;
  readonly entry: number | undefined;
  readonly offsetBytes: number | undefined;
  readonly length: number;
  readonly zero: boolean;
}

function* changedPieces(
  image: Ext4Image,
  frozen: Pick<FrozenOverlay, 'sizeBytes' | 'changedRanges'>,
): Generator<Piece> {
  for (const { offset, length, state } of frozen.changedRanges({ offset: 0, length: frozen.sizeBytes })) {
    if (state === 'clean') continue;
    for (let done = 0; done < length; ) {
      const { kind, entry, offsetBytes, blocks } = image.describe((offset + done) / BLOCK_SIZE);
      const bytes = Math.min(blocks * BLOCK_SIZE, length - done);
      yield { kind, entry, offsetBytes, length: bytes, zero: state === 'zero' };
      done += bytes;
    }
  }
}

function addToPath(path: PathTotals, { kind, offsetBytes, length, zero }: Piece): void {
  if (offsetBytes === undefined || (kind !== 'file' && kind !== 'directory')) {
    path.metadataBytes += length;
    return;
  }
  path.dirtyBytes += length;
  const last = path.ranges.at(-1);
  if (last !== undefined && last.zero === zero && last.offset + last.length === offsetBytes) last.length += length;
  else if (path.ranges.length < RANGES_MAX) path.ranges.push({ offset: offsetBytes, length, zero });
  else path.moreRanges++;
}

function describePath(tree: SnapshotTree, { entry, ...totals }: PathTotals): ChangedPath {
  const bytes = Buffer.from(entryPathBytes(tree, entry));
  const path = bytes.toString();
  const isExact = Buffer.from(path).equals(bytes);
  const types = Object.keys(entryTypes) as (keyof typeof entryTypes)[];
  const type = types.find((name) => entryTypes[name] === tree.type[entry])!;
  return { path, ...(isExact ? {} : { pathBytes: bytes.toString('base64') }), type, ...totals };
}
