import { describe, expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError, UserError } from '../../../src/core/errors.ts';
import type { Log } from '../../../src/core/log.ts';
import { MissingResourceError, TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { RetryingStore, type RetryingStoreOptions } from '../../../src/kloset/retrying-store.ts';
import { type Fault, FaultStore, ManualClock, MemoryStore } from '../../support/fault-store.ts';

const packfile = Buffer.from('the bytes of a packfile');
const content = { config: packfile, states: new Map(), packfiles: new Map([['id', packfile]]), namesPackfiles: true };

/** A RetryingStore over a store that fails as `next` says, with a clock that runs only when told. */
function setUp(next: ConstructorParameters<typeof FaultStore>[1], options: RetryingStoreOptions = {}) {
  const clock = new ManualClock();
  const faults = new FaultStore(new MemoryStore(content), next);
  const lines: string[] = [];
  const write = (level: string) => (_fields: object, message: string) => void lines.push(`${level} ${message}`);
  const log: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
  const store = new RetryingStore(faults, { clock, log, random: () => 0.5, ...options });
  const read = async (offset = 0, length = 5) => {
    const target = Buffer.alloc(length);
    await store.readPackfile('id', offset, target);
    return target.toString();
  };
  return { clock, faults, store, lines, read };
}

/** Each fault once, then none. */
function once(...faults: Fault[]): () => Fault | undefined {
  return () => faults.shift();
}

const passing = new TransientStoreError('the server failed (503)');

describe('RetryingStore', () => {
  it('tries again what can pass, after pauses that double', async () => {
    const { clock, faults, read, lines } = setUp(once(passing, passing, passing));
    expect(await clock.runUntilIdle(read())).toEqual({ status: 'fulfilled', value: 'the b' });
    expect(faults.calls).toHaveLength(4);
    // 75 + 150 + 300: three quarters, as random() is a half.
    expect(clock.now()).toBe(525);
    expect(lines).toEqual(Array(3).fill('debug packfile id is read again'));
    expect(clock.timerCount).toBe(0);
  });

  it('waits as long as the server asks', async () => {
    const { clock, read } = setUp(once(new TransientStoreError('slow down', { retryAfterMs: 7_000 })));
    await clock.runUntilIdle(read());
    expect(clock.now()).toBe(7_000);
  });

  it.each([
    new StoreUnavailableError('access is refused (403)'),
    new MissingResourceError('the store does not hold it (404)'),
    new UserError('there is no store'),
    new TypeError('a bug'),
  ])('hands on at once what cannot pass: %s', async (error) => {
    const { clock, faults, read } = setUp(() => error);
    expect(await clock.runUntilIdle(read())).toEqual({ status: 'rejected', reason: error });
    expect(faults.calls).toHaveLength(1);
  });

  it('believes that something ends too early the third time', async () => {
    const short = new CorruptStoreError('it ends before byte 7');
    const believed = setUp(() => short);
    expect(await believed.clock.runUntilIdle(believed.read())).toEqual({ status: 'rejected', reason: short });
    expect(believed.faults.calls).toHaveLength(3);
    const passed = setUp(once(short, short));
    expect((await passed.clock.runUntilIdle(passed.read())).status).toBe('fulfilled');
  });

  it('gives up within its budget, says so once, and is as good as new afterwards', async () => {
    let isDown = true;
    const { clock, faults, read, lines } = setUp(() => (isDown ? passing : undefined), { fetchTimeoutMs: 10_000 });
    const outcome = await clock.runUntilIdle(read());
    expect(outcome).toMatchObject({
      status: 'rejected',
      reason: { name: 'StoreUnavailableError', code: 'STORE_UNAVAILABLE', cause: passing },
    });
    expect(clock.now()).toBeLessThanOrEqual(10_000);
    expect(clock.now()).toBeGreaterThan(4_000);
    expect(faults.calls.length).toBeGreaterThan(5);
    expect(lines.filter((line) => line.startsWith('warn'))).toEqual(['warn packfile id could not be read: given up']);
    isDown = false;
    expect(await clock.runUntilIdle(read())).toEqual({ status: 'fulfilled', value: 'the b' });
  });

  it('cuts off an attempt that does not end, and tries again', async () => {
    const { clock, faults, read } = setUp(once('stall'), { requestTimeoutMs: 3_000 });
    expect(await clock.runUntilIdle(read())).toEqual({ status: 'fulfilled', value: 'the b' });
    expect(faults.calls).toHaveLength(2);
    expect(clock.now()).toBe(3_075);
  });

  it('cuts off the last attempt at the end of its budget', async () => {
    const options = { requestTimeoutMs: 3_000, fetchTimeoutMs: 4_000 };
    const { clock, read } = setUp(() => 'stall', options);
    expect((await clock.runUntilIdle(read())).status).toBe('rejected');
    expect(clock.now()).toBe(4_000);
  });

  it('lets states and lists take their time, as the store watches for stalls', async () => {
    const { store, clock, faults } = setUp((call) => (call === 'states' ? 'stall' : undefined), { fetchTimeoutMs: 10 });
    const stop = new AbortController();
    const listing = store.list('states', stop);
    clock.after(5_000, () => stop.abort(new StoreUnavailableError('enough')));
    expect(await clock.runUntilIdle(listing)).toMatchObject({ status: 'rejected', reason: { message: 'enough' } });
    expect(clock.now()).toBe(5_000);
    expect(faults.calls).toHaveLength(1);
  });

  it('has no more attempts under way than it may; one that pauses holds no place', async () => {
    let failures = 20;
    const { clock, faults, read } = setUp(() => (failures-- > 0 ? passing : undefined), { fetchConcurrency: 3 });
    const reads = Promise.all(Array.from({ length: 30 }, (_, index) => read(index % 10, 3)));
    const outcome = await clock.runUntilIdle(reads);
    const expected = Array.from({ length: 30 }, (_, index) => packfile.toString().slice(index % 10, (index % 10) + 3));
    expect(outcome).toEqual({ status: 'fulfilled', value: expected });
    expect(faults.underWayMost).toBe(3);
  });

  it('gives up waiting for a place too', async () => {
    const options = { fetchConcurrency: 1, requestTimeoutMs: 1e6, fetchTimeoutMs: 2_000 };
    const { clock, faults, store, read } = setUp((call) => (call === 'states' ? 'stall' : undefined), options);
    const stop = new AbortController();
    const listing = store.list('states', stop);
    const waiting = await clock.runUntilIdle(read());
    expect(waiting).toMatchObject({ status: 'rejected', reason: { message: expect.stringMatching(/no place/) } });
    expect(faults.calls).toEqual(['states']);
    stop.abort(passing);
    await expect(listing).rejects.toBe(passing);
    // The place is free again.
    expect((await clock.runUntilIdle(read())).status).toBe('fulfilled');
  });

  it('stops when nobody waits any more, in an attempt and in a pause', async () => {
    for (const fault of ['stall', passing] as const) {
      const { clock, faults, store } = setUp(() => fault);
      const stop = new AbortController();
      const reading = store.readPackfile('id', 0, new Uint8Array(1), stop);
      clock.after(50, () => stop.abort(new StoreUnavailableError('nobody waits')));
      expect(await clock.runUntilIdle(reading)).toMatchObject({ reason: { message: 'nobody waits' } });
      expect(faults.calls).toHaveLength(1);
      expect(clock.timerCount).toBe(0);
      await expect(store.readPackfile('id', 0, new Uint8Array(1), stop)).rejects.toThrow('nobody waits');
      expect(faults.calls).toHaveLength(1);
    }
  });

  it('stops everything when it is closed, and refuses from then on', async () => {
    const { clock, store, read } = setUp(() => passing);
    const reading = read();
    clock.after(10, () => void store.close());
    expect(await clock.runUntilIdle(reading)).toMatchObject({ reason: { message: 'memory was closed' } });
    await expect(read()).rejects.toThrow(/has been closed/);
  });

  it('pauses between half and all of the time that doubles, up to a maximum', async () => {
    for (const [random, first, last] of [
      [0, 50, 2_500],
      [0.999_999, 100, 5_000],
    ] as const) {
      const { clock, faults, read } = setUp(() => passing, { random: () => random, fetchTimeoutMs: 100_000 });
      const times: number[] = [];
      const originalPush = faults.calls.push.bind(faults.calls);
      faults.calls.push = (...items) => {
        times.push(clock.now());
        return originalPush(...items);
      };
      await clock.runUntilIdle(read());
      const pauses = times.slice(1).map((time, index) => time - times[index]!);
      expect(pauses[0]).toBe(first);
      expect(pauses.at(-1)).toBe(last);
    }
  });
});
