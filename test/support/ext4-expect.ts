/** What a tree must look like once shown, said without the layout's code; and comparers that name each difference. */
import { entryName, entryTypes, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import type { LayoutRequest } from '../../src/ext4/parameters.ts';
import { Ext4Reader, type Found, type Readable } from './ext4-reader.ts';
import { contentByte } from './ext4-tree.ts';

export interface Expected {
  readonly entry: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number | undefined;
  readonly links: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly target: Buffer | undefined;
  readonly attributes: ReadonlyMap<string, Uint8Array>;
  /** The path of the first name of the same inode. */
  readonly firstPath: string;
}

const typeDigit = [4, 8, 10, 1, 12, 2, 6];

/** Every entry by its path, latin1; the root as ''. For trees whose names, targets and attributes ext4 can hold. */
export function expectTree(tree: SnapshotTree, request: LayoutRequest = {}): Map<string, Expected> {
  const paths = pathsOf(tree);
  const names = new Map<number, number>();
  for (const first of tree.sameInodeAs.values()) names.set(first, (names.get(first) ?? 1) + 1);
  const expected = new Map<string, Expected>();
  for (let entry = 0; entry < tree.length; entry++) {
    const type = tree.type[entry]!;
    const first = tree.sameInodeAs.get(entry) ?? entry;
    const seconds = tree.mtimeSeconds[entry]!;
    const clamped = unmistaken(Math.min(2 ** 34 - 2 ** 31 - 1, Math.max(-(2 ** 31), seconds)));
    const permissions = type === entryTypes.symlink ? 0o777 : tree.mode[entry]! & (request.modeMask ?? 0o7777);
    expected.set(paths[entry]!, {
      entry: first,
      mode: typeDigit[type]! * 4096 + permissions,
      uid: request.owner?.uid ?? (tree.uid[entry]! > 2 ** 32 - 2 ? 65534 : tree.uid[entry]!),
      gid: request.owner?.gid ?? (tree.gid[entry]! > 2 ** 32 - 2 ? 65534 : tree.gid[entry]!),
      size: type === entryTypes.directory ? undefined : (tree.linkTarget.get(entry)?.length ?? tree.sizeBytes[entry]!),
      links: type === entryTypes.directory ? directoryLinks(tree, entry) : (names.get(first) ?? 1),
      seconds: clamped,
      nanoseconds: clamped === seconds ? tree.mtimeNanoseconds[entry]! : 0,
      target: type === entryTypes.symlink ? Buffer.from(tree.linkTarget.get(entry)!) : undefined,
      attributes: new Map(
        tree.attributes.get(first)?.map(({ name, value }) => [Buffer.from(name).toString('latin1'), value]),
      ),
      firstPath: paths[first]!,
    });
  }
  return expected;
}

/** e2fsck takes the years from 2310 to 2378 for earlier ones: the nearest second outside. */
export function unmistaken(seconds: number): number {
  const [first, end] = [Date.UTC(2310, 3, 4, 16, 10, 40) / 1000, Date.UTC(2378, 3, 22, 19, 24, 48) / 1000];
  if (seconds < first || seconds >= end) return seconds;
  return seconds - first < end - seconds ? first - 1 : end;
}

function pathsOf(tree: SnapshotTree): string[] {
  const paths = [''];
  for (let entry = 1; entry < tree.length; entry++) {
    const above = paths[tree.parent[entry]!]!;
    const name = Buffer.from(entryName(tree, entry)).toString('latin1');
    paths.push(above === '' ? name : `${above}/${name}`);
  }
  return paths;
}

function directoryLinks(tree: SnapshotTree, entry: number): number {
  let links = 2;
  let lostFound = entry === 0 ? 1 : 0;
  const first = tree.firstChild[entry]!;
  for (let child = first; child < first + tree.childCount[entry]!; child++) {
    if (tree.type[child] !== entryTypes.directory) continue;
    links++;
    if (entry === 0 && Buffer.from(entryName(tree, child)).toString() === 'lost+found') lostFound = 0;
  }
  return links + lostFound > 65_000 ? 1 : links + lostFound;
}

/** Differences between a device, read by the independent reader, and what is expected; empty if there is none. */
export async function compareDevice(
  device: Readable,
  expected: ReadonlyMap<string, Expected>,
  { contentBytesMax = Number.POSITIVE_INFINITY }: { contentBytesMax?: number } = {},
): Promise<string[]> {
  const reader = new Ext4Reader(device);
  await reader.open();
  const found = await reader.walk();
  const differences: string[] = [];
  for (const path of found.keys()) {
    if (!expected.has(path) && path !== 'lost+found') differences.push(`${path}: not in the tree`);
  }
  for (const [path, want] of expected) {
    const have = found.get(path);
    if (have === undefined) {
      differences.push(`${path}: missing`);
      continue;
    }
    differences.push(...compareFields(want, have).map((difference) => `${path}: ${difference}`));
    if (have.inode !== found.get(want.firstPath)?.inode) differences.push(`${path}: another inode than its first name`);
    if (want.mode >> 12 === 8) {
      const problem = await compareContent(reader, want, have, contentBytesMax);
      if (problem !== undefined) differences.push(`${path}: ${problem}`);
    }
  }
  return differences;
}

function compareFields(want: Expected, have: Found): string[] {
  const differences: string[] = [];
  for (const field of ['mode', 'uid', 'gid', 'size', 'links', 'seconds', 'nanoseconds'] as const) {
    if (want[field] !== undefined && want[field] !== have[field]) {
      differences.push(`${field} is ${have[field]}, not ${want[field]}`);
    }
  }
  if (want.target !== undefined && (have.target === undefined || !want.target.equals(have.target))) {
    differences.push('another target');
  }
  for (const name of have.attributes.keys())
    if (!want.attributes.has(name)) differences.push(`attribute ${name} is new`);
  for (const [name, value] of want.attributes) {
    if (!have.attributes.get(name)?.equals(value)) differences.push(`attribute ${name} differs`);
  }
  return differences;
}

/** The whole content of small files; beginning, end and around every extent's start of large ones. */
async function compareContent(
  reader: Ext4Reader,
  want: Expected,
  have: Found,
  bytesMax: number,
): Promise<string | undefined> {
  const size = want.size!;
  const windows: [number, number][] = [[0, Math.min(size, bytesMax)]];
  if (size > bytesMax) {
    windows.push([Math.max(0, size - 100), Math.min(size, 100)]);
    for (const { logical } of have.extents.slice(1, 20)) windows.push([logical * 4096 - 50, 100]);
  }
  for (const [offset, length] of windows) {
    const bytes = await reader.content(have.extents, offset, length);
    for (let i = 0; i < length; i++) {
      if (offset + i < size && bytes[i] !== contentByte(want.entry, offset + i)) {
        return `byte ${offset + i} is ${bytes[i]}`;
      }
    }
  }
  return undefined;
}
