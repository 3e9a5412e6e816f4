/** The names entries are shown under: their own, unless ext4 cannot hold it or another entry already has it. */
import { entryName, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { directoryEntry, NAME_BYTES_MAX } from './format.ts';
import type { WarningCollector } from './warnings.ts';

export const lostFoundName: Uint8Array = Buffer.from('lost+found');

const SLASH = 47;
const DOT = 46;
const UNDERSCORE = 95;

/** Names of one directory's entries: name k is bytes[start[k] .. start[k + 1]]. */
export interface NameTable {
  readonly bytes: Uint8Array;
  readonly start: Float64Array;
  readonly count: number;
}

/** Bytes a directory record takes for a name: the header, the name, and up to three to a multiple of 4. */
export function recordBytes(nameBytes: number): number {
  return (directoryEntry.sizeBytes + nameBytes + 3) & ~3;
}

/** The entry of the root's `lost+found`, whatever it is; -1 if there is none. */
export function findLostFound(tree: SnapshotTree): number {
  return findChild(tree, 0, lostFoundName);
}

/** The first child of a directory with that very name; -1 if there is none. */
function findChild(tree: SnapshotTree, directory: number, name: Uint8Array): number {
  const { nameStart, nameBytes } = tree;
  const first = tree.firstChild[directory]!;
  for (let child = first; child < first + tree.childCount[directory]!; child++) {
    const start = nameStart[child]!;
    if (nameStart[child + 1]! - start !== name.length) continue;
    let same = 0;
    while (same < name.length && nameBytes[start + same] === name[same]) same++;
    if (same === name.length) return child;
  }
  return -1;
}

/** New names for the entries that need one. Deterministic; no two entries of a directory end up with one name. */
export function repairNames(tree: SnapshotTree, warnings: WarningCollector): Map<number, Uint8Array> {
  const repaired = new Map<number, Uint8Array>();
  const bad = findBadNames(tree);
  const lostFound = findLostFound(tree);
  if (lostFound !== -1 && tree.type[lostFound] !== entryTypes.directory) {
    bad.push(lostFound);
    bad.sort((a, b) => a - b);
  }
  const badSet = new Set(bad);
  let directory = -1;
  let taken = new Set<string>();
  for (const entry of bad) {
    if (tree.parent[entry] !== directory) {
      directory = tree.parent[entry]!;
      taken = goodNames(tree, directory, badSet);
    }
    const wanted = showable(entryName(tree, entry));
    if (entry === lostFound) warnings.add('lost-found-renamed', entry);
    else warnings.add(Buffer.compare(wanted, entryName(tree, entry)) === 0 ? 'name-duplicate' : 'name-invalid', entry);
    const name = unusedName(wanted, taken);
    taken.add(Buffer.from(name).toString('latin1'));
    repaired.set(entry, name);
  }
  return repaired;
}

/** Entries whose name ext4 cannot hold or the entry before it has too (children are in order of their names). Ascending. */
function findBadNames(tree: SnapshotTree): number[] {
  const { nameBytes, nameStart, parent } = tree;
  // One native search each decides the usual case: no such byte in any name.
  const strange = nameBytes.includes(SLASH) || nameBytes.includes(0);
  const bad: number[] = [];
  let start = nameStart[1] ?? 0;
  let lengthBefore = -1;
  for (let entry = 1; entry < tree.length; entry++) {
    const end = nameStart[entry + 1]!;
    const length = end - start;
    if (
      length === 0 ||
      length > NAME_BYTES_MAX ||
      (length <= 2 && nameBytes[start] === DOT && nameBytes[end - 1] === DOT) ||
      (strange && holdsStrangeByte(nameBytes, start, end)) ||
      (length === lengthBefore &&
        parent[entry] === parent[entry - 1] &&
        sameBytes(nameBytes, start - length, start, length))
    ) {
      bad.push(entry);
    }
    lengthBefore = length;
    start = end;
  }
  return bad;
}

function holdsStrangeByte(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] === SLASH || bytes[at] === 0) return true;
  return false;
}

/** From the end, where names of one directory differ first. */
function sameBytes(bytes: Uint8Array, a: number, b: number, length: number): boolean {
  for (let i = length - 1; i >= 0; i--) if (bytes[a + i] !== bytes[b + i]) return false;
  return true;
}

/** `taken` for a directory with bad names: all good ones, and `lost+found` in the root, which exists in any case. */
function goodNames(tree: SnapshotTree, directory: number, bad: ReadonlySet<number>): Set<string> {
  const names = new Set<string>();
  const first = tree.firstChild[directory]!;
  for (let child = first; child < first + tree.childCount[directory]!; child++) {
    if (!bad.has(child)) names.add(Buffer.from(entryName(tree, child)).toString('latin1'));
  }
  if (directory === 0) names.add(Buffer.from(lostFoundName).toString('latin1'));
  return names;
}

function showable(name: Uint8Array): Uint8Array {
  if (name.length === 0) return Buffer.from('_');
  const onlyDots = name.length <= 2 && name.every((byte) => byte === DOT);
  return name.slice(0, NAME_BYTES_MAX).map((byte) => (byte === SLASH || byte === 0 || onlyDots ? UNDERSCORE : byte));
}

/** `wanted`, or `wanted~2`, `wanted~3`, … cut to what fits. */
function unusedName(wanted: Uint8Array, taken: ReadonlySet<string>): Uint8Array {
  let name = wanted;
  for (let n = 2; taken.has(Buffer.from(name).toString('latin1')); n++) {
    const suffix = Buffer.from(`~${n}`);
    name = Buffer.concat([wanted.subarray(0, NAME_BYTES_MAX - suffix.length), suffix]);
  }
  return name;
}

/** The names of a directory's children as shown; `lost+found` last if the layout adds it here. */
export function nameTable(
  tree: SnapshotTree,
  directory: number,
  { renamed, addLostFound }: { renamed: ReadonlyMap<number, Uint8Array>; addLostFound: boolean },
): NameTable {
  const first = tree.firstChild[directory]!;
  const count = tree.childCount[directory]!;
  const starts = tree.nameStart.subarray(first, first + count + 1);
  if (!hasKeyBetween(renamed, first, first + count)) {
    const { nameBytes } = tree;
    return addLostFound ? withLostFound(nameBytes, starts) : { bytes: nameBytes, start: starts, count };
  }
  const table = withRenamed(tree, { first, count }, renamed);
  return addLostFound ? withLostFound(table.bytes, table.start) : table;
}

/** The names of `count` entries from `first` on; what lies between two changed ones is copied as one piece. */
function withRenamed(
  tree: SnapshotTree,
  { first, count }: { first: number; count: number },
  renamed: ReadonlyMap<number, Uint8Array>,
): NameTable {
  const { nameBytes, nameStart } = tree;
  const pieces: Uint8Array[] = [];
  const start = new Float64Array(count + 1);
  let copied = nameStart[first]!;
  for (let i = 0; i < count; i++) {
    const [from, to] = [nameStart[first + i]!, nameStart[first + i + 1]!];
    const name = renamed.get(first + i);
    start[i + 1] = start[i]! + (name?.length ?? to - from);
    if (name === undefined) continue;
    pieces.push(nameBytes.subarray(copied, from), name);
    copied = to;
  }
  pieces.push(nameBytes.subarray(copied, nameStart[first + count]!));
  return { bytes: Buffer.concat(pieces), start, count };
}

/** A copy with one more name. The root can be large: bytes are copied as one piece. */
function withLostFound(bytes: Uint8Array, starts: Float64Array): NameTable {
  const from = starts[0]!;
  const to = starts.at(-1)!;
  const start = new Float64Array(starts.length + 1);
  for (let i = 0; i < starts.length; i++) start[i] = starts[i]! - from;
  start[starts.length] = to - from + lostFoundName.length;
  return { bytes: Buffer.concat([bytes.subarray(from, to), lostFoundName]), start, count: starts.length };
}

function hasKeyBetween(map: ReadonlyMap<number, unknown>, from: number, to: number): boolean {
  if (map.size === 0) return false;
  if (map.size < to - from) {
    for (const key of map.keys()) if (key >= from && key < to) return true;
    return false;
  }
  for (let key = from; key < to; key++) if (map.has(key)) return true;
  return false;
}
