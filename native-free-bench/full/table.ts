/** Results as Markdown: a table for each setting, its rows the metrics, its columns the contestants. */
import { formatBytes } from '../../src/core/units.ts';
import { metricIds, metrics } from './metrics.ts';
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

/** The number behind each figure is how many times better kloset-nbd is; where it is bold, it is worse. */
export function renderTables(results: Results): string {
  return results
    .settings()
    .map((setting) => `${heading(setting)}\n\n${renderTable(results, setting)}`)
    .join('\n\n');
}

function heading(setting: string): string {
  return `**${setting[0]!.toUpperCase()}${setting.slice(1)}**`;
}

function renderTable(results: Results, setting: string): string {
  const present = contestants.filter((contestant) =>
    results.cells.some((cell) => cell.setting === setting && cell.contestant === contestant),
  );
  const rows = metricIds.flatMap((id) => {
    const ours = results.median(id, setting);
    const values = present.map((contestant) => results.median(id, setting, contestant));
    if (values.every((value) => value === undefined)) return [];
    const cells = present.map((contestant: Contestant, i) =>
      renderCell(metrics[id], values[i], ours, contestant === 'kloset-nbd'),
    );
    return [[metrics[id].title, ...cells]];
  });
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(['', ...present]), line(['---', ...present.map(() => '---:')]), ...rows.map(line)].join('\n');
}
