/**
 * Symlinks that leave a tree: mounted somewhere on a host, they reach the host's files, which may be live.
 *
 * Targets are followed by their text, through the tree's directories and through symlinks to directories, as a kernel
 * would once the tree is mounted. Names that are not in the tree count as directories that somebody may yet make.
 */
import { entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { type BytePath, toBytePath } from './directory-lister.ts';
import { findChild } from './find-child.ts';

/** How many symlinks one path may lead through: the kernel's own limit (MAXSYMLINKS in include/linux/namei.h). */
const FOLLOWED_MAX = 40;

/** The longest target a symlink can have, bytes; longer ones are not shown as recorded. */
const TARGET_BYTES_MAX = 4095;

const SLASH = 0x2f;

/** A symlink that leads out of the tree. */
export interface LeavingLink {
  readonly entry: number;
  /** Its own target is absolute or has too many `..`, or it leads through another symlink of that kind. */
  readonly reason: 'absolute' | 'climbs' | 'through';
  /** The symlink whose target leaves: `entry` itself, or one that it leads through. */
  readonly via: number;
  /** The entry that the target meant where the snapshot was taken, if the tree has it; for absolute targets of `entry` itself. */
  readonly inside: number | undefined;
}

/**
 * All symlinks of a tree that leave it, in the tree's order. `root` is where the tree's root was on the source machine,
 * an absolute path without `.`, `..` and double slashes.
 */
export function* findLeavingLinks(tree: SnapshotTree, root: BytePath): Generator<LeavingLink> {
  for (let entry = 0; entry < tree.length; entry++) {
    if (tree.type[entry] !== entryTypes.symlink) continue;
    const end = follow(tree, entry, undefined);
    if (end.kind !== 'absolute' && end.kind !== 'climbs') continue;
    const isOwn = end.via === entry;
    const reason = isOwn ? end.kind : 'through';
    const inside = isOwn && end.kind === 'absolute' ? entryMeantBy(tree, entry, root) : undefined;
    yield { entry, reason, via: end.via, inside };
  }
}

/** Where a symlink led on the source machine, whose directory `root` the tree is; undefined if that is not in the tree. */
export function entryMeantBy(tree: SnapshotTree, link: number, root: BytePath): number | undefined {
  const end = follow(tree, link, namesOf(root));
  return end.kind === 'inside' ? end.entry : undefined;
}

type End =
  /** An entry of the tree. */
  | { readonly kind: 'inside'; readonly entry: number }
  /** A name below the tree's root that the tree does not have, or a loop: nothing is reached. */
  | { readonly kind: 'nothing' }
  | { readonly kind: 'absolute' | 'climbs'; readonly via: number };

/**
 * Follows a symlink to its end. With `root`, the names of the tree's place on the source machine, absolute targets
 * begin at that machine's root and can lead back into the tree; without, they leave it.
 */
function follow(tree: SnapshotTree, link: number, root: readonly BytePath[] | undefined): End {
  let at = 0;
  /** Names below `at` that are not in the tree. */
  let missing = 0;
  let followed = 0;
  /** Names still to go, the next one last, and whose target each is from. */
  const pending: { readonly name: BytePath; readonly from: number }[] = [];
  /** Takes a symlink's target up; returns why the path ends there, if it does. */
  const enter = (symlink: number): End | undefined => {
    const target = tree.linkTarget.get(symlink);
    const isShown = target !== undefined && target.length > 0 && target.length <= TARGET_BYTES_MAX;
    if (!isShown || followed++ === FOLLOWED_MAX) return { kind: 'nothing' };
    let names: readonly BytePath[] = namesOf(toBytePath(target));
    if (target[0] === SLASH) {
      const below = root === undefined ? undefined : namesBelow(root, names);
      if (below === undefined) return { kind: 'absolute', via: symlink };
      at = 0;
      names = below;
    } else {
      at = tree.parent[symlink]!;
    }
    for (let i = names.length - 1; i >= 0; i--) pending.push({ name: names[i]!, from: symlink });
    return undefined;
  };
  let end = enter(link);
  for (let next = pending.pop(); end === undefined && next !== undefined; next = pending.pop()) {
    const { name, from } = next;
    if (name === '..') {
      if (missing > 0) missing--;
      else if (at === 0) end = { kind: 'climbs', via: from };
      else at = tree.parent[at]!;
      continue;
    }
    const child = missing > 0 ? undefined : findChild(tree, at, Buffer.from(name, 'latin1'));
    if (child === undefined) missing++;
    else if (tree.type[child] === entryTypes.symlink) end = enter(child);
    else at = child;
  }
  return end ?? (missing > 0 ? { kind: 'nothing' } : { kind: 'inside', entry: at });
}

/** A path's names; empty ones and `.` mean nothing. */
function namesOf(path: BytePath): BytePath[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

/** What an absolute path has below `root`, or undefined if it does not lead there. */
function namesBelow(root: readonly BytePath[], path: readonly BytePath[]): BytePath[] | undefined {
  const names: BytePath[] = [];
  for (const name of path) {
    if (name === '..') names.pop();
    else names.push(name);
  }
  return root.every((name, i) => names[i] === name) ? names.slice(root.length) : undefined;
}
