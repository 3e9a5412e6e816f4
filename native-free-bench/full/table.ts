/** Results as Markdown: a table for each setting, its rows the metrics, its columns the contestants. */
import { formatBytes } from '../../src/core/units.ts';
import { type MetricId, metricIds, metrics } from './metrics.ts';
import { type Contestant, contestants, type Metric, type Results, type Unit } from './results.ts';

/** `0.61 s`, `3.2 MiB`, `118 MB/s`: three digits that say something. */
export function renderValue(value: number, unit: Unit): string {
  if (unit === 'bytes') return formatBytes(value);
  if (unit === 'bytes/s') return `${digits(value / 1e6)} MB/s`;
  if (unit === '1/s') return `${digits(value)}/s`;
  return unit === '' ? digits(value) : `${digits(value)} ${unit}`;
}

function digits(value: number): string {
  if (Number.isInteger(value) || Math.abs(value) >= 100) return Math.round(value).toLocaleString('en');
  return value.toPrecision(value < 0.1 ? 2 : 3);
}

/** How many times better than `other` our figure is: above 1 we win. Undefined where the two cannot be compared. */
export function advantage(metric: Metric, ours: number, other: number): number | undefined {
  if (metric.better === 'neither' || ours <= 0 || other <= 0) return undefined;
  return metric.better === 'less' ? other / ours : ours / other;
}

function renderCell(metric: Metric, value: number | undefined, ours: number | undefined, isOurs: boolean): string {
  if (value === undefined) return '';
  const text = renderValue(value, metric.unit);
  const ratio = isOurs || ours === undefined ? undefined : advantage(metric, ours, value);
  if (ratio === undefined) return text;
  return ratio >= 1 ? `${text} (${digits(ratio)} x)` : `${text} (**${digits(ratio)} x**)`;
}

/** A table for each setting; behind each figure, how many times better kloset-nbd is: bold where it is worse. */
export function renderTables(results: Results): string {
  return results
    .settings()
    .map((setting) => {
      const rows = metricIds.map((id) => ({ id, setting, title: metrics[id].title }));
      return `**${capitalised(setting)}**\n\n${renderTable(results, rows)}`;
    })
    .join('\n\n');
}

/** One table of the chief rows, on all stores. */
export function renderSummary(results: Results): string {
  const rows = metricIds
    .filter((id) => !metrics[id].title.startsWith('- ') || summarised.includes(id))
    .flatMap((id) => results.settings().map((setting) => ({ id, setting, title: `${metrics[id].title}; ${setting}` })));
  return renderTable(results, rows);
}

/** Rows that belong to one above them and are in the summary all the same. */
const summarised: readonly MetricId[] = [
  'first-query-bytes',
  'first-query-needed',
  'first-query-key',
  'lookups-warm',
  'lookups-disk',
  'lookups-disk-cold',
  'overlay-growth',
  'copy-memory',
];

interface TableRow {
  readonly id: MetricId;
  readonly setting: string;
  readonly title: string;
}

function renderTable(results: Results, asked: readonly TableRow[]): string {
  const medianOf = ({ id, setting }: TableRow, contestant: Contestant) => results.median(id, setting, contestant);
  const rows = asked.filter((row) => contestants.some((contestant) => medianOf(row, contestant) !== undefined));
  const present = contestants.filter((contestant) => rows.some((row) => medianOf(row, contestant) !== undefined));
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const lines = rows.map((row) => {
    const ours = medianOf(row, 'kloset-nbd');
    const cellOf = (contestant: Contestant) =>
      renderCell(metrics[row.id], medianOf(row, contestant), ours, contestant === 'kloset-nbd');
    return line([row.title, ...present.map(cellOf)]);
  });
  return [line(['', ...present]), line(['---', ...present.map(() => '---:')]), ...lines].join('\n');
}

function capitalised(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}
