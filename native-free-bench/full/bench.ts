/** What the rows of one run share: options, data, stores, and where results go. */
import { Cleanup } from '../../test/support/fixtures.ts';
import type { SnapshotContents } from './contents.ts';
import type { DelayedStore } from './delayed-store.ts';
import type { MetricId } from './metrics.ts';
import type { BenchOptions } from './options.ts';
import type { Contestant, Results } from './results.ts';

/** A store to be measured, through one way to it. */
export interface BenchStore {
  /** As the table names it: `scale 100, plaintext, local`. */
  readonly setting: string;
  /** For kloset-nbd's --store and plakar's at. */
  readonly location: string;
  /** Where its files lie, however they are reached. */
  readonly directory: string;
  readonly passphrase: string | undefined;
  /** What is sent over a network, where it is one. */
  readonly distant: DelayedStore | undefined;
  readonly data: BenchData;
}

/** What the newest snapshot of a store holds. */
export interface BenchData extends SnapshotContents {
  /** pgbench's scale; undefined for the small fixture. */
  readonly scale: number | undefined;
}

export interface Bench {
  readonly options: BenchOptions;
  readonly results: Results;
  /** Runs at the end of everything. */
  readonly cleanup: Cleanup;
  /** Says what is being done, to people who wait. */
  progress(text: string): void;
}

/** Notes values of one contestant in one setting, where there are any. */
export function note(
  { results, progress }: Bench,
  store: BenchStore,
  contestant: Contestant,
  values: Partial<Readonly<Record<MetricId, number | undefined>>>,
): void {
  const noted = Object.entries(values).filter((entry): entry is [MetricId, number] => entry[1] !== undefined);
  for (const [metric, value] of noted) results.add(metric, store.setting, contestant, value);
  const list = noted.map(([metric, value]) => `${metric} ${Number(value.toPrecision(4))}`).join(', ');
  progress(`  ${contestant}: ${list}`);
}

/** Of all that is under way, in the order it was begun. */
const underWay: Cleanup[] = [];

/** Undoes what all work under way has set up, the newest first: for an end by a signal. */
export async function undoAll(): Promise<void> {
  for (let cleanup = underWay.pop(); cleanup !== undefined; cleanup = underWay.pop()) {
    await cleanup.run().catch((error) => console.error(`${error}`));
  }
}

/** Does `work` and undoes what it set up, also where it failed; its own error goes before those of the undoing. */
export async function withCleanup<T>(work: (cleanup: Cleanup) => Promise<T>): Promise<T> {
  const cleanup = new Cleanup();
  underWay.push(cleanup);
  try {
    let value: T;
    try {
      value = await work(cleanup);
    } catch (error) {
      await cleanup.run().catch((undoing) => console.error(`after a failure: ${undoing}`));
      throw error;
    }
    await cleanup.run();
    return value;
  } finally {
    const at = underWay.indexOf(cleanup);
    if (at >= 0) underWay.splice(at, 1);
  }
}

/** Numbers below `end` that depend on nothing but the seed (mulberry32). */
export function* randomNumbers(seed: number, end: number): Generator<number, never> {
  for (let state = seed >>> 0; ; ) {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    yield Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end);
  }
}

/** The first `count` of them. */
export function firstNumbers(count: number, seed: number, end: number): number[] {
  const numbers = randomNumbers(seed, end);
  return Array.from({ length: count }, () => numbers.next().value);
}

export const PGBENCH_ROWS_PER_SCALE = 100_000;

/** What is asked first: one row by its key, or in the fixture a count. */
export function firstQuery({ scale }: BenchData, seed: number): string {
  if (scale === undefined) return 'select count(*) from photo';
  const [aid] = firstNumbers(1, seed, scale * PGBENCH_ROWS_PER_SCALE);
  return `select abalance from pgbench_accounts where aid = ${aid! + 1}`;
}
