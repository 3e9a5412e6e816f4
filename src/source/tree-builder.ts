import { assert } from '../core/errors.ts';
import type { EntryType, ExtendedAttribute, SnapshotTree } from '../core/snapshot-tree.ts';

/** One entry's fields, as they go into the columns. */
export interface TreeFields {
  readonly type: EntryType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

/** Collects the columns of a SnapshotTree, entry by entry in the tree's order. They grow by doubling. */
export class TreeBuilder {
  #length = 0;
  #nameBytesUsed = 0;
  #type = new Uint8Array(64);
  #mode = new Uint16Array(64);
  #uid = new Float64Array(64);
  #gid = new Float64Array(64);
  #sizeBytes = new Float64Array(64);
  #mtimeSeconds = new Float64Array(64);
  #mtimeNanoseconds = new Uint32Array(64);
  #parent = new Uint32Array(64);
  #firstChild = new Uint32Array(64);
  #childCount = new Uint32Array(64);
  #nameStart = new Float64Array(65);
  #nameBytes = new Uint8Array(1024);
  readonly sameInodeAs = new Map<number, number>();
  readonly linkTarget = new Map<number, Uint8Array>();
  readonly attributes = new Map<number, readonly ExtendedAttribute[]>();

  get length(): number {
    return this.#length;
  }

  /** Appends an entry and returns its index. Children of one directory follow each other. */
  append(parent: number, name: Uint8Array, fields: TreeFields): number {
    const at = this.#length;
    if (at === this.#type.length) this.#grow();
    this.#length++;
    this.#parent[at] = parent;
    this.setFields(at, fields);
    this.#appendName(at, name);
    if (at > 0) {
      if (this.#childCount[parent] === 0) this.#firstChild[parent] = at;
      assert(this.#firstChild[parent]! + this.#childCount[parent]! === at, 'children of a directory are contiguous');
      this.#childCount[parent]!++;
    }
    return at;
  }

  fieldsOf(entry: number): TreeFields {
    return {
      type: this.#type[entry] as EntryType,
      mode: this.#mode[entry]!,
      uid: this.#uid[entry]!,
      gid: this.#gid[entry]!,
      sizeBytes: this.#sizeBytes[entry]!,
      mtimeSeconds: this.#mtimeSeconds[entry]!,
      mtimeNanoseconds: this.#mtimeNanoseconds[entry]!,
    };
  }

  setFields(entry: number, fields: TreeFields): void {
    this.#type[entry] = fields.type;
    this.#mode[entry] = fields.mode;
    this.#uid[entry] = fields.uid;
    this.#gid[entry] = fields.gid;
    this.#sizeBytes[entry] = fields.sizeBytes;
    this.#mtimeSeconds[entry] = fields.mtimeSeconds;
    this.#mtimeNanoseconds[entry] = fields.mtimeNanoseconds;
  }

  /** The columns; the builder is spent. */
  finish(): SnapshotTree {
    const n = this.#length;
    return {
      length: n,
      type: this.#type.subarray(0, n),
      mode: this.#mode.subarray(0, n),
      uid: this.#uid.subarray(0, n),
      gid: this.#gid.subarray(0, n),
      sizeBytes: this.#sizeBytes.subarray(0, n),
      mtimeSeconds: this.#mtimeSeconds.subarray(0, n),
      mtimeNanoseconds: this.#mtimeNanoseconds.subarray(0, n),
      parent: this.#parent.subarray(0, n),
      firstChild: this.#firstChild.subarray(0, n),
      childCount: this.#childCount.subarray(0, n),
      nameBytes: this.#nameBytes.subarray(0, this.#nameBytesUsed),
      nameStart: this.#nameStart.subarray(0, n + 1),
      sameInodeAs: this.sameInodeAs,
      linkTarget: this.linkTarget,
      attributes: this.attributes,
    };
  }

  #appendName(at: number, name: Uint8Array): void {
    const end = this.#nameBytesUsed + name.byteLength;
    if (end > this.#nameBytes.length) {
      const wider = new Uint8Array(Math.max(end, this.#nameBytes.length * 2));
      wider.set(this.#nameBytes);
      this.#nameBytes = wider;
    }
    this.#nameBytes.set(name, this.#nameBytesUsed);
    this.#nameBytesUsed = end;
    this.#nameStart[at + 1] = end;
  }

  #grow(): void {
    const capacity = this.#type.length * 2;
    this.#type = widened(this.#type, new Uint8Array(capacity));
    this.#mode = widened(this.#mode, new Uint16Array(capacity));
    this.#uid = widened(this.#uid, new Float64Array(capacity));
    this.#gid = widened(this.#gid, new Float64Array(capacity));
    this.#sizeBytes = widened(this.#sizeBytes, new Float64Array(capacity));
    this.#mtimeSeconds = widened(this.#mtimeSeconds, new Float64Array(capacity));
    this.#mtimeNanoseconds = widened(this.#mtimeNanoseconds, new Uint32Array(capacity));
    this.#parent = widened(this.#parent, new Uint32Array(capacity));
    this.#firstChild = widened(this.#firstChild, new Uint32Array(capacity));
    this.#childCount = widened(this.#childCount, new Uint32Array(capacity));
    this.#nameStart = widened(this.#nameStart, new Float64Array(capacity + 1));
  }
}

type Column = Uint8Array | Uint16Array | Uint32Array | Float64Array;
function widened<T extends Column>(from: T, to: T): T {
  to.set(from);
  return to;
}
