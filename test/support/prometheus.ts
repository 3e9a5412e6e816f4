/**
 * Prometheus' text format, read as strictly as its specification says
 * (https://prometheus.io/docs/instrumenting/exposition_formats/): what a scraper would refuse is an error here.
 */

export interface ParsedMetric {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/y;

/** Metrics by name. Throws for what the format does not allow. */
export function parsePrometheus(text: string): Map<string, ParsedMetric> {
  if (!text.endsWith('\n')) throw new Error('the last line does not end');
  const metrics = new Map<string, ParsedMetric & { samples: ParsedMetric['samples'][number][] }>();
  const seen = new Set<string>();
  let help: readonly [name: string, text: string] | undefined;
  let current: (ParsedMetric & { samples: ParsedMetric['samples'][number][] }) | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const described = /^# HELP (\S+) (.+)$/.exec(line);
    const typed = /^# TYPE (\S+) (counter|gauge|histogram|summary|untyped)$/.exec(line);
    if (described !== null) {
      help = [described[1]!, described[2]!];
    } else if (typed !== null) {
      const name = typed[1]!;
      if (help?.[0] !== name) throw new Error(`${name} has no HELP before its TYPE`);
      if (metrics.has(name)) throw new Error(`${name} comes twice`);
      current = { name, type: typed[2]!, help: help[1], samples: [] };
      metrics.set(name, current);
    } else {
      const [, name, labels = '', value] = SAMPLE.exec(line) ?? [];
      if (name === undefined) throw new Error(`no sample: ${line}`);
      if (current === undefined || !belongs(name, current))
        throw new Error(`${name} does not belong behind ${current?.name}`);
      if (seen.has(`${name}{${labels}}`)) throw new Error(`${name}{${labels}} comes twice`);
      seen.add(`${name}{${labels}}`);
      current.samples.push({ name, labels: parseLabels(labels), value: parseValue(value!) });
    }
  }
  for (const metric of metrics.values()) if (metric.type === 'histogram') checkHistogram(metric);
  return metrics;
}

/** The value of a metric with these labels; throws if there is none. */
export function sampleOf(
  metrics: Map<string, ParsedMetric>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const wanted = JSON.stringify(Object.entries(labels).sort());
  for (const metric of metrics.values()) {
    const found = metric.samples.find(
      (sample) => sample.name === name && JSON.stringify(Object.entries(sample.labels).sort()) === wanted,
    );
    if (found !== undefined) return found.value;
  }
  throw new Error(`there is no ${name} with the labels ${wanted}`);
}

function belongs(name: string, { name: family, type }: ParsedMetric): boolean {
  if (type === 'histogram') return [`${family}_bucket`, `${family}_sum`, `${family}_count`].includes(name);
  if (type === 'summary') return [family, `${family}_sum`, `${family}_count`].includes(name);
  return name === family;
}

function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const match = LABEL.exec(text);
    if (match === null) throw new Error(`no labels: ${text}`);
    labels[match[1]!] = match[2]!;
  }
  return labels;
}

function parseValue(text: string): number {
  if (text === '+Inf') return Number.POSITIVE_INFINITY;
  if (text === 'Nan' || text === 'NaN') return Number.NaN;
  const value = Number(text);
  if (Number.isNaN(value)) throw new Error(`no number: ${text}`);
  return value;
}

/** Each series has ascending buckets that end with +Inf, which is its count. */
function checkHistogram({ name, samples }: ParsedMetric): void {
  const series = new Map<string, { le: number; value: number }[]>();
  const keyOf = (labels: Readonly<Record<string, string>>) =>
    JSON.stringify(Object.entries(labels).filter(([label]) => label !== 'le'));
  for (const sample of samples.filter((each) => each.name === `${name}_bucket`)) {
    const key = keyOf(sample.labels);
    const before = series.get(key) ?? [];
    const last = before.at(-1);
    const bucket = { le: parseValue(sample.labels.le!), value: sample.value };
    if (last !== undefined && (last.le >= bucket.le || last.value > bucket.value))
      throw new Error(`${name}: buckets do not ascend`);
    series.set(key, [...before, bucket]);
  }
  for (const [key, buckets] of series) {
    const count = samples.find((each) => each.name === `${name}_count` && keyOf(each.labels) === key)?.value;
    if (buckets.at(-1)!.le !== Number.POSITIVE_INFINITY || buckets.at(-1)!.value !== count) {
      throw new Error(`${name}: the last bucket is not the count`);
    }
  }
}
