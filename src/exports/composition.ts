/** What a disk is made of: one snapshot, one below a directory, or several side by side. */
import { createHash } from 'node:crypto';
import { assert, UserError } from '../core/errors.ts';
import { parseSelector, type Selector, selectSnapshot } from '../kloset/selector.ts';
import type { DamagedSnapshot, SnapshotHeader } from '../kloset/snapshot.ts';
import { splitPlace } from '../source/compose-tree.ts';
import { fromBytePath } from '../source/directory-lister.ts';
import { resolveRoot } from '../source/kloset-source.ts';

/** A directory of a snapshot. */
export interface Part {
  readonly header: SnapshotHeader;
  /** Absolute; `/` for all of it. */
  readonly path: string;
  /** Where on the disk it goes: names separated by `/`; undefined: it is the disk's root, and the only part. */
  readonly at: string | undefined;
}

/** By what an overlay and a layout know what they are made of. */
export interface CompositionIdentity {
  /** 64 hex digits: the snapshot's id; for several, a digest of what they are. */
  readonly snapshotId: string;
  /** The directory that is the disk's root, absolute; a JSON array of the parts where there is more to say. */
  readonly path: string;
}

/** What a part is without the rest of its header; the keys' order is that of the text. */
interface RecordedPart {
  readonly snapshot: string;
  readonly path: string;
  readonly at: string;
}

export function identityOf(parts: readonly Part[]): CompositionIdentity {
  const [first, ...others] = parts;
  assert(first !== undefined, 'a disk is made of something');
  if (first.at === undefined) {
    assert(others.length === 0, 'what lies side by side has names');
    return { snapshotId: first.header.id, path: first.path };
  }
  const text = JSON.stringify(
    parts.map(({ header, path, at }): RecordedPart => ({ snapshot: header.id, path, at: at! })),
  );
  const snapshotId = others.length === 0 ? first.header.id : createHash('sha256').update(text).digest('hex');
  return { snapshotId, path: text };
}

/** The snapshots behind an identity, in the order of the parts. */
export function snapshotsOf({ snapshotId, path }: CompositionIdentity): string[] {
  // A directory's path is absolute: it cannot be taken for an array.
  if (!path.startsWith('[')) return [snapshotId];
  return (JSON.parse(path) as RecordedPart[]).map(({ snapshot }) => snapshot);
}

/** A selector, and the name it is given on the disk. */
export interface PlacedSelector {
  readonly selector: Selector;
  /** Undefined: the disk's root. */
  readonly at: string | undefined;
}

/**
 * `SELECTOR=NAME`; the name begins at the last `=`. An empty one is none, so that a selector that holds a `=` itself can
 * be written with another one behind it. Throws UserError (exit 64).
 */
export function parsePlacedSelector(text: string): PlacedSelector {
  const equals = text.lastIndexOf('=');
  if (equals === -1) return { selector: parseSelector(text), at: undefined };
  const at = text.slice(equals + 1);
  if (at !== '') splitPlace(at);
  return { selector: parseSelector(text.slice(0, equals)), at: at === '' ? undefined : at };
}

/** The directory of `header`'s snapshot that was asked for, put below `into` if that is given. */
export function partOf(header: SnapshotHeader, { selector, at }: PlacedSelector, into: string | undefined): Part {
  const places = [into, at].filter((place) => place !== undefined);
  return {
    header,
    // Two ways to write a path name one directory.
    path: fromBytePath(resolveRoot(header, selector.path)).toString(),
    at: places.length === 0 ? undefined : places.join('/'),
  };
}

/**
 * What one disk is to be made of, for commands that make one. Throws UserError (exit 64) for several selectors without
 * names, or one that means no snapshot, CorruptStoreError for one that means a damaged one.
 */
export function partsOf(
  headers: readonly SnapshotHeader[],
  selectors: readonly PlacedSelector[],
  into: string | undefined,
  damaged: readonly DamagedSnapshot[] = [],
): Part[] {
  const unnamed = selectors.find(({ at }) => at === undefined);
  if (selectors.length > 1 && unnamed !== undefined) {
    throw new UserError(`Several snapshots on one disk need a name each: write ${unnamed.selector.text}=NAME, too.`);
  }
  return selectors.map((placed) => partOf(selectSnapshot(headers, placed.selector, damaged), placed, into));
}
