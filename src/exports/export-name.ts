import { formatBytes } from '../core/units.ts';
import { formatTime, type Selector } from '../kloset/selector.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';

/** Suffix of the pristine, read-only device of an export. */
export const BASE_SUFFIX = '@base';

/** NAME@TOKEN, TOKEN of 32 hex digits. */
const WITH_TOKEN = /^(.*)@([0-9a-f]{32})$/s;

/** The name that reaches one disk, whatever else has been given its NAME since: see Overlays.tokenOf. */
export function attachName(name: string, token: string): string {
  return `${name}@${token}`;
}

/** The two parts of a name that `attachName` made; undefined if it is none. */
export function splitAttachName(name: string): { readonly name: string; readonly token: string } | undefined {
  const [, own, token] = WITH_TOKEN.exec(name) ?? [];
  return own === undefined || token === undefined ? undefined : { name: own, token };
}

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
