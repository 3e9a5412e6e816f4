import { formatBytes } from '../core/units.ts';
import { formatTime, type Selector } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';

/** Suffix of the pristine, read-only device of an export. */
export const BASE_SUFFIX = '@base';

/** The digits of an id that plakar prints. */
export const SHORT_ID_DIGITS = 8;

/** The shortest name of a snapshot that is its own: 8 digits, more where two snapshots share them. */
export function shortName(header: SnapshotHeader, all: readonly SnapshotHeader[]): string {
  const short = header.id.slice(0, SHORT_ID_DIGITS);
  return all.some((other) => other !== header && other.id.startsWith(short)) ? header.id : short;
}

/** A selector as an export's name: the path belongs to it. */
export function selectorName(selector: Selector): string {
  return selector.path === undefined ? selector.text : `${selector.text}:${selector.path}`;
}

/** One line for NBD_OPT_LIST. */
export function describeExport(header: SnapshotHeader, isVolatile: boolean): string {
  const parts = [formatTime(header)];
  if (header.tags.length > 0) parts.push(`tags=${header.tags.join(',')}`);
  parts.push(formatBytes(header.totalBytes));
  if (isVolatile) parts.push('(volatile)');
  return parts.join(' ');
}
