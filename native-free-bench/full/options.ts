/** The command line of the comparison. */
import { parseArgs } from 'node:util';

export const rowNames = [
  'first-query',
  'chunks',
  'lookups',
  'scans',
  'incompressible',
  'random',
  'pgbench',
  'plot',
] as const;
export type RowName = (typeof rowNames)[number];

export interface BenchOptions {
  /** pgbench's scale: 100,000 rows each, about 15 MiB. */
  readonly scale: number;
  /** Adds scale 1000, and with it the rows about growth. */
  readonly full: boolean;
  /** Ready-made stores whose newest snapshot is a data directory with pgbench's tables of that scale. */
  readonly storePlain: string | undefined;
  readonly storeEncrypted: string | undefined;
  readonly rows: readonly RowName[];
  readonly runs: number;
  /** Where results.md, results.json and first-query.svg go. */
  readonly out: string;
  /** Where databases, images and restored files are made. */
  readonly directory: string | undefined;
  readonly seed: number;
  readonly latencyMs: number;
  /** Takes the small fixture even if a database could be made. */
  readonly album: boolean;
  /** Puts the chief rows into README.md, too. */
  readonly readme: boolean;
  /** Limit of one way to a first query, seconds. */
  readonly limitSeconds: number;
  /** Seconds of each run of pgbench and fio. */
  readonly loadSeconds: number;
}

export const usage = `npm run bench -- [options]
  --scale N            pgbench's scale (100); a database is made and backed up, which takes plakar and PostgreSQL
  --full               adds scale 1000 (takes 60 GB of disk and an hour)
  --store-plain DIR    ready-made stores of that scale instead; the passphrase in PLAKAR_PASSPHRASE
  --store-enc DIR
  --album              the small fixture only, which needs neither
  --rows A,B           of ${rowNames.join(', ')}
  --runs N             of each; the table has medians (3)
  --seconds N          of each run of pgbench and fio (5)
  --limit SECONDS      for one way to a first query (120; at scale 1000 ten times as long)
  --latency MS         of the distant store (30)
  --out DIR            for results.md, results.json and first-query.svg (native-free-bench/results)
  --readme             puts the chief rows into README.md, too
  --dir DIR            for what is made on the way (TMPDIR)
  --seed N             of keys and offsets (1)
plakar is looked for on PATH. On a machine with more cores: taskset -c 0,1 npm run bench`;

/** Throws Error with one line on the first thing that cannot be used. */
export function parseBenchOptions(argv: readonly string[], defaultOut: string): BenchOptions {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({
    args: [...argv],
    options: {
      scale: text,
      full: flag,
      'store-plain': text,
      'store-enc': text,
      album: flag,
      readme: flag,
      rows: text,
      runs: text,
      seconds: text,
      limit: text,
      latency: text,
      out: text,
      dir: text,
      seed: text,
    },
  });
  const options: BenchOptions = {
    scale: count('scale', values.scale, 100),
    full: values.full,
    storePlain: values['store-plain'],
    storeEncrypted: values['store-enc'],
    album: values.album,
    readme: values.readme,
    rows: parseRows(values.rows),
    runs: count('runs', values.runs, 3),
    loadSeconds: count('seconds', values.seconds, 5),
    limitSeconds: count('limit', values.limit, 120),
    latencyMs: count('latency', values.latency, 30),
    out: values.out ?? defaultOut,
    directory: values.dir,
    seed: count('seed', values.seed, 1),
  };
  if (options.album && (options.storePlain ?? options.storeEncrypted) !== undefined)
    throw new Error('--album and stores of your own exclude each other');
  return options;
}

function count(name: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new Error(`--${name} takes a whole number from 1 on, not "${text}"`);
  return Number(text);
}

function parseRows(text: string | undefined): readonly RowName[] {
  if (text === undefined) return rowNames;
  return text.split(',').map((name) => {
    const known = rowNames.find((row) => row === name);
    if (known === undefined) throw new Error(`--rows: there is no "${name}"; there are ${rowNames.join(', ')}`);
    return known;
  });
}
