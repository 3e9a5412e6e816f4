/**
 * Which inode an entry has, and back. Inodes follow the entries' order; further names of one inode (hard links) have
 * none of their own, so an entry's number is its index less the extra names before it. Behind the last entry come the
 * inodes that hold long attribute values.
 */
import { assert } from '../core/errors.ts';
import { entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { lastAtOrBefore } from './bytes.ts';
import { inodeNumbers, LINKS_MAX } from './format.ts';
import type { WarningCollector } from './warnings.ts';

export class InodeNumbers {
  readonly entryCount: number;
  /** Number of the inode behind the last entry's: the first one that can hold an attribute value. */
  readonly entriesEnd: number;
  readonly #firstEntryInode: number;
  /** Entries that are further names, ascending; and for each the entry whose inode it names. */
  readonly #extraNames: Uint32Array;
  readonly #extraOwners: Uint32Array;
  /** #extraNames[j] - j: entries with an inode of their own before that extra name. */
  readonly #ownBefore: Uint32Array;
  /** Names of the inodes that have more than one, by owner. */
  readonly #names: ReadonlyMap<number, number>;
  /** Owners made for names 65,001 onwards -> the entry that has the content. */
  readonly #sameContent: ReadonlyMap<number, number>;

  constructor(tree: SnapshotTree, { ownLostFound, warnings }: { ownLostFound: boolean; warnings: WarningCollector }) {
    this.entryCount = tree.length;
    this.#firstEntryInode = inodeNumbers.firstFree + (ownLostFound ? 0 : 1);
    const links = groupLinks(tree, warnings);
    this.#extraNames = links.extraNames;
    this.#extraOwners = links.extraOwners;
    this.#names = links.names;
    this.#sameContent = links.sameContent;
    this.#ownBefore = this.#extraNames.map((entry, j) => entry - j);
    this.entriesEnd = this.#firstEntryInode + tree.length - 1 - this.#extraNames.length;
  }

  /** The inode an entry names. */
  inodeOf(entry: number): number {
    if (entry === 0) return inodeNumbers.root;
    const extra = this.#extraNames.length === 0 ? 0 : this.#extrasUpTo(entry);
    if (extra > 0 && this.#extraNames[extra - 1] === entry) return this.inodeOf(this.#extraOwners[extra - 1]!);
    return this.#firstEntryInode - 1 + entry - extra;
  }

  /** The entry that owns an inode (of several names the first); -1 if none does. */
  entryOf(inode: number): number {
    if (inode === inodeNumbers.root) return 0;
    if (inode < this.#firstEntryInode || inode >= this.entriesEnd) return -1;
    return this.#ownedEntry(inode - this.#firstEntryInode + 1);
  }

  /** The first entry, extra names skipped, whose inode is `inode` or later; entryCount if there is none. The root does not count. */
  entryFrom(inode: number): number {
    if (inode >= this.entriesEnd) return this.entryCount;
    return this.#ownedEntry(Math.max(inode, this.#firstEntryInode) - this.#firstEntryInode + 1);
  }

  /** Whether an entry is a second or later name of another entry's inode. */
  isExtraName(entry: number): boolean {
    if (this.#extraNames.length === 0) return false;
    const extra = this.#extrasUpTo(entry);
    return extra > 0 && this.#extraNames[extra - 1] === entry;
  }

  /** Names of an owner's inode in the tree, never the count the snapshot recorded: other names may lie outside it. */
  nameCount(entry: number): number {
    return this.#names.get(entry) ?? 1;
  }

  /** The entry whose content an owner's inode shows: itself, but for inodes that continue a split link group. */
  contentEntry(entry: number): number {
    return this.#sameContent.get(entry) ?? entry;
  }

  /** Extra names with an index <= entry. */
  #extrasUpTo(entry: number): number {
    if (this.#extraNames.length === 0 || this.#extraNames[0]! > entry) return 0;
    return lastAtOrBefore(this.#extraNames, this.#extraNames.length, entry) + 1;
  }

  /** The entry before which there are `before` entries with an inode of their own. */
  #ownedEntry(before: number): number {
    const own = this.#ownBefore;
    if (own.length === 0 || own[0]! > before) return before;
    return before + lastAtOrBefore(own, own.length, before) + 1;
  }
}

interface Links {
  extraNames: Uint32Array;
  extraOwners: Uint32Array;
  names: Map<number, number>;
  sameContent: Map<number, number>;
}

/** Every 65,000 names of an inode begin another one: ext4 holds no more. They share the content until the first write. */
function groupLinks(tree: SnapshotTree, warnings: WarningCollector): Links {
  const sorted = Uint32Array.from(tree.sameInodeAs.keys()).sort();
  const extraNames = new Uint32Array(sorted.length);
  const extraOwners = new Uint32Array(sorted.length);
  const names = new Map<number, number>();
  const sameContent = new Map<number, number>();
  const owners = new Map<number, number>();
  let extras = 0;
  for (const entry of sorted) {
    const first = tree.sameInodeAs.get(entry)!;
    assert(first < entry && !tree.sameInodeAs.has(first), 'a further name points to the first one');
    assert(tree.type[entry] === tree.type[first], 'names of one inode have one type');
    assert(tree.type[entry] !== entryTypes.directory, 'a directory has one name');
    const owner = owners.get(first) ?? first;
    const count = names.get(owner) ?? 1;
    if (count === LINKS_MAX) {
      owners.set(first, entry);
      sameContent.set(entry, first);
      warnings.add('hard-links-split', entry);
    } else {
      names.set(owner, count + 1);
      extraNames[extras] = entry;
      extraOwners[extras++] = owner;
    }
  }
  return { extraNames: extraNames.slice(0, extras), extraOwners: extraOwners.slice(0, extras), names, sameContent };
}
