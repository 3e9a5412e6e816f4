/** What the relations of PostgreSQL's data directories in a snapshot have cost: the costs of their files, added up and named. */
import { addCost, type FileCost, newFileCost } from '../../core/file-costs.ts';
import { entryName, type SnapshotTree } from '../../core/snapshot-tree.ts';
import type { KlosetSource } from '../../source/kloset-source.ts';
import { findDataDirectories } from '../data-directories.ts';
import { type RelationFile, relationFileOf } from './relation-file.ts';
import { RelationNames } from './relation-names.ts';

/** A relation, or what a data directory has besides; a relation whose name is not known has `filenode` only. */
export interface RelationCost {
  /** The database's name; its number where that is not known; undefined for what all databases share. */
  readonly database: string | undefined;
  readonly schema: string | undefined;
  readonly name: string | undefined;
  /** `table`, `index`, `toast` …, `unknown`; of what is no relation `file`, and then the name is that of the directory. */
  readonly kind: string;
  /** `schema.name` of the table that an index or a TOAST table is of. */
  readonly owner: string | undefined;
  readonly oid: number | undefined;
  readonly filenode: number | undefined;
  /** All forks and segments together. */
  readonly cost: FileCost;
}

/** PostgreSQL's letters for kinds of relations that have files. Source: src/include/catalog/pg_class.h. */
const kinds: Readonly<Record<string, string>> = {
  r: 'table',
  i: 'index',
  t: 'toast',
  S: 'sequence',
  m: 'materialized view',
  p: 'partitioned table',
  I: 'partitioned index',
};

/** One data directory of a snapshot. */
interface Cluster {
  readonly directory: number;
  /** Undefined until it is opened, and if it cannot be. */
  names: RelationNames | undefined;
  opening: Promise<void> | undefined;
}

/** The relations of one opened snapshot. Names are read when somebody first asks. */
export class SnapshotRelations {
  readonly #source: KlosetSource;
  readonly #clusters: readonly Cluster[];
  #why: unknown;

  constructor(source: KlosetSource) {
    this.#source = source;
    this.#clusters = findDataDirectories(source.tree).map((directory) => ({
      directory,
      names: undefined,
      opening: undefined,
    }));
  }

  /** Whether there is a data directory in the snapshot. */
  get hasClusters(): boolean {
    return this.#clusters.length > 0;
  }

  /** Why names could not be read; undefined if they could, or were not asked for. */
  get failure(): unknown {
    return this.#why;
  }

  /** Reads the names of all databases whose files were touched and whose names nobody has asked for. Never rejects: without names there are numbers. */
  async load(): Promise<void> {
    const wanted = new Map<Cluster, Set<number>>();
    for (const [entry] of this.#source.costs.entries()) {
      const file = relationFileOf(this.#source.tree, entry);
      const cluster = this.#clusterOf(entry);
      if (file === undefined || cluster === undefined) continue;
      const databases = wanted.get(cluster) ?? new Set();
      wanted.set(cluster, databases.add(file.databaseOid));
    }
    for (const [cluster, databases] of wanted) await this.#loadCluster(cluster, databases);
  }

  /** What everything that was touched has cost; names as far as they are known. */
  costs(): RelationCost[] {
    const found = new Map<string, RelationCost>();
    const { tree, costs } = this.#source;
    for (const [entry, cost] of costs.entries()) {
      const cluster = this.#clusterOf(entry);
      if (cluster === undefined) continue;
      const { key, ...described } = this.#describe(tree, cluster, entry);
      const known = found.get(key) ?? { ...described, cost: newFileCost() };
      found.set(key, known);
      addCost(known.cost, cost);
    }
    return [...found.values()];
  }

  async #loadCluster(cluster: Cluster, databases: ReadonlySet<number>): Promise<void> {
    try {
      cluster.opening ??= this.#open(cluster);
      await cluster.opening;
      for (const oid of databases) if (cluster.names?.isAskedFor(oid) === false) await cluster.names.load(oid);
    } catch (error) {
      this.#why ??= error;
    }
  }

  async #open(cluster: Cluster): Promise<void> {
    const { tree } = this.#source;
    const read = (entry: number, offset: number, target: Uint8Array) =>
      this.#source.readUncounted(entry, offset, target);
    cluster.names = await RelationNames.open({ tree, read }, cluster.directory);
  }

  /** The data directory that an entry lies in; of a tablespace outside, the only one there is. */
  #clusterOf(entry: number): Cluster | undefined {
    const { parent } = this.#source.tree;
    for (let at = parent[entry]!; ; at = parent[at]!) {
      const cluster = this.#clusters.find(({ directory }) => directory === at);
      if (cluster !== undefined) return cluster;
      if (at === 0) break;
    }
    const isOutside = this.#clusters.length === 1 && relationFileOf(this.#source.tree, entry) !== undefined;
    return isOutside ? this.#clusters[0] : undefined;
  }

  #describe(tree: SnapshotTree, cluster: Cluster, entry: number): Omit<RelationCost, 'cost'> & { key: string } {
    const file = relationFileOf(tree, entry);
    if (file !== undefined) return describeRelation(cluster, file);
    const name = topName(tree, cluster.directory, entry);
    const nothing = { database: undefined, schema: undefined, owner: undefined, oid: undefined, filenode: undefined };
    return { key: `${cluster.directory}/${name}`, ...nothing, name, kind: 'file' };
  }
}

function describeRelation(
  { directory, names }: Cluster,
  { databaseOid, filenode, isTemporary }: RelationFile,
): Omit<RelationCost, 'cost'> & { key: string } {
  const relation = isTemporary ? undefined : names?.relation(databaseOid, filenode);
  const database = databaseOid === 0 ? undefined : (names?.databaseName(databaseOid) ?? String(databaseOid));
  const owner = relation?.owner && [relation.owner.schema, relation.owner.name].filter(Boolean).join('.');
  const unknown = isTemporary ? 'temporary' : 'unknown';
  return {
    key: `${directory}/${databaseOid}/${filenode}`,
    database,
    schema: relation?.schema,
    name: relation?.name,
    kind: relation === undefined ? unknown : (kinds[relation.kind] ?? relation.kind),
    owner,
    oid: relation?.oid,
    filenode,
  };
}

/** The name of the data directory's child that an entry lies below, or is: `pg_wal`, `postgresql.conf`. */
function topName(tree: SnapshotTree, directory: number, entry: number): string {
  let at = entry;
  while (tree.parent[at] !== directory && at !== 0) at = tree.parent[at]!;
  return Buffer.from(entryName(tree, at)).toString();
}
