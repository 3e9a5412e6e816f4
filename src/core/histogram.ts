/** Upper bounds of the buckets, seconds: from a read that is in memory to one that waited for a store's time-out. */
const LATENCY_BOUNDS_SECONDS = [
  0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
  60,
] as const;

/** How long things took, in buckets; observing allocates nothing. */
export class LatencyHistogram {
  /** Upper bounds, seconds, ascending; above the last there is one more bucket. */
  readonly bounds: readonly number[] = LATENCY_BOUNDS_SECONDS;
  /** Observations by bucket, not cumulated; one more than there are bounds. */
  readonly counts = new Float64Array(LATENCY_BOUNDS_SECONDS.length + 1);
  #sumMs = 0;

  observeMs(ms: number): void {
    this.#sumMs += ms;
    const { bounds, counts } = this;
    const seconds = ms / 1000;
    let bucket = 0;
    while (bucket < bounds.length && seconds > bounds[bucket]!) bucket++;
    counts[bucket]!++;
  }

  get count(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  get sumSeconds(): number {
    return this.#sumMs / 1000;
  }
}
