import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { selectSnapshot } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import {
  type CompositionIdentity,
  identityOf,
  type Part,
  type PlacedSelector,
  partOf,
  snapshotsOf,
} from './composition.ts';
import { describeExport, selectorName } from './export-name.ts';
import type { OpenStore } from './open-store.ts';
import type { Overlays } from './overlays.ts';

/** What the name of an export stands for: a snapshot, a directory of one, or several on one disk. */
export interface Target {
  readonly parts: readonly Part[];
  readonly identity: CompositionIdentity;
  /** Where its overlay is kept. */
  readonly overlayKey: string;
  /** The name by which messages know it. */
  readonly name: string;
}

/** What targets are looked for in. */
export interface TargetSurroundings {
  readonly store: OpenStore;
  readonly overlays: Overlays;
  readonly log: Log;
  /** The directory below which every snapshot is put. */
  readonly into?: string | undefined;
}

/** Two names of one device have one id. */
export function deviceIdOf({ identity }: Target): string {
  return `${identity.snapshotId}:${identity.path}`;
}

/** One line for NBD_OPT_LIST: the first snapshot, and how many more there are. */
export function describeTarget({ parts }: Target, isVolatile: boolean): string {
  const first = describeExport(parts[0]!.header, isVolatile);
  return parts.length === 1 ? first : `${first} and ${parts.length - 1} more`;
}

/**
 * Finds what selectors mean together. An overlay pins its snapshots: `latest` goes on to mean the snapshot that an
 * overlay was made for under that name, even when the store has a newer one by now. Rejects with UserError (exit 64).
 */
export async function resolveTarget(
  surroundings: TargetSurroundings,
  selectors: readonly PlacedSelector[],
): Promise<Target> {
  const { overlays, into } = surroundings;
  const name = selectors.map(nameOf).join(' ');
  const pinned = await overlays.pinned(name);
  const pins = pinned === undefined ? [] : snapshotsOf(pinned);
  const parts = selectors.map((placed, i) =>
    partOf(findHeader(surroundings, placed, { name, pin: pins[i] }), placed, into),
  );
  const identity = identityOf(parts);
  const overlayKey = pinned === undefined ? await overlays.keyOf(identity.snapshotId, identity.path) : name;
  return { parts, identity, name, overlayKey: overlayKey ?? name };
}

/** As it was typed: two places of one snapshot are two exports. */
function nameOf({ selector, at }: PlacedSelector): string {
  return at === undefined ? selectorName(selector) : `${selectorName(selector)}=${at}`;
}

function findHeader(
  { store, log }: TargetSurroundings,
  { selector }: PlacedSelector,
  { name, pin }: { readonly name: string; readonly pin: string | undefined },
): SnapshotHeader {
  if (pin === undefined) return selectSnapshot(store.snapshots, selector, store.damaged);
  const header = store.snapshots.find(({ id }) => id === pin);
  const lost = store.damaged.find(({ id }) => id === pin);
  if (lost !== undefined) throw lost.error;
  if (header === undefined) {
    throw new UserError(
      `The overlay "${name}" belongs to snapshot ${pin}, which the store no longer holds. ` +
        'Remove that sub-directory of the overlay to give up what was written, or bring the snapshot back.',
    );
  }
  const newest = selector.kind === 'id' ? header : selectSnapshot(store.snapshots, selector);
  if (newest !== header) {
    log.warn(
      { export: name, snapshot: header.id, newer: newest.id },
      `"${name}" stays snapshot ${header.id.slice(0, 8)}, which its overlay was made for; the store has ${newest.id.slice(0, 8)} by now`,
    );
  }
  return header;
}
