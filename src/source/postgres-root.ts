import { entryName, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';

/** The modes of a data directory that PostgreSQL starts on. */
const STARTABLE_MODES = [0o700, 0o750];
const DATA_DIRECTORY_MODE = 0o700;

/**
 * PostgreSQL starts only on a data directory that belongs to its user and is 0700 or 0750. The tar of pg_basebackup has
 * no entry for that directory itself, so that a snapshot of it records a root owned by root, 0750, of 1970. If the tree's
 * root is a PostgreSQL data directory and could not be started on, it gets PG_VERSION's owner, group and time and mode
 * 0700; every other tree is returned as it is.
 */
export function ownPostgresRoot(tree: SnapshotTree): SnapshotTree {
  const version = findChild(tree, 0, 'PG_VERSION');
  const global = findChild(tree, 0, 'global');
  if (version === undefined || global === undefined) return tree;
  if (tree.type[version] !== entryTypes.file || findChild(tree, global, 'pg_control') === undefined) return tree;
  const startable = tree.uid[0] === tree.uid[version] && STARTABLE_MODES.includes(tree.mode[0]!);
  if (startable) return tree;
  const own = <T extends Uint16Array | Uint32Array | Float64Array>(column: T, value: number): T => {
    column[0] = value;
    return column;
  };
  return {
    ...tree,
    mode: own(tree.mode.slice(), DATA_DIRECTORY_MODE),
    uid: own(tree.uid.slice(), tree.uid[version]!),
    gid: own(tree.gid.slice(), tree.gid[version]!),
    mtimeSeconds: own(tree.mtimeSeconds.slice(), tree.mtimeSeconds[version]!),
    mtimeNanoseconds: own(tree.mtimeNanoseconds.slice(), tree.mtimeNanoseconds[version]!),
  };
}

/** The entry `name` in `directory`, or undefined. */
export function findChild(tree: SnapshotTree, directory: number, name: string): number | undefined {
  const wanted = Buffer.from(name);
  const first = tree.firstChild[directory]!;
  for (let entry = first; entry < first + tree.childCount[directory]!; entry++) {
    if (wanted.equals(entryName(tree, entry))) return entry;
  }
  return undefined;
}
