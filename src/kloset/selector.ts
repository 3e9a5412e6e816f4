import { UserError } from '../core/errors.ts';
import type { DamagedSnapshot, SnapshotHeader } from './snapshot.ts';

/** Which snapshot, and which directory in it, an operator asks for. */
export interface Selector {
  /** As typed, without the path. */
  readonly text: string;
  readonly kind: 'latest' | 'tag' | 'id';
  /** The tag, or the hex prefix. */
  readonly value: string;
  /** The directory that becomes the root; undefined: the snapshot's `/`. Relative to the directory that was backed up unless it begins with `/`. */
  readonly path: string | undefined;
}

const TAG_PREFIX = 'tag:';
/** 100 million days: the times that a Date holds end there (ECMA-262, 21.4.1.1). */
const DATE_SECONDS_MAX = 8.64e12;

/** Parses `latest`, `tag:NAME` or a hex prefix, each with an optional `:PATH`. Throws UserError (exit 64). */
export function parseSelector(text: string): Selector {
  const tagged = text.startsWith(TAG_PREFIX);
  const colon = text.indexOf(':', tagged ? TAG_PREFIX.length : 0);
  const head = colon < 0 ? text : text.slice(0, colon);
  const path = colon < 0 ? undefined : text.slice(colon + 1);
  if (head === 'latest') return { text: head, kind: 'latest', value: '', path };
  if (tagged) {
    const tag = head.slice(TAG_PREFIX.length);
    if (tag === '') throw new UserError(`"${text}" names no tag. Write tag:NAME.`);
    return { text: head, kind: 'tag', value: tag, path };
  }
  if (!/^[0-9a-fA-F]{0,64}$/.test(head)) {
    throw new UserError(
      `"${head}" is not a snapshot. Write the first hex digits of its id, latest, or tag:NAME; "kloset-nbd snapshots" lists them.`,
    );
  }
  return { text: head, kind: 'id', value: head.toLowerCase(), path };
}

/**
 * The snapshot a selector means among `headers` (newest first). Throws UserError (exit 64) if none or several match,
 * CorruptStoreError if it means one of the `damaged`: of those no more than the id is known, so that `latest` and tags
 * pass them over unless there is nothing else.
 */
export function selectSnapshot(
  headers: readonly SnapshotHeader[],
  selector: Selector,
  damaged: readonly DamagedSnapshot[] = [],
): SnapshotHeader {
  const matches = headers.filter((header) => matchesSelector(header, selector));
  const [first] = matches;
  const [lost] = damaged.filter(({ id }) => selector.kind !== 'id' || id.startsWith(selector.value));
  if (lost !== undefined && (first === undefined || (selector.kind === 'id' && selector.value !== ''))) {
    throw lost.error;
  }
  if (first === undefined) {
    const what = selector.kind === 'tag' ? `the tag "${selector.value}"` : `"${selector.text}"`;
    throw new UserError(
      headers.length === 0
        ? 'The store holds no snapshots.'
        : `No snapshot of the store matches ${what}. "kloset-nbd snapshots" lists them.`,
    );
  }
  if (selector.kind === 'id' && matches.length > 1) {
    const listed = matches.map(
      (header) => `${header.id.slice(0, Math.max(8, selector.value.length + 2))} (${formatTime(header)})`,
    );
    throw new UserError(
      `"${selector.text}" matches ${matches.length} snapshots: ${listed.join(', ')}. Give more digits, or latest.`,
    );
  }
  return first;
}

/** Whether a selector can mean that snapshot. */
export function matchesSelector(header: SnapshotHeader, { kind, value }: Selector): boolean {
  switch (kind) {
    case 'latest':
      return true;
    case 'tag':
      return header.tags.includes(value);
    case 'id':
      return header.id.startsWith(value);
  }
}

/** A snapshot's time as plakar prints it: `2026-11-22T15:13:45Z`. */
export function formatTime({ timestamp: { seconds } }: Pick<SnapshotHeader, 'timestamp'>): string {
  // A header is not covered by a MAC of its own: what it says need not be a time that Date can hold.
  if (Math.abs(seconds) > DATE_SECONDS_MAX) return `second ${seconds}`;
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
}
