/** Clones as people, and programs, read about them. */
import type { ChangedPath, CloneDiff } from '../clones/clone-diff.ts';
import type { CloneRecord } from '../clones/clone-record.ts';
import type { CloneCheck, CloneInfo, CloneList, CloneSummary } from '../clones/clone-service.ts';
import { formatBytes } from '../core/units.ts';
import { printable } from './printable.ts';
import { formatTable } from './table.ts';

/** Paths that `info` lists. */
const PATHS_LISTED_MAX = 20;

export function summaryJson({ record, storedBytes, connections }: CloneSummary): object {
  const { name, selector, parts, createdMs, resetMs, expiresMs, isProtected, layout, storeId } = record;
  return {
    name,
    snapshot: parts[0]?.snapshot,
    selector,
    parts,
    created: timeOf(createdMs),
    reset: resetMs === null ? null : timeOf(resetMs),
    expires: expiresMs === null ? null : timeOf(expiresMs),
    protected: isProtected,
    connected: connections > 0,
    connections,
    storedBytes,
    layout,
    store: storeId,
  };
}

export function describeList({ clones }: CloneList): string {
  if (clones.length === 0) return 'There are no clones.\n';
  const rows = clones.map(({ record, storedBytes, connections }) => [
    record.name,
    snapshotOf(record),
    timeOf(record.createdMs),
    formatBytes(storedBytes),
    record.expiresMs === null ? '' : timeOf(record.expiresMs),
    [...(connections > 0 ? ['connected'] : []), ...(record.isProtected ? ['protected'] : [])].join(', '),
  ]);
  return formatTable([['NAME', 'SNAPSHOT', 'CREATED', 'STORED', 'EXPIRES', ''], ...rows]);
}

export function describeInfo(info: CloneInfo): string {
  const { record, connections, storedBytes, dirtyBytes, diff, readOnlyReason } = info;
  const { createdMs, resetMs, expiresMs, isProtected } = record;
  const lines = [
    `Clone ${record.name} of ${snapshotOf(record)} (${record.selector})`,
    `  created    ${timeOf(createdMs)}${resetMs === null ? '' : `, reset ${timeOf(resetMs)}`}`,
    `  expires    ${expiresMs === null ? 'never' : timeOf(expiresMs)}${isProtected ? '; protected' : ''}`,
    `  clients    ${connections === 0 ? 'none' : `${connections} connected`}`,
    `  written    ${dirtyBytes} bytes (${formatBytes(dirtyBytes)}) of the disk, ${formatBytes(diff.zeroBytes)} of them zeroed or trimmed`,
    `  stored     ${storedBytes} bytes (${formatBytes(storedBytes)}) in files`,
    ...(readOnlyReason === null ? [] : [`  READ-ONLY  ${readOnlyReason}`]),
    '',
    ...diffLines(diff, { pathsMax: PATHS_LISTED_MAX, withRanges: false }),
  ];
  return `${lines.join('\n')}\n`;
}

export function describeDiff(diff: CloneDiff): string {
  return `${diffLines(diff, { pathsMax: Number.POSITIVE_INFINITY, withRanges: true }).join('\n')}\n`;
}

function diffLines(
  diff: CloneDiff,
  { pathsMax, withRanges }: { readonly pathsMax: number; readonly withRanges: boolean },
): string[] {
  if (diff.dirtyBytes === 0) return ['Nothing was written.'];
  const listed = diff.paths.slice(0, pathsMax);
  const more = diff.paths.length - listed.length + diff.morePaths;
  const metadata = Object.entries(diff.metadataBytes).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
  return [
    `Written since the snapshot, in ${diff.paths.length + diff.morePaths} of its files and directories:`,
    ...listed.flatMap((path) => pathLines(path, withRanges)),
    ...(more === 0 ? [] : [`  and ${more} more; "kloset-nbd diff" lists them`]),
    `New data in free space: ${diff.newBytes} bytes (${formatBytes(diff.newBytes)})`,
    `The filesystem's own: ${metadata.length === 0 ? 'nothing' : metadata.join(', ')}`,
  ];
}

function pathLines(
  { path, pathBytes, type, dirtyBytes, ranges, moreRanges, metadataBytes }: ChangedPath,
  withRanges: boolean,
): string[] {
  const name = printable(pathBytes === undefined ? Buffer.from(path) : Buffer.from(pathBytes, 'base64'));
  const kind = type === 'file' ? '' : ` (${type})`;
  const metadata = metadataBytes === 0 ? '' : `, ${formatBytes(metadataBytes)} of metadata`;
  return [
    `  ${name}${kind}  ${formatBytes(dirtyBytes)}${metadata}`,
    ...(withRanges
      ? ranges.map(({ offset, length, zero }) => `    ${offset}-${offset + length - 1}${zero ? ' zeroed' : ''}`)
      : []),
    ...(withRanges && moreRanges > 0 ? [`    and ${moreRanges} more ranges`] : []),
  ];
}

export function describeCheck(found: CloneCheck): string {
  const { name, isSound, readOnlyReason, hasTornTail, checkedBlocks, damagedBlockCount, damagedBlocks, remarks } =
    found;
  const lines = [
    ...(readOnlyReason === null ? [] : [`Damaged: ${readOnlyReason}`]),
    ...damagedBlocks.map(({ message }) => `Damaged: ${message}`),
    ...(damagedBlockCount > damagedBlocks.length
      ? [`and ${damagedBlockCount - damagedBlocks.length} blocks more`]
      : []),
    ...remarks.map((remark) => `Remark: ${remark}; nothing is lost`),
    ...(hasTornTail
      ? ['Its last writes were cut off by a crash; no FLUSH had confirmed them. That is no damage.']
      : []),
    isSound
      ? `Clone "${name}" is sound: ${checkedBlocks} blocks read.`
      : `Clone "${name}" is damaged: ${damagedBlockCount} of ${checkedBlocks} blocks cannot be read.`,
  ];
  return `${lines.join('\n')}\n`;
}

function snapshotOf({ parts }: CloneRecord): string {
  return parts
    .map(
      ({ snapshot, path, at }) =>
        `${snapshot.slice(0, 8)}${path === '/' ? '' : `:${path}`}${at === null ? '' : `=${at}`}`,
    )
    .join(' ');
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}
