import { UserError } from '../core/errors.ts';
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

/** A name with what stands behind it. */
export interface SuffixedName {
  readonly name: string;
  /** NAME@base: the pristine, read-only device. */
  readonly isBase: boolean;
  /** NAME@TOKEN: the one that the device must have. */
  readonly token: string | undefined;
}

/** Takes NAME@base or NAME@TOKEN apart; any other name is a NAME without a suffix. */
export function splitSuffix(name: string): SuffixedName {
  if (name.endsWith(BASE_SUFFIX)) return { name: name.slice(0, -BASE_SUFFIX.length), isBase: true, token: undefined };
  const [, own = name, token] = WITH_TOKEN.exec(name) ?? [];
  return { name: own, isBase: false, token };
}

/** Why a disk that somebody was attached to cannot be had any more; `own` is its name without the token. */
export function goneError(name: string, own: string, { isVolatile }: { isVolatile: boolean }): UserError {
  const why = isVolatile
    ? "this disk's writes were lost when the server ended"
    : 'its overlay was removed, or another snapshot or layout is served under its name';
  return new UserError(`The disk "${name}" is gone: ${why}. Unmount and detach it; "${own}" is another disk.`);
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
