/**
 * Extended attributes (attributes.rst): which of an entry's attributes go into its inode, which into its attribute block,
 * which values into an inode of their own; and the bytes of body and block.
 */

import { crc32c } from '../core/crc32c.ts';
import type { ExtendedAttribute } from '../core/snapshot-tree.ts';
import { BLOCK_SIZE, roundUp } from '../core/units.ts';
import { storedAcl } from './acl.ts';
import { viewOf } from './bytes.ts';
import {
  ATTRIBUTE_BLOCK_BYTES,
  ATTRIBUTE_BODY_BYTES,
  ATTRIBUTE_BODY_START,
  ATTRIBUTE_MAGIC,
  ATTRIBUTE_VALUE_BYTES_MAX,
  attributeBlockHeader,
  attributeEntry,
  attributeIndexes,
  checksumBlock,
  ext4Inode,
  INODE_SIZE,
  NAME_BYTES_MAX,
} from './format.ts';
import { PERMISSION_BITS } from './parameters.ts';
import type { WarningKind } from './warnings.ts';

/** An attribute as ext4 stores it: a number for its namespace, the rest of the name, the converted value. */
export interface StoredAttribute {
  readonly index: number;
  readonly name: Uint8Array;
  readonly value: Uint8Array;
}

export interface AttributePlan {
  readonly body: readonly StoredAttribute[];
  /** In the order the block needs: by index, length of name, name. */
  readonly block: readonly StoredAttribute[];
  /** Those of `block` whose value has an inode of its own, in the block's order. */
  readonly outside: readonly StoredAttribute[];
}

export const noAttributes: AttributePlan = { body: [], block: [], outside: [] };

/**
 * Deterministic, so a plan is made again whenever it is needed instead of being kept. `modeMask`: permission bits that
 * stay in an access control list.
 */
export function planAttributes(
  attributes: readonly ExtendedAttribute[],
  modeMask: number,
  leaveOut: (kind: WarningKind) => void,
): AttributePlan {
  const stored: StoredAttribute[] = [];
  for (const attribute of attributes) {
    const made = storedForm(attribute, modeMask);
    if (typeof made === 'string') leaveOut(made);
    else stored.push(made);
  }
  stored.sort(inBlockOrder);
  const body: StoredAttribute[] = [];
  const block: StoredAttribute[] = [];
  let bodyLeft = ATTRIBUTE_BODY_BYTES;
  stored.forEach((attribute, i) => {
    if (i > 0 && inBlockOrder(stored[i - 1]!, attribute) === 0) {
      leaveOut('attribute-name-invalid');
      return;
    }
    const needed = entryBytes(attribute) + valueBytes(attribute);
    if (needed <= bodyLeft) {
      body.push(attribute);
      bodyLeft -= needed;
    } else {
      block.push(attribute);
    }
  });
  return { body, block, outside: moveOutside(block, leaveOut) };
}

/** Whether any of a plan's attributes is in the namespace that Linux keeps for files and directories. */
export function hasUserAttribute({ body, block }: AttributePlan): boolean {
  return [...body, ...block].some(({ index }) => index === attributeIndexes.user);
}

/** Shortens `block` to what fits: the largest values move out; names that do not fit even so are left out. */
function moveOutside(block: StoredAttribute[], leaveOut: (kind: WarningKind) => void): StoredAttribute[] {
  let needed = 0;
  for (const attribute of block) needed += entryBytes(attribute) + valueBytes(attribute);
  const outside = new Set<StoredAttribute>();
  const bySize = needed > ATTRIBUTE_BLOCK_BYTES ? [...block].sort((a, b) => b.value.length - a.value.length) : [];
  for (const attribute of bySize) {
    if (needed <= ATTRIBUTE_BLOCK_BYTES || attribute.value.length === 0) break;
    outside.add(attribute);
    needed -= valueBytes(attribute);
  }
  while (needed > ATTRIBUTE_BLOCK_BYTES) {
    const dropped = block.pop()!;
    outside.delete(dropped);
    needed -= entryBytes(dropped);
    leaveOut('attribute-names-too-many');
  }
  return block.filter((attribute) => outside.has(attribute));
}

const namespaces = [
  ['user.', attributeIndexes.user],
  ['trusted.', attributeIndexes.trusted],
  ['security.', attributeIndexes.security],
] as const;
const acls = new Map<string, number>([
  ['system.posix_acl_access', attributeIndexes.aclAccess],
  ['system.posix_acl_default', attributeIndexes.aclDefault],
]);
const nothing = new Uint8Array(0);

function storedForm({ name, value }: ExtendedAttribute, modeMask: number): StoredAttribute | WarningKind {
  const text = Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1');
  const aclIndex = acls.get(text);
  if (aclIndex !== undefined) {
    // A default list says what new files get, not what this entry allows.
    const acl = storedAcl(value, aclIndex === attributeIndexes.aclAccess ? modeMask : PERMISSION_BITS);
    if (acl === undefined) return 'acl-invalid';
    return acl.length > ATTRIBUTE_VALUE_BYTES_MAX
      ? 'attribute-value-too-long'
      : { index: aclIndex, name: nothing, value: acl };
  }
  const namespace = namespaces.find(([prefix]) => text.startsWith(prefix));
  if (namespace === undefined) return 'attribute-namespace-unknown';
  const rest = name.subarray(namespace[0].length);
  // XATTR_NAME_MAX covers the whole name, prefix included; a NUL would end it.
  if (rest.length === 0 || name.length > NAME_BYTES_MAX || rest.includes(0)) return 'attribute-name-invalid';
  if (value.length > ATTRIBUTE_VALUE_BYTES_MAX) return 'attribute-value-too-long';
  return { index: namespace[1], name: rest, value };
}

function inBlockOrder(a: StoredAttribute, b: StoredAttribute): number {
  return a.index - b.index || a.name.length - b.name.length || Buffer.compare(a.name, b.name);
}

function entryBytes(attribute: StoredAttribute): number {
  return attributeEntry.sizeBytes + roundUp(attribute.name.length, 4);
}

function valueBytes(attribute: StoredAttribute): number {
  return roundUp(attribute.value.length, 4);
}

/** Writes the attributes kept inside an inode, whose 256 bytes begin at `at`. */
export function renderAttributeBody(attributes: readonly StoredAttribute[], target: Uint8Array, at: number): void {
  if (attributes.length === 0) return;
  viewOf(target).setUint32(at + ext4Inode.offsetOf('i_attributes'), ATTRIBUTE_MAGIC, true);
  const writer = new EntryWriter(target, {
    entries: at + ATTRIBUTE_BODY_START,
    values: at + INODE_SIZE,
    base: at + ATTRIBUTE_BODY_START,
  });
  for (const attribute of attributes) writer.add(attribute, hashEntry(attribute.name, valueWords(attribute.value)));
}

/** What the checksums of attributes depend on. */
export interface AttributeSeeds {
  /** The filesystem's checksum seed. */
  readonly seed: number;
  /** Physical number of the attribute block. */
  readonly block: number;
  /** The inode that holds the first value of plan.outside; the others follow it. */
  readonly firstValueInode: number;
}

/** Writes an attribute block into `target`, which is zero. */
export function renderAttributeBlock(plan: AttributePlan, seeds: AttributeSeeds, target: Uint8Array): void {
  const writer = new EntryWriter(target, { entries: attributeBlockHeader.sizeBytes, values: BLOCK_SIZE, base: 0 });
  let blockHash = 0;
  let valueInode = seeds.firstValueInode;
  for (const attribute of plan.block) {
    const outside = plan.outside.includes(attribute);
    // An outside value takes part in the hash by its checksum, as one word (attributes.rst, e_value_inum).
    const words = outside ? [attributeValueHash(seeds.seed, attribute.value)] : valueWords(attribute.value);
    const hash = hashEntry(attribute.name, words);
    blockHash = ((blockHash << 16) ^ (blockHash >>> 16) ^ hash) >>> 0;
    if (outside) writer.addOutside(attribute, hash, valueInode++);
    else writer.add(attribute, hash);
  }
  attributeBlockHeader.write(target, { h_magic: ATTRIBUTE_MAGIC, h_refcount: 1, h_blocks: 1, h_hash: blockHash });
  const start = crc32c(seeds.seed, checksumBlock.encode({ block: seeds.block }));
  attributeBlockHeader.write(target, { h_checksum: crc32c(start, target) });
}

/** The hash by which an inode that holds a value names it (i_atime), and its entry's hash covers it. */
export function attributeValueHash(seed: number, value: Uint8Array): number {
  return crc32c(seed, value);
}

/** Places entries upward and values downward. Offsets count from `base`. */
class EntryWriter {
  readonly #target: Uint8Array;
  readonly #base: number;
  #entries: number;
  #values: number;

  constructor(target: Uint8Array, { entries, values, base }: { entries: number; values: number; base: number }) {
    this.#target = target;
    this.#base = base;
    this.#entries = entries;
    this.#values = values;
  }

  add(attribute: StoredAttribute, hash: number): void {
    this.#values -= valueBytes(attribute);
    this.#target.set(attribute.value, this.#values);
    // An empty value has no place, so its offset is 0.
    const offset = attribute.value.length === 0 ? 0 : this.#values - this.#base;
    this.#write(attribute, { e_value_offs: offset, e_value_inum: 0, e_hash: hash });
  }

  addOutside(attribute: StoredAttribute, hash: number, inode: number): void {
    this.#write(attribute, { e_value_offs: 0, e_value_inum: inode, e_hash: hash });
  }

  #write(attribute: StoredAttribute, place: { e_value_offs: number; e_value_inum: number; e_hash: number }): void {
    attributeEntry.write(
      this.#target,
      {
        e_name_len: attribute.name.length,
        e_name_index: attribute.index,
        e_value_size: attribute.value.length,
        ...place,
      },
      this.#entries,
    );
    this.#target.set(attribute.name, this.#entries + attributeEntry.sizeBytes);
    this.#entries += entryBytes(attribute);
  }
}

/**
 * ext4_xattr_hash_entry: characters as signed, which is what kernels before 6.2 and e2fsck before 1.47 compute on x86;
 * later ones accept both.
 */
export function hashEntry(name: Uint8Array, value: readonly number[]): number {
  let hash = 0;
  for (const byte of name) hash = (hash << 5) ^ (hash >>> 27) ^ ((byte << 24) >> 24);
  for (const word of value) hash = (hash << 16) ^ (hash >>> 16) ^ word;
  return hash >>> 0;
}

/** A value as little-endian words, the last one filled up with zeroes. */
function valueWords(value: Uint8Array): number[] {
  const words: number[] = [];
  for (let at = 0; at < value.length; at += 4) {
    const [a = 0, b = 0, c = 0, d = 0] = value.subarray(at, at + 4);
    words.push((a | (b << 8) | (c << 16) | (d << 24)) >>> 0);
  }
  return words;
}
