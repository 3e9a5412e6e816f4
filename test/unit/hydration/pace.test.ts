import { describe, expect, test } from 'vitest';
import { Activity } from '../../../src/core/activity.ts';
import { MiB } from '../../../src/core/units.ts';
import { BUSY_STEP_MS, QUIET_MS } from '../../../src/hydration/limits.ts';
import { Pace } from '../../../src/hydration/pace.ts';
import { ManualClock } from '../../support/fault-store.ts';

const { signal } = new AbortController();

function paceOf(bytesPerSecond?: number) {
  const clock = new ManualClock();
  const activity = new Activity(() => clock.now());
  return { clock, activity, pace: new Pace({ bytesPerSecond, activity, clock }) };
}

describe('the rate', () => {
  test('spreads bytes over time, also what several ask for at once', async () => {
    const { clock, pace } = paceOf(MiB);
    const admitted: number[] = [];
    const ask = async () => {
      await pace.admit(2 * MiB, signal);
      admitted.push(clock.now());
    };
    await clock.runUntilIdle(Promise.all([ask(), ask(), ask()]));
    expect(admitted).toEqual([0, 2000, 4000]);
  });

  test('is not saved up while nobody asks', async () => {
    const { clock, pace } = paceOf(MiB);
    await clock.runUntilIdle(new Promise<void>((resolve) => clock.after(60_000, resolve)));
    await pace.admit(MiB, signal);
    await clock.runUntilIdle(pace.admit(MiB, signal));
    expect(clock.now()).toBe(61_000);
  });

  test('without one nothing waits', async () => {
    const { clock, pace } = paceOf();
    for (let i = 0; i < 100; i++) await pace.admit(MiB, signal);
    expect(clock.now()).toBe(0);
  });
});

describe('clients', () => {
  test('are left alone while they read and shortly after', async () => {
    const { clock, activity, pace } = paceOf();
    let end = () => {};
    const read = activity.during(() => new Promise<void>((resolve) => (end = resolve)));
    clock.after(100, () => end());
    await clock.runUntilIdle(pace.admit(1, signal));
    await read;
    expect(clock.now()).toBeGreaterThanOrEqual(100 + QUIET_MS);
    expect(clock.now()).toBeLessThan(BUSY_STEP_MS);
  });

  test('however busy they are, one blob is fetched every so often', async () => {
    const { clock, activity, pace } = paceOf();
    void activity.during(() => new Promise(() => {}));
    for (let i = 1; i <= 3; i++) {
      await clock.runUntilIdle(pace.admit(1, signal));
      expect(clock.now()).toBe(i * BUSY_STEP_MS);
    }
  });

  test('who stops does not wait for them', async () => {
    const { clock, activity, pace } = paceOf();
    void activity.during(() => new Promise(() => {}));
    const stopping = new AbortController();
    const waiting = pace.admit(1, stopping.signal);
    stopping.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    expect(clock.timerCount).toBe(0);
  });
});
