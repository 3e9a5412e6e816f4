/**
 * Metrics in Prometheus' text format. What is counted is counted elsewhere, in plain fields; here it is only looked at,
 * when somebody asks, so that a metric costs nothing in between.
 */
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import type { LatencyHistogram } from '../core/histogram.ts';

export const METRIC_PREFIX = 'kloset_nbd_';

export type Labels = Readonly<Record<string, string>>;

/** One value of a metric with its labels. */
export type Sample = readonly [labels: Labels, value: number];

interface Described {
  /** Without the prefix; in base units, and with Prometheus' endings: `store_bytes_total`. */
  readonly name: string;
  /** One sentence for people. */
  readonly help: string;
}

/** A metric and how its values are found. The number of labels' values must be bounded, whatever is served. */
export type MetricDefinition = Described &
  (
    | { readonly type: 'counter' | 'gauge'; readonly read: () => Iterable<Sample> | number }
    | { readonly type: 'histogram'; readonly read: () => Iterable<readonly [labels: Labels, LatencyHistogram]> }
  );

interface PrometheusValue {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  readonly metricName?: string;
}

/** A registry of these metrics, and of prom-client's own about the process and Node.js. */
export function makeRegistry(definitions: readonly MetricDefinition[]): Registry {
  const registry = new Registry();
  for (const definition of definitions) registry.registerMetric(new ReadMetric(definition) as unknown as Metric);
  collectDefaultMetrics({ register: registry, prefix: METRIC_PREFIX });
  return registry;
}

/** A metric as prom-client's registry asks for it. */
class ReadMetric {
  readonly name: string;
  readonly help: string;
  readonly type: MetricDefinition['type'];
  readonly aggregator = 'sum';
  readonly #definition: MetricDefinition;

  constructor(definition: MetricDefinition) {
    this.name = `${METRIC_PREFIX}${definition.name}`;
    this.help = definition.help;
    this.type = definition.type;
    this.#definition = definition;
  }

  async get() {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: this.#values() };
  }

  #values(): PrometheusValue[] {
    const definition = this.#definition;
    if (definition.type === 'histogram') {
      return [...definition.read()].flatMap(([labels, histogram]) => histogramValues(this.name, labels, histogram));
    }
    const read = definition.read();
    if (typeof read === 'number') return [{ labels: {}, value: read }];
    return Array.from(read, ([labels, value]) => ({ labels, value }));
  }
}

function histogramValues(name: string, labels: Labels, histogram: LatencyHistogram): PrometheusValue[] {
  let cumulated = 0;
  const buckets = Array.from(histogram.counts, (count, bucket) => {
    cumulated += count;
    const le = histogram.bounds[bucket] ?? '+Inf';
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: cumulated };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: histogram.sumSeconds },
    { metricName: `${name}_count`, labels, value: cumulated },
  ];
}
