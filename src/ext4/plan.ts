/**
 * From a tree to a layout: a few passes over the columns, no object an entry. Per entry it keeps 12 bytes (two prefix
 * sums); everything else is recomputed from the tree when a block is read.
 */
import { entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { hasUserAttribute, planAttributes } from './attributes.ts';
import type { DenseMap } from './dense-map.ts';
import { DirectoryCounter } from './directory-counter.ts';
import { directoryBlocks, indexedShape } from './directory-shape.ts';
import { TREELESS_BLOCKS_MAX, treeBlocksAt } from './extents.ts';
import { FILE_BYTES_MAX } from './format.ts';
import { type Demand, type Geometry, solveGeometry } from './geometry.ts';
import { InodeNumbers } from './inode-numbers.ts';
import {
  isIdShowable,
  isTargetShowable,
  isTimeMistaken,
  isTimeShowable,
  Layout,
  LOST_FOUND_BLOCKS,
  shownTarget,
  symlinkBlocks,
  type ValueInodes,
  valueBlocks,
} from './layout.ts';
import { findLostFound, lostFoundName, recordBytes, repairNames } from './names.ts';
import {
  LAYOUT_VERSION,
  type LayoutChoices,
  type LayoutRequest,
  PERMISSION_BITS,
  resolveChoices,
  resolveUuid,
  type SnapshotIdentity,
  UNMISTAKEN_TIMES_VERSION,
} from './parameters.ts';
import { WarningCollector } from './warnings.ts';

export interface PlanOptions {
  /** The version an overlay was made with. Default: the newest. */
  readonly layoutVersion?: number | undefined;
  /** Warnings name every entry concerned, not only the first. */
  readonly everyExample?: boolean | undefined;
}

/**
 * Plans the filesystem for a tree. Throws UserError for a request that cannot be met, UnsupportedError for a layout
 * version that this release does not make.
 */
export function planLayout(
  tree: SnapshotTree,
  request: LayoutRequest,
  identity: SnapshotIdentity,
  { layoutVersion = LAYOUT_VERSION, everyExample = false }: PlanOptions = {},
): Layout {
  const choices = resolveChoices(request, identity, layoutVersion);
  const survey = surveyTree(tree, layoutVersion, new WarningCollector({ everyExample }));
  const demand = demandOf(tree, survey, choices);
  return assemble(tree, survey, choices, solveGeometry(demand, request), request.uuid);
}

/** All that is known of a tree before it has a place. */
interface Survey {
  readonly numbers: InodeNumbers;
  readonly directories: DirectoryCounter;
  readonly renamed: ReadonlyMap<number, Uint8Array>;
  readonly addLostFound: boolean;
  readonly metadataStarts: Uint32Array;
  /** Data blocks before entry i, extent trees not counted yet. */
  readonly dataStarts: Float64Array;
  /** Files that may need an extent tree outside their inode, ascending. */
  readonly bigFiles: readonly number[];
  readonly values: ValueInodes;
  readonly largeDirectories: boolean;
  readonly warnings: WarningCollector;
}

function surveyTree(tree: SnapshotTree, layoutVersion: number, warnings: WarningCollector): Survey {
  const lostFound = findLostFound(tree);
  const addLostFound = lostFound === -1 || tree.type[lostFound] !== entryTypes.directory;
  const renamed = repairNames(tree, warnings);
  const numbers = new InodeNumbers(tree, { ownLostFound: !addLostFound, warnings });
  checkEntries(tree, numbers, warnings);
  if (layoutVersion >= UNMISTAKEN_TIMES_VERSION) checkTimes(tree, warnings);
  const metadataStarts = new Uint32Array(tree.length + 1);
  const values = countAttributes(tree, numbers, metadataStarts, warnings);
  const largeDirectories = countDirectories(tree, { renamed, addLostFound }, metadataStarts);
  countSymlinks(tree, numbers, metadataStarts);
  for (let entry = 0; entry < tree.length; entry++) metadataStarts[entry + 1]! += metadataStarts[entry]!;
  return {
    numbers,
    directories: new DirectoryCounter(tree.type),
    renamed,
    addLostFound,
    metadataStarts,
    ...countData(tree, numbers),
    values,
    largeDirectories,
    warnings,
  };
}

/** Counts what the columns hold that cannot be shown as it is. */
function checkEntries(tree: SnapshotTree, numbers: InodeNumbers, warnings: WarningCollector): void {
  const { type, uid, gid, mtimeSeconds, sizeBytes } = tree;
  for (let entry = 0; entry < tree.length; entry++) {
    if (!isTimeShowable(mtimeSeconds[entry]!)) warnings.add('time-clamped', entry);
    if (!isIdShowable(uid[entry]!) || !isIdShowable(gid[entry]!)) warnings.add('owner-too-large', entry);
    const kind = type[entry];
    if (kind === entryTypes.file) {
      if (sizeBytes[entry]! > FILE_BYTES_MAX) warnings.add('file-too-large', entry);
    } else if (kind === entryTypes.characterDevice || kind === entryTypes.blockDevice) {
      if (!numbers.isExtraName(entry)) warnings.add('device-number-unknown', entry);
    } else if (kind === entryTypes.symlink) {
      if (!isTargetShowable(tree.linkTarget.get(entry))) warnings.add('link-target-unshowable', entry);
    }
  }
}

function checkTimes({ length, mtimeSeconds }: SnapshotTree, warnings: WarningCollector): void {
  for (let entry = 0; entry < length; entry++) {
    if (isTimeMistaken(mtimeSeconds[entry]!)) warnings.add('time-mistaken', entry);
  }
}

/** Adds an entry's attribute block to `counts` (at entry + 1), and gathers the values that need an inode. */
function countAttributes(
  tree: SnapshotTree,
  numbers: InodeNumbers,
  counts: Uint32Array,
  warnings: WarningCollector,
): ValueInodes {
  const long: { entry: number; length: number }[] = [];
  for (const [entry, attributes] of tree.attributes) {
    if (numbers.isExtraName(entry)) continue;
    // Which permission bits an access control list keeps changes no length.
    const plan = planAttributes(attributes, PERMISSION_BITS, (kind) => warnings.add(kind, entry));
    if (tree.type[entry] !== entryTypes.file && tree.type[entry] !== entryTypes.directory && hasUserAttribute(plan)) {
      warnings.add('attribute-unreadable', entry);
    }
    if (plan.block.length > 0) counts[entry + 1]!++;
    for (const { value } of plan.outside) long.push({ entry, length: value.length });
  }
  // A stable sort: values of one entry keep their plan's order.
  long.sort((a, b) => a.entry - b.entry);
  const starts = [0];
  for (const { length } of long) starts.push(starts.at(-1)! + valueBlocks(length));
  return { entries: long.map(({ entry }) => entry), lengths: long.map(({ length }) => length), starts };
}

/** Adds the directories' blocks to `counts` (at entry + 1). Returns whether any needs the feature largedir. */
function countDirectories(
  tree: SnapshotTree,
  { renamed, addLostFound }: { renamed: ReadonlyMap<number, Uint8Array>; addLostFound: boolean },
  counts: Uint32Array,
): boolean {
  const { type, firstChild, childCount, nameStart } = tree;
  // Renamed entries are rare: their difference is taken off in advance, so that the pass over all names stays plain.
  const corrections = new Map<number, number>();
  for (const [entry, name] of renamed) {
    const difference = recordBytes(name.length) - recordBytes(nameStart[entry + 1]! - nameStart[entry]!);
    corrections.set(tree.parent[entry]!, (corrections.get(tree.parent[entry]!) ?? 0) + difference);
  }
  let large = false;
  for (let entry = 0; entry < tree.length; entry++) {
    if (type[entry] !== entryTypes.directory) continue;
    let sum = corrections.get(entry) ?? 0;
    if (entry === 0 && addLostFound) sum += recordBytes(lostFoundName.length);
    const end = firstChild[entry]! + childCount[entry]!;
    for (let child = firstChild[entry]!; child < end; child++)
      sum += recordBytes(nameStart[child + 1]! - nameStart[child]!);
    const blocks = directoryBlocks(sum);
    counts[entry + 1]! += blocks + (blocks > TREELESS_BLOCKS_MAX ? 1 : 0);
    if (blocks > TREELESS_BLOCKS_MAX) large ||= indexedShape(sum)!.nodes.length > 1;
  }
  return large;
}

function countSymlinks(tree: SnapshotTree, numbers: InodeNumbers, counts: Uint32Array): void {
  for (const [entry, target] of tree.linkTarget) {
    if (tree.type[entry] !== entryTypes.symlink || numbers.isExtraName(entry)) continue;
    counts[entry + 1]! += symlinkBlocks(shownTarget(target));
  }
}

function countData(tree: SnapshotTree, numbers: InodeNumbers): { dataStarts: Float64Array; bigFiles: number[] } {
  const dataStarts = new Float64Array(tree.length + 1);
  const bigFiles: number[] = [];
  const linked = tree.sameInodeAs.size > 0;
  let blocksBefore = 0;
  for (let entry = 0; entry < tree.length; entry++) {
    dataStarts[entry] = blocksBefore;
    const size = tree.sizeBytes[entry]!;
    if (size === 0 || tree.type[entry] !== entryTypes.file || (linked && numbers.isExtraName(entry))) continue;
    const blocks = Math.ceil(Math.min(size, FILE_BYTES_MAX) / BLOCK_SIZE);
    if (blocks > TREELESS_BLOCKS_MAX) bigFiles.push(entry);
    blocksBefore += blocks;
  }
  dataStarts[tree.length] = blocksBefore;
  return { dataStarts, bigFiles };
}

function demandOf(tree: SnapshotTree, survey: Survey, choices: LayoutChoices): Demand {
  const lostFound = survey.addLostFound ? LOST_FOUND_BLOCKS : 0;
  const fileBlocks = survey.dataStarts[tree.length]!;
  return {
    lastInode: survey.numbers.entriesEnd - 1 + survey.values.entries.length,
    metadataBlocks: survey.metadataStarts[tree.length]! + lostFound + survey.values.starts.at(-1)!,
    journalBlocks: choices.journalBlocks,
    fileBlocks,
    endOfFiles: (map, start) => start + fileBlocks + treesOfBigFiles(survey, map, start, () => {}),
  };
}

/** Places the big files one after another and returns the blocks their trees take; `each` is told after every file. */
function treesOfBigFiles(
  { bigFiles, dataStarts }: Survey,
  map: DenseMap,
  start: number,
  each: (file: number, treeBlocksSoFar: number) => void,
): number {
  let trees = 0;
  for (const file of bigFiles) {
    const dense = start + dataStarts[file]! + trees;
    trees += treeBlocksAt(map, dense, dataStarts[file + 1]! - dataStarts[file]!);
    each(file, trees);
  }
  return trees;
}

function assemble(
  tree: SnapshotTree,
  survey: Survey,
  choices: LayoutChoices,
  geometry: Geometry,
  uuid: string | undefined,
): Layout {
  const { deviceBlocks, totalBlocks, inodesPerGroup } = geometry;
  const sized = { ...choices, deviceBlocks, totalBlocks, inodesPerGroup };
  return new Layout({
    ...survey,
    tree,
    geometry,
    parameters: { ...sized, uuid: resolveUuid(uuid, sized) },
    fileStarts: addTrees(tree, survey, geometry),
    warnings: survey.warnings.list(tree),
  });
}

/** Moves every file behind the extent trees before it. Consumes survey.dataStarts: at 10 million files a copy is 80 MB. */
function addTrees(tree: SnapshotTree, survey: Survey, { map, files }: Geometry): Float64Array {
  const ends: { file: number; trees: number }[] = [];
  treesOfBigFiles(survey, map, files, (file, trees) => ends.push({ file, trees }));
  const starts = survey.dataStarts;
  ends.forEach(({ file, trees }, i) => {
    if (trees === 0) return;
    const until = ends[i + 1]?.file ?? tree.length;
    for (let entry = file + 1; entry <= until; entry++) starts[entry]! += trees;
  });
  return starts;
}
