/**
 * Symlinks of a data directory. On the machine where a backup is looked at, a link that leaves the snapshot may lead into
 * a live cluster; each must get a place inside, or go.
 */
import { UserError } from '../core/errors.ts';
import { entryPath, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { toBytePath } from '../source/directory-lister.ts';
import { findLeavingLinks, type LeavingLink } from '../source/tree-links.ts';
import type { MappedTablespace } from './backup-label.ts';
import { entryAt, isBelow } from './data-directories.ts';

/** What to do with one link; paths lie below the tree's root and begin with `/`. */
export type LinkChange =
  | { readonly kind: 'relink'; readonly link: string; readonly target: string }
  | { readonly kind: 'drop'; readonly link: string };

export interface LinkOptions {
  readonly tree: SnapshotTree;
  /** The tree's root in the snapshot, an absolute path. */
  readonly root: string;
  readonly dataDirectory: number;
  /** What tablespace_map lists. */
  readonly mapped: readonly MappedTablespace[];
  /** Where the operator says a tablespace lies in the snapshot: OID -> absolute path in it. */
  readonly placed: ReadonlyMap<string, string>;
  /** Tablespaces that are nowhere are left out. */
  readonly withoutTablespaces: boolean;
}

/** Plans what happens to the links. Throws UserError listing those for which there is no way. */
export function planLinks(options: LinkOptions): LinkChange[] {
  const { tree, dataDirectory, withoutTablespaces } = options;
  const base = entryPath(tree, dataDirectory).replace(/^\/$/, '');
  const changes: LinkChange[] = [];
  const lost: string[] = [];
  const settle = (link: string, oid: string | undefined, target: number | undefined, where: string) => {
    if (target !== undefined) changes.push({ kind: 'relink', link, target: entryPath(tree, target) });
    else if (oid !== undefined && withoutTablespaces) changes.push({ kind: 'drop', link });
    else lost.push(`${link} -> ${where}`);
  };
  const linked = new Set<string>();
  for (const leaving of findLeavingLinks(tree, toBytePath(Buffer.from(options.root)))) {
    if (!isBelow(tree, leaving.entry, dataDirectory)) continue;
    const link = entryPath(tree, leaving.entry);
    const oid = tablespaceOf(link, base);
    if (oid !== undefined) linked.add(oid);
    const where = Buffer.from(tree.linkTarget.get(leaving.entry) ?? []).toString();
    settle(link, oid, placedEntry(options, oid) ?? insideOf(leaving), where);
  }
  for (const { oid, path } of options.mapped) {
    const isThere = entryAt(tree, dataDirectory, ['pg_tblspc', oid]) !== undefined;
    if (linked.has(oid) || isThere) continue;
    settle(`${base}/pg_tblspc/${oid}`, oid, placedEntry(options, oid) ?? entryOfPath(options, path), path);
  }
  if (lost.length > 0) throw leavingError(lost);
  return changes;
}

/** How many links are told by name. */
const LOST_TOLD_MAX = 20;

/** Links for which there is no way on this disk. */
export class LeavingLinksError extends UserError {}

function leavingError(lost: readonly string[]): LeavingLinksError {
  const untold = lost.length - LOST_TOLD_MAX;
  const told = lost.slice(0, LOST_TOLD_MAX).join(', ') + (untold > 0 ? `, and ${untold} more` : '');
  return new LeavingLinksError(
    `Symlinks of the data directory leave the snapshot, and could lead into live files of this machine: ${told}. ` +
      'Take a snapshot that holds what they lead to, name a place in it with --tablespace OID=PATH, or leave tablespaces out with --without-tablespaces.',
  );
}

/** Only what a link itself meant can be put right; one that leads through another link is right when that one is. */
function insideOf({ reason, inside }: LeavingLink): number | undefined {
  return reason === 'absolute' ? inside : undefined;
}

function placedEntry(options: LinkOptions, oid: string | undefined): number | undefined {
  const path = oid === undefined ? undefined : options.placed.get(oid);
  if (path === undefined) return undefined;
  const entry = entryOfPath(options, path);
  if (entry === undefined) throw new UserError(`--tablespace ${oid}=${path}: the snapshot has no such directory.`);
  return entry;
}

/** A directory, by its path on the source machine. */
function entryOfPath({ tree, root }: LinkOptions, path: string): number | undefined {
  const names = (text: string) => text.split('/').filter((name) => name !== '');
  const below = names(root);
  const wanted = names(path);
  if (below.some((name, i) => wanted[i] !== name)) return undefined;
  const entry = entryAt(tree, 0, wanted.slice(below.length));
  return entry !== undefined && tree.type[entry] === entryTypes.directory ? entry : undefined;
}

/** `16384` for the link `…/pg_tblspc/16384`. */
function tablespaceOf(link: string, base: string): string | undefined {
  return link.startsWith(`${base}/pg_tblspc/`) ? link.slice(`${base}/pg_tblspc/`.length) : undefined;
}
