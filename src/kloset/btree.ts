import { CorruptStoreError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';
import type { ResourceType } from './format.ts';
import { TREE_DEPTH_MAX } from './limits.ts';
import { MsgpackRecord } from './record.ts';
import type { BlobId, Repository } from './repository.ts';

/** How the keys of a tree are ordered: negative if a < b. */
export type KeyOrder = (a: Uint8Array, b: Uint8Array) => number;

export const byteOrder: KeyOrder = Buffer.compare;

/** Path order (kloset-format 10.2): by the number of slashes, then by bytes. */
export const pathOrder: KeyOrder = (a, b) => slashes(a) - slashes(b) || Buffer.compare(a, b);

function slashes(path: Uint8Array): number {
  let count = 0;
  for (const byte of path) if (byte === 0x2f) count++;
  return count;
}

/** Which blob types a tree's descriptor and nodes have. */
export interface TreeTypes {
  readonly tree: ResourceType;
  readonly node: ResourceType;
}

/** One entry of a tree: the key, and the MAC that is its value. */
export interface TreeItem {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

interface TreeNode {
  readonly keys: readonly Uint8Array[];
  readonly pointers: readonly Uint8Array[];
  readonly values: readonly Uint8Array[];
}

/** What to do about nodes that cannot be read, instead of ending the scan: each is passed over with all below it. */
export interface ScanOptions {
  /** Told of each; may throw. */
  readonly onDamage?: (error: unknown) => void;
}

/** One pass over a tree. */
interface Scan extends ScanOptions {
  readonly depth: number;
  /**
   * MACs of the nodes met so far, a character a byte. No node stands in a tree twice, since no key does; in a hostile one
   * fifty pointers to one node, level by level, would make more visits than there is time.
   */
  readonly visited: Set<string>;
}

/** What a tree is read from. */
export type BlobReader = Pick<Repository, 'readBlob'>;

/** A B+tree of a snapshot (10.2), read node by node. */
export class BTree {
  readonly #repository: BlobReader;
  readonly #root: BlobId;
  readonly #order: KeyOrder;

  private constructor(repository: BlobReader, root: BlobId, order: KeyOrder) {
    this.#repository = repository;
    this.#root = root;
    this.#order = order;
  }

  /** Opens the tree whose descriptor has that MAC. */
  static async open(repository: BlobReader, mac: Uint8Array, types: TreeTypes, order: KeyOrder): Promise<BTree> {
    const blob = await repository.readBlob({ type: types.tree, mac });
    const descriptor = MsgpackRecord.decode(blob, `tree ${toHex(mac)}`);
    // Descriptors have capitalised keys, nodes do not (10.2).
    return new BTree(repository, { type: types.node, mac: descriptor.mac('Root') }, order);
  }

  /** The value under `key`, or undefined. */
  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    let node = await this.#node(this.#root.mac);
    for (let depth = 1; node.pointers.length > 0; depth++) {
      if (depth > TREE_DEPTH_MAX) throw this.#tooDeep();
      node = await this.#node(node.pointers[this.#childFor(node, key)]!);
    }
    const at = node.keys.findIndex((candidate) => Buffer.compare(candidate, key) === 0);
    return at < 0 ? undefined : node.values[at];
  }

  /** All items from the first key >= `from` on, in key order. */
  async *items(from: Uint8Array = new Uint8Array(0), options: ScanOptions = {}): AsyncGenerator<TreeItem> {
    yield* this.#itemsBelow(this.#root.mac, from, { ...options, depth: 1, visited: new Set() });
  }

  // By recursion, not along the leaves' `next`: a cycle there would never end, here the depth is bounded.
  async *#itemsBelow(mac: Uint8Array, from: Uint8Array, scan: Scan): AsyncGenerator<TreeItem> {
    const node = await this.#visit(mac, scan);
    if (node === undefined) return;
    if (node.pointers.length === 0) {
      for (const [i, key] of node.keys.entries()) {
        if (this.#order(key, from) >= 0) yield { key, value: node.values[i]! };
      }
      return;
    }
    for (let i = this.#childFor(node, from); i < node.pointers.length; i++) {
      yield* this.#itemsBelow(node.pointers[i]!, from, { ...scan, depth: scan.depth + 1 });
    }
  }

  async #visit(mac: Uint8Array, { depth, visited, onDamage }: Scan): Promise<TreeNode | undefined> {
    try {
      if (depth > TREE_DEPTH_MAX) throw this.#tooDeep();
      const name = Buffer.from(mac).toString('latin1');
      if (visited.has(name)) throw new CorruptStoreError(`Tree node ${toHex(mac)} occurs twice in one tree`);
      visited.add(name);
      return await this.#node(mac);
    } catch (error) {
      if (onDamage === undefined) throw error;
      onDamage(error);
      return undefined;
    }
  }

  /** Index of the child whose range holds `key`: keys[i] is the smallest key below pointers[i + 1]. */
  #childFor(node: TreeNode, key: Uint8Array): number {
    let low = 0;
    let high = node.keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#order(node.keys[middle]!, key) <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  async #node(mac: Uint8Array): Promise<TreeNode> {
    const what = `tree node ${toHex(mac)}`;
    const record = MsgpackRecord.decode(await this.#repository.readBlob({ type: this.#root.type, mac }), what);
    const node = { keys: record.byteStrings('keys'), pointers: record.macs('pointers'), values: record.macs('values') };
    const isLeaf = node.pointers.length === 0;
    const fits = isLeaf ? node.values.length === node.keys.length : node.pointers.length === node.keys.length + 1;
    if (!fits) throw new CorruptStoreError(`${what} has ${node.keys.length} keys for another number of values`);
    return node;
  }

  #tooDeep(): CorruptStoreError {
    return new CorruptStoreError(
      `The tree below node ${toHex(this.#root.mac)} is deeper than ${TREE_DEPTH_MAX} levels`,
    );
  }
}
