/** What kloset-nbd sets out to reach, and whether it did: each a bound on figures of one run. */
import type { MetricId } from './metrics.ts';
import { type Contestant, contestants, type Results } from './results.ts';

export interface Target {
  readonly what: string;
  /** `<=` or `>=`, and the bound. */
  readonly bound: string;
  /** Undefined: not measured in this run. */
  readonly value: number | undefined;
  readonly isMet: boolean | undefined;
}

type Ask = (metric: MetricId, contestant?: Contestant) => number | undefined;

interface Rule {
  readonly what: string;
  readonly atMost?: number;
  readonly atLeast?: number;
  /** Which settings it is about; default: all in which it was measured. */
  readonly where?: RegExp;
  readonly value: (ask: Ask) => number | undefined;
}

const ratio = (a: number | undefined, b: number | undefined) => (a === undefined || !b ? undefined : a / b);

const rules: readonly Rule[] = [
  {
    what: 'first query, of restore and start',
    atMost: 0.2,
    where: /^scale 100,.*local/,
    value: (ask) => ratio(ask('first-query'), ask('first-query', 'plakar restore')),
  },
  {
    what: 'first query, of restore and start',
    atMost: 0.1,
    where: /ms away/,
    value: (ask) => ratio(ask('first-query'), ask('first-query', 'plakar restore')),
  },
  {
    what: 'first query with a profile, of without',
    atMost: 0.5,
    where: /ms away/,
    value: (ask) => ratio(ask('first-query', 'kloset-nbd, profile'), ask('first-query')),
  },
  {
    what: 'bytes of the store until the first query, of what a restore reads',
    atMost: 0.01,
    value: (ask) => ratio(ask('first-query-bytes'), ask('first-query-bytes', 'plakar restore')),
  },
  { what: 'chunks fetched twice', atMost: 0, value: (ask) => ask('chunks-twice') },
  {
    what: 'nbdcopy of all files, of the throughput of `plakar cat`',
    atLeast: 1,
    where: /local/,
    value: (ask) => ratio(ask('copy-files'), ask('copy-files', 'plakar cat')),
  },
  {
    what: '`sum(abalance)`, of the throughput of `plakar cat` of the same files',
    atLeast: 0.4,
    where: /local/,
    value: (ask) => ratio(ask('sum-abalance'), ask('sum-abalance', 'plakar cat')),
  },
  {
    what: 'nbdcopy of data that does not compress, of the throughput of `plakar cat`',
    atLeast: 2,
    value: (ask) => ratio(ask('copy-noise'), ask('copy-noise', 'plakar cat')),
  },
  {
    what: 'cold 8 KiB reads, one a chunk, of fetch and decode of that chunk alone',
    atMost: 1.5,
    value: (ask) => ratio(ask('chunk-reads'), ask('chunk-alone')),
  },
  {
    what: '1,000 cold index lookups, of distinct chunks x fetch and decode / in flight',
    atMost: 1.2,
    value: (ask) => ratio(ask('lookups-cold'), ask('lookups-bound')),
  },
  {
    what: 'lookups from the disk cache, times faster than cold',
    atLeast: 20,
    where: /ms away/,
    value: (ask) => ratio(ask('lookups-cold'), ask('lookups-disk')),
  },
  {
    what: 'pgbench read-only, of PostgreSQL on a raw image',
    atLeast: 0.9,
    value: (ask) => ratio(ask('tps-read'), ask('tps-read', 'raw image')),
  },
  {
    what: 'pgbench read-write, of qemu-nbd and qcow2',
    atLeast: 0.7,
    value: (ask) => ratio(ask('tps-write'), ask('tps-write', 'qcow2')),
  },
  { what: 'resident memory beyond its bound, bytes', atMost: 0, value: (ask) => ask('memory-beyond') },
];

/** A line for each rule and setting; one that was not measured at all stands once, without a value. */
export function judge(results: Results): Target[] {
  const settings = results.settings();
  const targets = rules.flatMap(({ what, atMost, atLeast, where, value }) => {
    const bound = atMost === undefined ? `>= ${atLeast}` : `<= ${atMost}`;
    const judged = settings
      .filter((setting) => where?.test(setting) ?? true)
      .flatMap((setting): Target[] => {
        const found = value((metric, contestant = contestants[0]) => results.median(metric, setting, contestant));
        if (found === undefined) return [];
        const isMet = atMost === undefined ? found >= atLeast! : found <= atMost;
        return [{ what: `${what} (${setting})`, bound, value: found, isMet }];
      });
    return judged.length > 0 ? judged : [{ what, bound, value: undefined, isMet: undefined }];
  });
  return [...targets, flatness(results)];
}

/** How little the first query depends on the size of the database. */
function flatness(results: Results): Target {
  const at = (scale: number) => results.median('first-query', `scale ${scale}, plaintext, local`);
  const value = ratio(at(1000), at(100));
  const isMet = value === undefined ? undefined : value <= 1.3;
  return { what: 'first query at scale 1000, of that at scale 100', bound: '<= 1.3', value, isMet };
}

export function renderTargets(targets: readonly Target[]): string {
  const lines = targets.map(({ what, bound, value, isMet }) => {
    const verdict = isMet === undefined ? 'not measured' : isMet ? 'met' : '**not met**';
    return `| ${what} | ${bound} | ${value === undefined ? '' : Number(value.toPrecision(3))} | ${verdict} |`;
  });
  return ['| target | bound | measured | |', '| --- | --- | ---: | --- |', ...lines].join('\n');
}
