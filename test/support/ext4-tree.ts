/** Typed trees from literals, and file content that is a function of (entry, offset). */
import {
  type ContentReader,
  type EntryType,
  type ExtendedAttribute,
  entryTypes,
  type SnapshotTree,
} from '../../src/core/snapshot-tree.ts';

export interface TreeNode {
  readonly type: keyof typeof entryTypes;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: readonly [seconds: number, nanoseconds: number];
  readonly sizeBytes?: number;
  readonly target?: Uint8Array;
  readonly attributes?: readonly (readonly [name: string | Uint8Array, value: Uint8Array])[];
  /** Nodes that name the same inode hold the same text here. */
  readonly link?: string;
  readonly children?: readonly (readonly [name: string | Uint8Array, node: TreeNode])[];
}

interface Listed {
  readonly name: Uint8Array;
  readonly node: TreeNode;
  readonly parent: number;
}

export function directory(children: TreeNode['children'] = [], more: Partial<TreeNode> = {}): TreeNode {
  return { type: 'directory', children, ...more };
}
export function file(sizeBytes = 0, more: Partial<TreeNode> = {}): TreeNode {
  return { type: 'file', sizeBytes, ...more };
}
export function symlink(target: string | Uint8Array, more: Partial<TreeNode> = {}): TreeNode {
  return { type: 'symlink', target: Buffer.from(target), ...more };
}

/** The columns of a tree, breadth first, children in the byte order of their names. */
export function makeTree(root: TreeNode): SnapshotTree {
  const listed: Listed[] = [{ name: new Uint8Array(0), node: root, parent: 0 }];
  const firstChild: number[] = [];
  for (let entry = 0; entry < listed.length; entry++) {
    firstChild.push(listed.length);
    const children = (listed[entry]!.node.children ?? []).map(([name, node]) => ({ name: Buffer.from(name), node }));
    children.sort((a, b) => Buffer.compare(a.name, b.name));
    for (const { name, node } of children) listed.push({ name, node, parent: entry });
  }
  const sameInodeAs = new Map<number, number>();
  const firstOfLink = new Map<string, number>();
  listed.forEach(({ node: { link } }, entry) => {
    if (link === undefined) return;
    const first = firstOfLink.get(link);
    if (first === undefined) firstOfLink.set(link, entry);
    else sameInodeAs.set(entry, first);
  });
  return columns(listed, firstChild, sameInodeAs);
}

function columns(
  listed: readonly Listed[],
  firstChild: readonly number[],
  sameInodeAs: ReadonlyMap<number, number>,
): SnapshotTree {
  const nodes = listed.map((each) => each.node);
  const nameStart = new Float64Array(listed.length + 1);
  listed.forEach(({ name }, entry) => {
    nameStart[entry + 1] = nameStart[entry]! + name.length;
  });
  const linkTarget = new Map<number, Uint8Array>();
  const attributes = new Map<number, readonly ExtendedAttribute[]>();
  nodes.forEach((node, entry) => {
    if (node.target !== undefined) linkTarget.set(entry, node.target);
    if (node.attributes !== undefined) attributes.set(entry, attributeList(node.attributes));
  });
  return {
    length: listed.length,
    type: Uint8Array.from(nodes, (node): EntryType => entryTypes[node.type]),
    mode: Uint16Array.from(nodes, (node) => node.mode ?? (node.type === 'directory' ? 0o755 : 0o644)),
    uid: Float64Array.from(nodes, (node) => node.uid ?? 0),
    gid: Float64Array.from(nodes, (node) => node.gid ?? 0),
    sizeBytes: Float64Array.from(nodes, (node) => node.sizeBytes ?? 0),
    mtimeSeconds: Float64Array.from(nodes, (node) => node.mtime?.[0] ?? 1_700_000_000),
    mtimeNanoseconds: Uint32Array.from(nodes, (node) => node.mtime?.[1] ?? 0),
    parent: Uint32Array.from(listed, (each) => each.parent),
    firstChild: Uint32Array.from(firstChild),
    childCount: Uint32Array.from(nodes, (node) => node.children?.length ?? 0),
    nameBytes: Buffer.concat(listed.map((each) => each.name)),
    nameStart,
    sameInodeAs,
    linkTarget,
    attributes,
  };
}

function attributeList(pairs: NonNullable<TreeNode['attributes']>): ExtendedAttribute[] {
  return pairs
    .map(([name, value]) => ({ name: Buffer.from(name), value }))
    .sort((a, b) => Buffer.compare(a.name, b.name));
}

/** Byte `offset` of file `entry`; never zero, so that a block left out shows. */
export function contentByte(entry: number, offset: number): number {
  return (((Math.imul(entry + 1, 2_654_435_761) ^ Math.imul(Math.floor(offset / 8) + 1, 40_503)) >>> 11) % 255) + 1;
}

/** Content for every file of a tree; asserts that reads stay inside the files and remembers them. */
export class PatternContent implements ContentReader {
  readonly reads: { entry: number; offset: number; length: number }[] = [];
  readonly #tree: SnapshotTree;

  constructor(tree: SnapshotTree) {
    this.#tree = tree;
  }

  async read(entry: number, offset: number, target: Uint8Array): Promise<void> {
    if (this.#tree.type[entry] !== entryTypes.file) throw new Error(`entry ${entry} is no file`);
    if (offset < 0 || offset + target.length > this.#tree.sizeBytes[entry]!) {
      throw new Error(`entry ${entry} has no bytes ${offset}..${offset + target.length}`);
    }
    this.reads.push({ entry, offset, length: target.length });
    for (let i = 0; i < target.length; i++) target[i] = contentByte(entry, offset + i);
  }
}
