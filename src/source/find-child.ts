import { entryName, type SnapshotTree } from '../core/snapshot-tree.ts';

/** The entry that `directory` has under that name; undefined if there is none, or it is no directory. */
export function findChild(tree: SnapshotTree, directory: number, name: Uint8Array): number | undefined {
  let low = tree.firstChild[directory]!;
  let high = low + tree.childCount[directory]!;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const order = Buffer.compare(entryName(tree, middle), name);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return undefined;
}

/**
 * The entry at a path below the tree's root: names separated by `/`, of which empty ones and `.` are skipped. Undefined
 * if there is none; symlinks are not followed.
 */
export function findPath(tree: SnapshotTree, path: string): number | undefined {
  let entry: number | undefined = 0;
  for (const name of path.split('/')) {
    if (name === '' || name === '.') continue;
    entry = findChild(tree, entry, Buffer.from(name));
    if (entry === undefined) return undefined;
  }
  return entry;
}
