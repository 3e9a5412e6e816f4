/**
 * Several snapshots' trees, or one below a directory, as one tree: pure rearranging of columns.
 *
 * A level of a tree is one run of entries, and the next level of a run is a run again, since directories' runs of
 * children follow each other in the order of the directories. So the result is a list of runs, at most one for each
 * level of each tree, between the few directories that are made for the names; columns are copied run by run.
 */
import type { Reach } from '../core/device.ts';
import { UserError } from '../core/errors.ts';
import { type ContentReader, type ExtendedAttribute, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import type { StopOptions } from '../core/stop.ts';
import type { ByteRange } from '../core/units.ts';

/** One tree and where it goes. */
export interface ComposedPart {
  readonly tree: SnapshotTree;
  readonly content: ContentReader;
  /** The directory that the tree's root becomes: names separated by `/`. */
  readonly at: string;
}

export interface ComposedTree {
  readonly tree: SnapshotTree;
  readonly content: ContentReader;
  /** The entry of the composed tree that shows entry `entry` of part number `part`. */
  entryOf(part: number, entry: number): number;
}

/** The permission bits of directories that are made: as mkdir makes them, whatever the trees below let others see. */
const MADE_MODE = 0o755;

/** The longest name ext4 can hold, bytes. */
const NAME_BYTES_MAX = 255;

/**
 * Puts every part at its place. A part's root becomes that directory with its own attributes, owner and mode; the new
 * root, and directories between it and the parts, are 0755 with owner and time of the first part below them. Names of
 * one inode stay together within a part, and never cross parts. Parts' columns are copied: they may go afterwards.
 * Throws UserError for a place that is no path of names, occurs twice or lies inside another part.
 */
export function composeTrees(parts: readonly ComposedPart[]): ComposedTree {
  const { runs, length } = planRuns(parts, planDirectories(parts));
  const levels = parts.map((_, part) => runs.filter((run) => run.part === part));
  const columns = copyColumns(parts, runs, length);
  const nameBytes = copyNames(columns, parts, runs);
  const sameInodeAs = new Map<number, number>();
  const linkTarget = new Map<number, Uint8Array>();
  const attributes = new Map<number, readonly ExtendedAttribute[]>();
  for (const [part, { tree }] of parts.entries()) {
    const moved = (entry: number) => composedOf(levels[part]!, entry);
    linkLevels(columns, levels[part]!, tree);
    for (const [entry, first] of tree.sameInodeAs) sameInodeAs.set(moved(entry), moved(first));
    for (const [entry, target] of tree.linkTarget) linkTarget.set(moved(entry), target);
    for (const [entry, list] of tree.attributes) attributes.set(moved(entry), list);
  }
  return {
    tree: { ...columns, nameBytes, sameInodeAs, linkTarget, attributes },
    content: new ComposedContent(parts, runs),
    entryOf: (part, entry) => composedOf(levels[part]!, entry),
  };
}

/** A place as its names: throws UserError unless it is a path of possible names, without `.` and `..`. */
export function splitPlace(place: string): string[] {
  const names = place.split('/');
  for (const name of names) {
    const isName = name !== '' && name !== '.' && name !== '..' && !name.includes('\0');
    if (!isName || Buffer.byteLength(name) > NAME_BYTES_MAX) {
      throw new UserError(
        `"${place}" is no place for a snapshot: write names separated by single slashes, such as pgdata or backups/monday.`,
      );
    }
  }
  if (names[0] === 'lost+found') throw new UserError(`"${place}" is no place for a snapshot: lost+found is e2fsck's.`);
  return names;
}

/** A directory that is made, or the place of a part. */
interface Place {
  readonly name: Uint8Array;
  /** The part whose root is here; undefined for a directory that is made. */
  part: number | undefined;
  /** The part that owner and time are taken from. */
  readonly like: number;
  readonly below: Map<string, Place>;
}

function planDirectories(parts: readonly ComposedPart[]): Place {
  const root: Place = { name: new Uint8Array(0), part: undefined, like: 0, below: new Map() };
  for (const [part, { at }] of parts.entries()) {
    let place = root;
    for (const name of splitPlace(at)) {
      if (place.part !== undefined) throw insideAnother(at, parts[place.part]!.at);
      let next = place.below.get(name);
      if (next === undefined) {
        next = { name: Buffer.from(name), part: undefined, like: part, below: new Map() };
        place.below.set(name, next);
      }
      place = next;
    }
    if (place.part !== undefined) throw new UserError(`Two snapshots cannot both be at "${at}"; give them two names.`);
    if (place.below.size > 0) throw insideAnother(parts[place.below.values().next().value!.like]!.at, at);
    place.part = part;
  }
  return root;
}

function insideAnother(inner: string, outer: string): UserError {
  return new UserError(`"${inner}" lies inside "${outer}", where another snapshot is; put them side by side.`);
}

/** Consecutive entries of the composed tree that come from one part, or are one made directory. */
interface Run {
  /** First entry in the composed tree, and how many. */
  readonly start: number;
  readonly length: number;
  /** Where they come from; for a made directory `from` is 0 and `part` undefined. */
  readonly part: number | undefined;
  readonly from: number;
  /** What the first entry is called instead of its own name: made directories and parts' roots. */
  readonly place: Place | undefined;
  /** Index of the directory that holds the place, in the composed tree. */
  readonly parent: number;
}

/** The runs in the order of the composed tree: level by level. */
function planRuns(parts: readonly ComposedPart[], root: Place): { runs: Run[]; length: number } {
  const runs: Run[] = [];
  let length = 0;
  const add = (run: Omit<Run, 'start'>): void => {
    runs.push({ ...run, start: length });
    length += run.length;
  };
  add({ length: 1, part: undefined, from: 0, place: root, parent: 0 });
  // Runs that are appended here are looked at in their turn: that makes the order breadth first.
  for (let at = 0; at < runs.length; at++) {
    const run = runs[at]!;
    if (run.part === undefined) {
      const below = [...run.place!.below.values()].sort((a, b) => Buffer.compare(a.name, b.name));
      for (const place of below) add({ length: 1, part: place.part, from: 0, place, parent: run.start });
    } else {
      const children = childrenOf(parts[run.part]!.tree, run);
      if (children > 0)
        add({ length: children, part: run.part, from: run.from + run.length, place: undefined, parent: 0 });
    }
  }
  return { runs, length };
}

/** How many children the entries of a level have; the level's run of children begins where it ends. */
function childrenOf(tree: SnapshotTree, { from, length }: Run): number {
  let count = 0;
  for (let entry = from; entry < from + length; entry++) count += tree.childCount[entry]!;
  return count;
}

/** Where an entry of a part went: its runs lie in its own order too, so a binary search finds the one. */
function composedOf(levels: readonly Run[], entry: number): number {
  const run = lastAtOrBefore(levels, entry, ({ from }) => from);
  return run.start + entry - run.from;
}

/** The last run whose `key` is not above `value`; the first's never is. */
function lastAtOrBefore(runs: readonly Run[], value: number, key: (run: Run) => number): Run {
  let low = 0;
  let high = runs.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (key(runs[middle]!) <= value) low = middle;
    else high = middle;
  }
  return runs[low]!;
}

/** Passes reads on to the part that a file came from. */
class ComposedContent implements ContentReader {
  readonly #contents: readonly ContentReader[];
  readonly #runs: readonly Run[];

  constructor(parts: readonly ComposedPart[], runs: readonly Run[]) {
    // Without the trees, whose columns were copied: whether they stay in memory is for the contents to say.
    this.#contents = parts.map(({ content }) => content);
    this.#runs = runs;
  }

  read(entry: number, offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    const run = this.#runOf(entry);
    return this.#contents[run.part!]!.read(run.from + entry - run.start, offset, target, options);
  }

  readNow(entry: number, offset: number, target: Uint8Array, reach?: Reach): boolean {
    const run = this.#runOf(entry);
    return this.#contents[run.part!]!.readNow?.(run.from + entry - run.start, offset, target, reach) ?? false;
  }

  async prefetch(entry: number, range: ByteRange, options?: StopOptions): Promise<number> {
    const run = this.#runOf(entry);
    return (await this.#contents[run.part!]!.prefetch?.(run.from + entry - run.start, range, options)) ?? 0;
  }

  #runOf(entry: number): Run {
    return lastAtOrBefore(this.#runs, entry, ({ start }) => start);
  }
}

/** Copies every column, run by run. */
function copyColumns(parts: readonly ComposedPart[], runs: readonly Run[], length: number): Columns {
  const to = newColumns(length);
  for (const run of runs) {
    if (run.part === undefined) makeDirectory(to, run, parts[run.place!.like]!.tree);
    else copyRun(to, run, parts[run.part]!.tree);
    if (run.place === undefined || run.start === 0) continue;
    // Children of a made directory follow each other: the first that comes by is the first.
    if (to.childCount[run.parent]! === 0) to.firstChild[run.parent] = run.start;
    to.childCount[run.parent]!++;
    to.parent[run.start] = run.parent;
  }
  return to;
}

/** Everything that is the same in both trees: all but names and the indexes of other entries. */
function copyRun(to: Columns, { start, from, length }: Run, tree: SnapshotTree): void {
  const end = from + length;
  to.type.set(tree.type.subarray(from, end), start);
  to.mode.set(tree.mode.subarray(from, end), start);
  to.uid.set(tree.uid.subarray(from, end), start);
  to.gid.set(tree.gid.subarray(from, end), start);
  to.sizeBytes.set(tree.sizeBytes.subarray(from, end), start);
  to.mtimeSeconds.set(tree.mtimeSeconds.subarray(from, end), start);
  to.mtimeNanoseconds.set(tree.mtimeNanoseconds.subarray(from, end), start);
  to.childCount.set(tree.childCount.subarray(from, end), start);
}

function makeDirectory(to: Columns, { start }: Run, like: SnapshotTree): void {
  to.type[start] = entryTypes.directory;
  to.mode[start] = MADE_MODE;
  to.uid[start] = like.uid[0]!;
  to.gid[start] = like.gid[0]!;
  to.mtimeSeconds[start] = like.mtimeSeconds[0]!;
  to.mtimeNanoseconds[start] = like.mtimeNanoseconds[0]!;
}

/** Parents and children of a part's entries, moved by as much as the level above and the level below were. */
function linkLevels(to: Columns, levels: readonly Run[], tree: SnapshotTree): void {
  for (const [depth, { start, from, length }] of levels.entries()) {
    const above = levels[depth - 1];
    const below = levels[depth + 1];
    for (let i = 0; i < length; i++) {
      // The root's parent is the directory it was put in.
      if (above !== undefined) to.parent[start + i] = tree.parent[from + i]! + above.start - above.from;
      if (below === undefined || tree.childCount[from + i] === 0) continue;
      to.firstChild[start + i] = tree.firstChild[from + i]! + below.start - below.from;
    }
  }
}

function copyNames(to: Columns, parts: readonly ComposedPart[], runs: readonly Run[]): Uint8Array {
  const names = runs.map(({ part, from, length, place }) => {
    if (place !== undefined) return place.name;
    const { nameBytes, nameStart } = parts[part!]!.tree;
    return nameBytes.subarray(nameStart[from], nameStart[from + length]);
  });
  let used = 0;
  for (const [i, { part, start, from, length, place }] of runs.entries()) {
    const { nameStart } = parts[part ?? 0]!.tree;
    const moved = used - nameStart[from]!;
    if (place === undefined)
      for (let at = 0; at < length; at++) to.nameStart[start + at] = nameStart[from + at]! + moved;
    else to.nameStart[start] = used;
    used += names[i]!.length;
  }
  to.nameStart[to.length] = used;
  return Buffer.concat(names, used);
}

type Columns = ReturnType<typeof newColumns>;

function newColumns(length: number) {
  return {
    length,
    type: new Uint8Array(length),
    mode: new Uint16Array(length),
    uid: new Float64Array(length),
    gid: new Float64Array(length),
    sizeBytes: new Float64Array(length),
    mtimeSeconds: new Float64Array(length),
    mtimeNanoseconds: new Uint32Array(length),
    parent: new Uint32Array(length),
    firstChild: new Uint32Array(length),
    childCount: new Uint32Array(length),
    nameStart: new Float64Array(length + 1),
  };
}
