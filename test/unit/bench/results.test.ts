/** The parts of `npm run bench` that compute: medians, ratios, the table, verdicts, the plot, arguments. */
import { describe, expect, test } from 'vitest';
import { firstNumbers } from '../../../native-free-bench/full/bench.ts';
import { warningOfLoad } from '../../../native-free-bench/full/machine.ts';
import { metricIds, metrics } from '../../../native-free-bench/full/metrics.ts';
import { parseBenchOptions, rowNames } from '../../../native-free-bench/full/options.ts';
import { renderPlot } from '../../../native-free-bench/full/plot.ts';
import { breakEvens, firstQuerySeries, renderReport, replaceInReadme } from '../../../native-free-bench/full/report.ts';
import { median, Results } from '../../../native-free-bench/full/results.ts';
import { advantage, renderTables, renderValue } from '../../../native-free-bench/full/table.ts';
import { judge, renderTargets } from '../../../native-free-bench/full/targets.ts';

const local = 'scale 100, plaintext, local';

function resultsOf(
  ...cells: readonly (readonly [string, Parameters<Results['add']>[2], readonly number[]])[]
): Results {
  const results = new Results();
  for (const [metric, contestant, values] of cells) {
    for (const value of values) results.add(metric, local, contestant, value);
  }
  return results;
}

test('a median is the middle one, or the mean of two', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([10, 9])).toBe(9.5);
  expect(() => median([])).toThrow(RangeError);
});

test('an advantage above 1 means that we win, whichever way is better', () => {
  expect(advantage(metrics['first-query'], 2, 8)).toBe(4);
  expect(advantage(metrics['tps-read'], 2, 8)).toBe(0.25);
  expect(advantage(metrics['lookups-chunks'], 2, 8)).toBeUndefined();
  expect(advantage(metrics['chunks-twice'], 0, 8)).toBeUndefined();
});

test('a sum over a run is one value', () => {
  const results = new Results();
  for (const value of [0, 3, 2]) results.addToSum('chunks-twice', local, 'kloset-nbd', value);
  expect(results.cells.map(({ values }) => values)).toEqual([[5]]);
});

test('values are rendered with their units', () => {
  expect(renderValue(0.6123, 's')).toBe('0.612 s');
  expect(renderValue(2.5 * 2 ** 20, 'bytes')).toBe('2.5 MiB');
  expect(renderValue(118_400_000, 'bytes/s')).toBe('118 MB/s');
  expect(renderValue(12_345.6, '1/s')).toBe('12,346/s');
});

test('the table has medians, ratios, and the rows that we lose in bold', () => {
  const results = resultsOf(
    ['first-query', 'kloset-nbd', [1, 3, 2]],
    ['first-query', 'plakar restore', [8, 6, 10]],
    ['sum-abalance', 'kloset-nbd', [50e6]],
    ['sum-abalance', 'raw image', [200e6]],
  );
  const lines = renderTables(results).split('\n');
  expect(lines).toContain('|  | kloset-nbd | plakar restore | raw image |');
  expect(lines.find((line) => line.includes('first query'))).toContain('| 2 s | 8 s (4 x) |  |');
  expect(lines.find((line) => line.includes('sum(abalance)'))).toContain('| 50 MB/s |  | 200 MB/s (**0.250 x**) |');
});

describe('targets', () => {
  const verdictOf = (results: Results, what: string) => judge(results).find((target) => target.what.startsWith(what));

  test('are met up to their bound, and not beyond', () => {
    const cells = (ours: number) =>
      resultsOf(['first-query', 'kloset-nbd', [ours]], ['first-query', 'plakar restore', [10]]);
    const what = 'first query, of restore and start (scale 100';
    expect(verdictOf(cells(2), what)).toMatchObject({ value: 0.2, isMet: true });
    expect(verdictOf(cells(2.01), what)).toMatchObject({ isMet: false });
    expect(renderTargets(judge(cells(3)))).toContain('**not met**');
  });

  test('are said to be not measured without figures', () => {
    for (const target of judge(new Results())) expect(target.isMet).toBeUndefined();
    expect(renderTargets(judge(new Results()))).not.toMatch(/\bmet \|.*\d/);
  });

  test('flatness compares two scales', () => {
    const results = resultsOf(['first-query', 'kloset-nbd', [1]]);
    results.add('first-query', 'scale 1000, plaintext, local', 'kloset-nbd', 1.4);
    expect(verdictOf(results, 'first query at scale 1000')).toMatchObject({ value: 1.4, isMet: false });
  });
});

test('a report names what was skipped, once', () => {
  const results = new Results();
  results.skip('row pgbench', 'no PostgreSQL');
  results.skip('row pgbench', 'no PostgreSQL');
  const text = renderReport({ head: ['machine: one'], results, sizes: new Map() });
  expect(text.split('row pgbench: no PostgreSQL')).toHaveLength(2);
  expect(text).toContain('- machine: one');
});

describe('the README', () => {
  const results = resultsOf(
    ['first-query', 'kloset-nbd', [1]],
    ['first-query', 'plakar restore', [6]],
    ['sum-abalance', 'kloset-nbd', [100e6]],
  );
  const sizes = new Map([[local, 1e9]]);

  test('gets the table between its marks, and nothing else changes', () => {
    const readme = 'before\n<!-- bench: begin -->\nformer text\n<!-- bench: end -->\nafter\n';
    const replaced = replaceInReadme(readme, { head: ['machine: one'], results, sizes });
    expect(replaced).toMatch(/^before\n<!-- bench: begin -->\n\n\| {2}\| kloset-nbd/);
    expect(replaced).toMatch(/- machine: one\n[\s\S]*<!-- bench: end -->\nafter\n$/);
    expect(replaced).not.toContain('former text');
    expect(replaceInReadme(replaced, { head: ['machine: one'], results, sizes })).toBe(replaced);
    expect(() => replaceInReadme('no marks', { head: [], results, sizes })).toThrow(/lacks/);
  });

  test('says from which share of the data on a restore is faster', () => {
    expect(breakEvens(results, sizes)).toEqual([expect.stringContaining('about 50 % of the data')]);
    expect(breakEvens(results, new Map([[local, 1e8]]))).toEqual([expect.stringContaining('before a restore')]);
    expect(breakEvens(new Results(), sizes)).toEqual([]);
  });
});

test('every row has a title of its own', () => {
  const titles = metricIds.map((id) => metrics[id].title);
  expect(titles.filter((title) => !title.startsWith('- '))).toEqual([
    ...new Set(titles.filter((title) => !title.startsWith('- '))),
  ]);
});

describe('the plot', () => {
  const points = [
    { bytes: 30e6, seconds: 0.4 },
    { bytes: 1.6e9, seconds: 0.5 },
  ];

  test('is well-formed XML with a point for each figure', () => {
    const svg = renderPlot('a < b & "c"', [
      { name: 'ours', points },
      { name: 'theirs', points: points.slice(1) },
    ]);
    expect(unclosedTags(svg)).toEqual([]);
    expect(svg.match(/r="3.5"/g)).toHaveLength(3);
    expect(svg).not.toContain('NaN');
    expect(svg).toContain('a &#60; b &#38;');
  });

  test('also has room for a single point, and refuses none', () => {
    expect(renderPlot('one', [{ name: 'ours', points: [{ bytes: 1e6, seconds: 1 }] }])).not.toContain('NaN');
    expect(() => renderPlot('none', [])).toThrow(RangeError);
  });

  test('takes first queries on local plaintext stores', () => {
    const results = resultsOf(['first-query', 'kloset-nbd', [2]]);
    results.add('first-query', 'scale 100, encrypted, local', 'kloset-nbd', 3);
    const sizes = new Map([
      [local, 1e9],
      ['scale 100, encrypted, local', 1e9],
    ]);
    expect(firstQuerySeries({ results, sizes })).toEqual([
      { name: 'kloset-nbd', points: [{ bytes: 1e9, seconds: 2 }] },
    ]);
  });
});

describe('arguments', () => {
  const parse = (...argv: string[]) => parseBenchOptions(argv, '/out');

  test('have defaults', () => {
    expect(parse()).toMatchObject({ scale: 100, runs: 3, seed: 1, rows: rowNames, full: false, out: '/out' });
  });

  test('are taken', () => {
    const options = parse(
      '--rows',
      'chunks,scans',
      '--runs',
      '7',
      '--store-plain',
      '/store',
      '--scale',
      '20',
      '--full',
    );
    expect(options).toMatchObject({ rows: ['chunks', 'scans'], runs: 7, storePlain: '/store', scale: 20, full: true });
  });

  test.each([
    [['--rows', 'chunks,nothing'], /there is no "nothing".*first-query/],
    [['--runs', '0'], /--runs takes a whole number from 1 on, not "0"/],
    [['--scale', '1.5'], /--scale takes a whole number/],
    [['--album', '--store-enc', '/store'], /exclude each other/],
    [['--nonsense'], /nonsense/],
    [['stray'], /stray/],
  ])('%j is refused', (argv, message) => expect(() => parse(...argv)).toThrow(message));
});

test('keys depend on the seed and nothing else, and lie in range', () => {
  const keys = firstNumbers(1000, 1, 10_000);
  expect(firstNumbers(1000, 1, 10_000)).toEqual(keys);
  expect(firstNumbers(1000, 2, 10_000)).not.toEqual(keys);
  expect(Math.min(...keys)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...keys)).toBeLessThan(10_000);
  expect(new Set(keys).size).toBeGreaterThan(900);
});

test('a busy machine is warned of', () => {
  expect(warningOfLoad(1)).toBeUndefined();
  expect(warningOfLoad(1.2)).toMatch(/1\.2.*noisy/);
});

/** Names of elements that are opened and not closed, or the other way round. */
function unclosedTags(xml: string): string[] {
  const open: string[] = [];
  for (const [, slash, name, rest] of xml.matchAll(/<(\/?)([a-z]+)((?:\s+[a-zA-Z0-9:-]+="[^"<]*")*\s*\/?)>/g)) {
    if (slash === '/') {
      if (open.pop() !== name) return [`/${name}`];
    } else if (!rest!.endsWith('/')) open.push(name!);
  }
  const brackets = xml.replace(/<\/?[a-z]+(?:\s+[a-zA-Z0-9:-]+="[^"<]*")*\s*\/?>/g, '');
  return /[<>]/.test(brackets) ? [...open, 'stray bracket'] : open;
}
