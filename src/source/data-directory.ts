import type { SnapshotTree } from '../core/snapshot-tree.ts';
import { findChild } from './find-child.ts';
import type { TreeFields } from './tree-builder.ts';

const PRIVATE = 0o700;
const PRIVATE_TO_GROUP = 0o750;

/**
 * The owner, time and mode that the root should have, if it is a PostgreSQL data directory that has other ones. A tar
 * archive made by pg_basebackup does not hold the directory itself, and the importer makes one up. The root then looks
 * like PG_VERSION, which PostgreSQL insists on (owner and mode) or is least surprising (group and time).
 */
export function dataDirectoryRoot(
  tree: SnapshotTree,
): Pick<TreeFields, 'mode' | 'uid' | 'gid' | 'mtimeSeconds' | 'mtimeNanoseconds'> | undefined {
  const version = findChild(tree, 0, Buffer.from('PG_VERSION'));
  const global = findChild(tree, 0, Buffer.from('global'));
  const control = global === undefined ? undefined : findChild(tree, global, Buffer.from('pg_control'));
  if (version === undefined || control === undefined) return undefined;
  const isPrivate = tree.mode[0] === PRIVATE || tree.mode[0] === PRIVATE_TO_GROUP;
  if (isPrivate && tree.uid[0] === tree.uid[version]) return undefined;
  return {
    mode: PRIVATE,
    uid: tree.uid[version]!,
    gid: tree.gid[version]!,
    mtimeSeconds: tree.mtimeSeconds[version]!,
    mtimeNanoseconds: tree.mtimeNanoseconds[version]!,
  };
}
