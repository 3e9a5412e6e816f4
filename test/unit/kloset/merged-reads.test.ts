/** Ranges side by side that wait for a place at the same time: one request for all, and each gets its part. */
import { describe, expect, it } from 'vitest';
import { CorruptStoreError } from '../../../src/core/errors.ts';
import { MiB } from '../../../src/core/units.ts';
import { MERGED_BYTES_MAX, MERGED_GAP_BYTES_MAX } from '../../../src/kloset/fetch-limits.ts';
import { TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { RetryingStore } from '../../../src/kloset/retrying-store.ts';
import { type Fault, FaultStore, ManualClock, MemoryStore } from '../../support/fault-store.ts';
import { until } from '../../support/nbd-fixture.ts';

const packfile = Buffer.from(Array.from({ length: 6 * MiB }, (_, at) => (at * 7 + (at >> 8)) & 0xff));
const packfiles = new Map([
  ['id', packfile],
  ['other', packfile],
]);
const content = { config: packfile, states: new Map(), packfiles, namesPackfiles: true };

/** A store with one place, which a read of another packfile holds until `go`: what is read meanwhile waits. */
async function setUp(next: (call: string) => Fault | undefined = () => undefined) {
  let go = (): void => undefined;
  const gate = new Promise<undefined>((resolve) => {
    go = () => resolve(undefined);
  });
  const clock = new ManualClock();
  const faults = new FaultStore(new MemoryStore(content), (call) =>
    call === 'packfile other 0+1' ? gate : next(call),
  );
  const store = new RetryingStore(faults, { fetchConcurrency: 1, clock, random: () => 0.5 });
  const blocking = store.readPackfile('other', 0, Buffer.alloc(1));
  await until(() => faults.calls.length === 1);
  const read = async (offset: number, length: number, { id = 'id', signal }: ReadPlace = {}) => {
    const target = Buffer.alloc(length);
    await store.readPackfile(id, offset, target, { signal });
    return target.equals(packfile.subarray(offset, offset + length)) ? 'right' : 'wrong';
  };
  const calls = () => faults.calls.slice(1);
  return { store, faults, clock, read, calls, go, blocking };
}

interface ReadPlace {
  readonly id?: string;
  readonly signal?: AbortSignal;
}

describe('reads that wait for a place', () => {
  it('are one request if they touch, overlap or nearly touch, in whatever order they came', async () => {
    const { read, calls, go, faults } = await setUp();
    const ranges = [
      [200_000, 100_000],
      [100_000, 100_000],
      [310_000, 50_000],
      [0, 100_001],
      [200_000, 100_000],
    ] as const;
    const reads = ranges.map(([offset, length]) => read(offset, length));
    go();
    expect(await Promise.all(reads)).toEqual(ranges.map(() => 'right'));
    expect(calls()).toEqual(['packfile id 0+360000']);
    expect(faults.underWayMost).toBe(1);
  });

  it('stay apart in other packfiles, and beyond the gap and the size that are allowed', async () => {
    const { read, calls, go } = await setUp();
    const far = 100 + MERGED_GAP_BYTES_MAX + 1;
    const reads = [read(0, 100), read(0, 100, { id: 'other' }), read(far, 100), read(far + 100, MERGED_BYTES_MAX)];
    go();
    expect(await Promise.all(reads)).toEqual(reads.map(() => 'right'));
    expect(calls()).toEqual([
      'packfile id 0+100',
      'packfile other 0+100',
      `packfile id ${far}+100`,
      `packfile id ${far + 100}+${MERGED_BYTES_MAX}`,
    ]);
  });

  it('are not kept waiting for each other while there are places', async () => {
    const faults = new FaultStore(new MemoryStore(content), () => undefined);
    const store = new RetryingStore(faults, { fetchConcurrency: 2 });
    await Promise.all([0, 100].map((offset) => store.readPackfile('id', offset, Buffer.alloc(100))));
    expect(faults.calls).toEqual(['packfile id 0+100', 'packfile id 100+100']);
  });

  it('are stopped when the last of their readers has gone, and touch no target of one who has', async () => {
    const { store, read, calls, go, faults } = await setUp((call) =>
      call === 'packfile id 0+300' ? 'stall' : undefined,
    );
    const stops = [0, 1, 2].map(() => new AbortController());
    const targets = stops.map(() => Buffer.alloc(100));
    const outcomes = stops.map(({ signal }, index) =>
      store.readPackfile('id', index * 100, targets[index]!, { signal }).catch((error: unknown) => error),
    );
    const next = read(1_000_000, 10);
    go();
    await until(() => calls().length === 1);
    const reasons = stops.map((_, index) => new Error(`reader ${index} has gone`));
    for (const [index, stop] of stops.slice(0, 2).entries()) stop.abort(reasons[index]);
    expect(await Promise.all(outcomes.slice(0, 2))).toEqual(reasons.slice(0, 2));
    expect(faults.underWay).toBe(1);
    stops[2]!.abort(reasons[2]);
    expect(await outcomes[2]).toBe(reasons[2]);
    // The place is free again.
    expect(await next).toBe('right');
    expect(targets).toEqual(stops.map(() => Buffer.alloc(100)));
  });

  it('leave out those whose readers went before', async () => {
    const { store, read, calls, go } = await setUp();
    const stop = new AbortController();
    const gone = store.readPackfile('id', 100, Buffer.alloc(100), stop);
    const stays = read(0, 100);
    stop.abort(new Error('gone'));
    await expect(gone).rejects.toThrow('gone');
    go();
    expect(await stays).toBe('right');
    expect(calls()).toEqual(['packfile id 0+100']);
  });

  it('fail together when it can pass, and all try again', async () => {
    const faulty: Fault[] = [new TransientStoreError('503')];
    const { read, calls, go, clock } = await setUp(() => faulty.shift());
    const reads = Promise.all([read(0, 100), read(100, 100)]);
    go();
    expect(await clock.runUntilIdle(reads)).toEqual({ status: 'fulfilled', value: ['right', 'right'] });
    expect(calls()[0]).toBe('packfile id 0+200');
    expect(calls().length).toBeGreaterThan(1);
  });

  it('are read alone after any other error: a range that the packfile has not harms no other', async () => {
    const { read, calls, go, clock } = await setUp();
    const reads = Promise.allSettled([read(packfile.length - 100, 100), read(packfile.length, 100)]);
    go();
    const outcome = await clock.runUntilIdle(reads);
    expect(outcome).toMatchObject({
      value: [{ value: 'right' }, { status: 'rejected', reason: expect.any(CorruptStoreError) }],
    });
    expect(calls()[0]).toBe(`packfile id ${packfile.length - 100}+200`);
    // In whatever order they get the place.
    expect(calls().slice(1, 3).sort()).toEqual([
      `packfile id ${packfile.length - 100}+100`,
      `packfile id ${packfile.length}+100`,
    ]);
  });
});
