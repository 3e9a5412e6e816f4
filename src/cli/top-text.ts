/** The tables of `top`, for terminals. */

import type { RestoreEstimate } from '../core/restore-estimate.ts';
import { formatBytes } from '../core/units.ts';
import { printable } from './printable.ts';
import { formatTable } from './table.ts';
import type { ToldCost, ToldFile, ToldRelation, ToldSnapshot, TopReport } from './top-report.ts';

const COST_COLUMNS = ['REQUESTS', 'ASKED', 'WAITED', 'CHUNKS', 'FETCHED', 'DECODED'];

export interface TopView {
  /** Rows of each table. */
  readonly rowsMax: number;
  /** Characters of a line; what is longer is cut. */
  readonly columns: number | undefined;
}

export function formatTop({ pid, uptimeSeconds, snapshots }: TopReport, view: TopView): string {
  const head = `kloset-nbd, process ${pid}, up ${formatSeconds(uptimeSeconds)}\n`;
  const body = snapshots.map((snapshot) => formatSnapshot(snapshot, view)).join('\n');
  const text = `${head}${body || 'No disk is open yet.\n'}`;
  if (view.columns === undefined) return text;
  return text.replace(/[^\n]+/g, (line) => line.slice(0, view.columns));
}

function formatSnapshot(snapshot: ToldSnapshot, { rowsMax }: TopView): string {
  const { exports, files, filesTouched, databases, relations, namesMissing, estimate } = snapshot;
  const names = exports.map((name) => printable(Buffer.from(name)) || '(default)').join(', ');
  const lines = [`\n${snapshot.snapshot.slice(0, 8)}:${snapshot.root} as ${names}\n${describeEstimate(estimate)}\n`];
  if (databases !== undefined && relations !== undefined) {
    const rows = databases.map((each) => [
      each.database === null ? '(shared and other files)' : text(each.database),
      ...costCells(each),
    ]);
    lines.push(table(['DATABASE', ...COST_COLUMNS], rows, rowsMax));
    const named = relations.map((each) => [...relationCells(each), ...costCells(each)]);
    lines.push(table(['DATABASE', 'RELATION', 'KIND', ...COST_COLUMNS], named, rowsMax));
    if (namesMissing !== undefined) lines.push(`Some names are not known: ${text(namesMissing)}.\n`);
  }
  const cells = files.map((each) => [pathOf(each), ...costCells(each)]);
  lines.push(table([`FILE (of ${filesTouched} touched)`, ...COST_COLUMNS], cells, rowsMax));
  return lines.join('\n');
}

/** One line: how much was fetched, and whether a restore would have been faster. */
export function describeEstimate(estimate: RestoreEstimate): string {
  const { contentBytes, distinctFetchedBytes, share, fetchSeconds, restoreSeconds, restoreIsFaster } = estimate;
  const fetched = `Fetched ${formatBytes(distinctFetchedBytes)} of ${formatBytes(contentBytes)} (${Math.round(share * 100)} %)`;
  if (fetchSeconds === null || restoreSeconds === null) return `${fetched}.`;
  const judged = restoreIsFaster ? 'a restore would have been faster' : 'past about a third a restore is faster';
  return `${fetched} in ${formatSeconds(fetchSeconds)}; a restore is estimated at ${formatSeconds(restoreSeconds)}: ${judged}.`;
}

function relationCells({ database, schema, name, kind, owner, filenode }: ToldRelation): string[] {
  const own = name === undefined ? `file ${filenode}` : [schema, name].filter((part) => part !== undefined).join('.');
  return [
    database === undefined ? '-' : text(database),
    text(own),
    owner === undefined ? kind : `${kind} of ${text(owner)}`,
  ];
}

function costCells({ requests, bytes, waitSeconds, chunks, storeBytes, decodedBytes }: ToldCost): string[] {
  return [
    String(requests),
    formatBytes(bytes),
    formatSeconds(waitSeconds),
    String(chunks),
    formatBytes(storeBytes),
    formatBytes(decodedBytes),
  ];
}

function pathOf({ path, pathHex }: ToldFile): string {
  return path === null ? printable(Buffer.from(pathHex!, 'hex')) : text(path);
}

function text(name: string): string {
  return printable(Buffer.from(name));
}

function table(heading: readonly string[], rows: readonly (readonly string[])[], rowsMax: number): string {
  return formatTable([heading, ...rows.slice(0, rowsMax)]);
}

/** `250 ms`, `3.2 s`, `4 min 10 s`. */
function formatSeconds(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
