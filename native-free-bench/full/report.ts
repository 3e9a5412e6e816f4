/** The results as files: a table for people, the values for programs, a plot. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderPlot, type Series } from './plot.ts';
import type { Contestant, Results } from './results.ts';
import { renderSummary, renderTables } from './table.ts';
import { judge, renderTargets } from './targets.ts';

export interface ReportParts {
  /** Machine, versions, workload. */
  readonly head: readonly string[];
  readonly results: Results;
  /** Bytes of the files behind a setting, for the plot. */
  readonly sizes: ReadonlyMap<string, number>;
}

/** Everything as one Markdown text. */
export function renderReport({ head, results, sizes }: ReportParts): string {
  const list = (lines: readonly string[]) => lines.map((line) => `- ${line}`).join('\n');
  const skipped = results.skips.map(({ what, why }) => `${what}: ${why}`);
  const parts = [
    list([...head, ...results.remarks, ...breakEvens(results, sizes)]),
    'In brackets: how many times better kloset-nbd is; **bold** where it is worse.',
    renderTables(results),
    renderTargets(judge(results)),
    ...(skipped.length === 0 ? [] : [`Skipped:\n\n${list(skipped)}`]),
  ];
  return `${parts.join('\n\n')}\n`;
}

/** How much of a database may be read until a restore would have been faster: a sentence for each local store. */
export function breakEvens(results: Results, sizes: ReadonlyMap<string, number>): string[] {
  return [...sizes].flatMap(([setting, fileBytes]) => {
    const scan = results.median('sum-abalance', setting);
    const ours = results.median('first-query', setting);
    const restored = results.median('first-query', setting, 'plakar restore');
    if (scan === undefined || ours === undefined || restored === undefined || fileBytes === 0) return [];
    const share = Math.max(0, ((restored - ours) * scan) / fileBytes);
    if (share >= 1) return [`${setting}: a scan of all data is done before a restore would be`];
    return [`${setting}: who reads more than about ${Math.round(share * 100)} % of the data is faster with a restore`];
  });
}

/** The part of the README between its two marks, made of this run. Throws Error if the marks are not there. */
export function replaceInReadme(readme: string, { head, results, sizes }: ReportParts): string {
  const [begin, end] = [readme.indexOf(README_BEGIN), readme.indexOf(README_END)];
  if (begin < 0 || end < begin) throw new Error(`README.md lacks ${README_BEGIN} and ${README_END}`);
  const lines = [...head, ...results.remarks, ...breakEvens(results, sizes)].map((line) => `- ${line}`);
  const part = `${README_BEGIN}\n\n${renderSummary(results)}\n\n${lines.join('\n')}\n\n`;
  return `${readme.slice(0, begin)}${part}${readme.slice(end)}`;
}

const README_BEGIN = '<!-- bench: begin -->';
const README_END = '<!-- bench: end -->';

/** One line for each contestant that has a first query in local plaintext stores. */
export function firstQuerySeries({ results, sizes }: Pick<ReportParts, 'results' | 'sizes'>): Series[] {
  const names: readonly Contestant[] = ['kloset-nbd', 'plakar restore', 'qcow2', 'plakar mount'];
  return names
    .map((name) => ({
      name,
      points: [...sizes].flatMap(([setting, bytes]) => {
        const seconds = results.median('first-query', setting, name);
        return seconds === undefined || !setting.endsWith('plaintext, local') ? [] : [{ bytes, seconds }];
      }),
    }))
    .filter(({ points }) => points.length > 0);
}

/** Writes results.md, results.json and first-query.svg, and returns their paths. */
export function writeReport(folder: string, parts: ReportParts): string[] {
  mkdirSync(folder, { recursive: true });
  const { head, results } = parts;
  const json = { head, targets: judge(results), cells: results.cells, skips: results.skips, remarks: results.remarks };
  const series = firstQuerySeries(parts);
  const files: Record<string, string> = {
    'results.md': renderReport(parts),
    'results.json': `${JSON.stringify(json, undefined, 2)}\n`,
    ...(series.length === 0 ? {} : { 'first-query.svg': renderPlot('Time to the first query', series) }),
  };
  return Object.entries(files).map(([name, content]) => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  });
}
