import { entryName, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { findChild } from '../source/find-child.ts';

/** The entries that are PostgreSQL data directories: with a file PG_VERSION and a file global/pg_control. */
export function findDataDirectories(tree: SnapshotTree): number[] {
  const found: number[] = [];
  for (let entry = 1; entry < tree.length; entry++) {
    if (!isNamed(tree, entry, 'PG_VERSION')) continue;
    const directory = tree.parent[entry]!;
    if (fileAt(tree, directory, ['global', 'pg_control']) !== undefined) found.push(directory);
  }
  return found;
}

/** The entry of a file below `directory`; undefined if there is none. */
export function fileAt(tree: SnapshotTree, directory: number, names: readonly string[]): number | undefined {
  const entry = entryAt(tree, directory, names);
  return entry !== undefined && tree.type[entry] === entryTypes.file ? entry : undefined;
}

/** The entry of that name below `directory`, whatever it is. */
export function entryAt(tree: SnapshotTree, directory: number, names: readonly string[]): number | undefined {
  let at: number | undefined = directory;
  for (const name of names) {
    if (at === undefined) return undefined;
    at = findChild(tree, at, Buffer.from(name));
  }
  return at;
}

/** Whether an entry is `directory` or lies below it. */
export function isBelow(tree: SnapshotTree, entry: number, directory: number): boolean {
  let at = entry;
  while (at !== directory && at !== 0) at = tree.parent[at]!;
  return at === directory;
}

function isNamed(tree: SnapshotTree, entry: number, name: string): boolean {
  const start = tree.nameStart[entry]!;
  // Compared by length first: most names differ there, and trees have millions.
  if (tree.nameStart[entry + 1]! - start !== name.length || tree.type[entry] !== entryTypes.file) return false;
  return Buffer.from(entryName(tree, entry)).toString('latin1') === name;
}
