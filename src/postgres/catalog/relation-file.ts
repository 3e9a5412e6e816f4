/** Which relation a file of a data directory belongs to, by its path: src/common/relpath.c of PostgreSQL. */
import { entryName, type SnapshotTree } from '../../core/snapshot-tree.ts';

export interface RelationFile {
  /** 0: shared by all databases. */
  readonly databaseOid: number;
  readonly filenode: number;
  readonly fork: 'main' | 'fsm' | 'vm' | 'init';
  /** Of a session that has ended by now. */
  readonly isTemporary: boolean;
}

/** `16385`, `16385_vm.1`, `t3_16385`. */
const RELATION_NAME = /^(t\d+_)?(\d+)(?:_(fsm|vm|init))?(?:\.\d+)?$/;
/** A tablespace's directory of one cluster: major version and the catalog's. */
const TABLESPACE_NAME = /^PG_[0-9.]+_\d+$/;

/**
 * Undefined if the entry is no file of a relation. Files of a tablespace are known by the name of its directory, wherever
 * that lies.
 */
export function relationFileOf(tree: SnapshotTree, entry: number): RelationFile | undefined {
  const [, temporary, filenode, fork = 'main'] = RELATION_NAME.exec(nameOf(tree, entry)) ?? [];
  if (filenode === undefined) return undefined;
  const databaseOid = databaseOf(tree, tree.parent[entry]!);
  if (databaseOid === undefined) return undefined;
  return {
    databaseOid,
    filenode: Number(filenode),
    fork: fork as RelationFile['fork'],
    isTemporary: temporary !== undefined,
  };
}

function databaseOf(tree: SnapshotTree, directory: number): number | undefined {
  const name = nameOf(tree, directory);
  if (name === 'global') return 0;
  if (!/^\d+$/.test(name)) return undefined;
  const above = nameOf(tree, tree.parent[directory]!);
  return above === 'base' || TABLESPACE_NAME.test(above) ? Number(name) : undefined;
}

function nameOf(tree: SnapshotTree, entry: number): string {
  return Buffer.from(entryName(tree, entry)).toString();
}
