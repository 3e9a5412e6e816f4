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
