/** The WAL segments of a backup: whether those are there that recovery needs. Source: xlog_internal.h, XLogFileName. */
import { exitCodes, UserError } from '../core/errors.ts';
import { entryName, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { toBytePath } from '../source/directory-lister.ts';
import { entryMeantBy } from '../source/tree-links.ts';
import { entryAt } from './data-directories.ts';

/** A name: timeline, then the segment's number in two parts, each 8 hex digits. */
const NAME = /^[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})$/;
/** Bytes of WAL that the first part of the number counts. */
const LOG_BYTES = 2 ** 32;

export interface WalNeeded {
  /** Bytes of the segments that are there from the first on. */
  readonly bytes: number;
  /** What is wrong with them, though a server would start; undefined if nothing is. */
  readonly gap: string | undefined;
}

/** Looks at the segments from `first` on, where recovery starts; `root` is the tree's place on the source machine. Throws UserError if that one is missing. */
export function requireWal(
  tree: SnapshotTree,
  dataDirectory: number,
  { first, segmentBytes, root }: { readonly first: string; readonly segmentBytes: number; readonly root: string },
): WalNeeded {
  const entry = entryAt(tree, dataDirectory, ['pg_wal']);
  const isLink = entry !== undefined && tree.type[entry] === entryTypes.symlink;
  const wal = isLink ? entryMeantBy(tree, entry, toBytePath(Buffer.from(root))) : entry;
  // What leads out of the snapshot is refused with the other links.
  if (isLink && wal === undefined) return { bytes: 0, gap: undefined };
  const segments = wal === undefined ? [] : segmentsOf(tree, wal);
  if (!segments.includes(first)) throw missing(first, segments);
  const numbers = new Set(segments.map((name) => segmentNumber(name, segmentBytes)));
  const start = segmentNumber(first, segmentBytes);
  const needed = [...numbers].filter((number) => number >= start);
  let next = start;
  while (numbers.has(next)) next++;
  const isWhole = needed.every((number) => number < next);
  const name = segmentName(first.slice(0, 8), next, segmentBytes);
  return {
    bytes: needed.length * segmentBytes,
    gap: isWhole
      ? undefined
      : `The WAL segment ${name} is missing between others: recovery ends before it, and what was committed later is lost`,
  };
}

function missing(segment: string, segments: readonly string[]): UserError {
  const there = segments.length === 0 ? 'it has none' : `it has ${segments[0]} to ${segments.at(-1)}`;
  return new UserError(
    `The backup lacks the WAL segment ${segment}, from which recovery starts (${there}): back up with pg_basebackup -X fetch or stream, ` +
      'or bring the segment from the archive. Do not use pg_resetwal: it makes a database that looks whole and is not.',
    { exitCode: exitCodes.damagedData },
  );
}

function segmentsOf(tree: SnapshotTree, wal: number): string[] {
  const first = tree.firstChild[wal]!;
  return Array.from({ length: tree.childCount[wal]! }, (_, i) => first + i)
    .filter((entry) => tree.type[entry] === entryTypes.file)
    .map((entry) => Buffer.from(entryName(tree, entry)).toString())
    .filter((name) => NAME.test(name));
}

function segmentNumber(name: string, segmentBytes: number): number {
  const [, log, segment] = NAME.exec(name) ?? [];
  return Number.parseInt(log!, 16) * (LOG_BYTES / segmentBytes) + Number.parseInt(segment!, 16);
}

function segmentName(timeline: string, number: number, segmentBytes: number): string {
  const perLog = LOG_BYTES / segmentBytes;
  const hex = (part: number) => part.toString(16).toUpperCase().padStart(8, '0');
  return `${timeline}${hex(Math.floor(number / perLog))}${hex(number % perLog)}`;
}
