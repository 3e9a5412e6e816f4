/** What a server says about its store while it serves: deletions, grace, outages, damaged states. */
import { expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { Health } from '../../../src/core/health.ts';
import { GRACE_MS, StoreWatch } from '../../../src/exports/store-watch.ts';
import type { SnapshotDeletion } from '../../../src/kloset/repository.ts';
import type { SnapshotHeader } from '../../../src/kloset/snapshot.ts';
import { ManualClock } from '../../support/fault-store.ts';
import { recordingLog } from '../../support/recording-log.ts';

const id = `8e457cf5${'0'.repeat(56)}`;

function watched({ everyMs = 1000 } = {}) {
  const state = {
    failure: undefined as Error | undefined,
    deletion: undefined as SnapshotDeletion | undefined,
    damagedStates: new Map<string, CorruptStoreError>(),
    refreshes: 0,
  };
  const store = {
    repository: {
      location: '/store',
      get damagedStates() {
        return state.damagedStates;
      },
      deletionOf: async () => state.deletion,
      onChange: () => undefined,
    },
    refresh: async () => {
      state.refreshes++;
      if (state.failure !== undefined) throw state.failure;
    },
  };
  const health = new Health();
  const clock = new ManualClock();
  const { log, lines } = recordingLog();
  const watch = new StoreWatch({ store, served: () => [{ id } as SnapshotHeader], health, log, everyMs, clock });
  return { state, health, clock, lines, watch };
}

it('looks again and again until it is closed; with 0 never', async () => {
  const { state, clock, watch } = watched();
  while (state.refreshes < 3) await clock.runUntilIdle(new Promise((resolve) => clock.after(1000, () => resolve(0))));
  await watch.close();
  expect(clock.timerCount).toBe(0);
  expect(watched({ everyMs: 0 }).clock.timerCount).toBe(0);
});

it('tells each stage of a deletion once, and until when the data stays', async () => {
  const { state, health, lines, watch } = watched();
  await watch.look();
  expect(health.report()).toEqual({ status: 'ok', reasons: [] });
  const deletedAtMs = Date.parse('2026-01-01T00:00:00Z');
  state.deletion = { deletedAtMs, markedAtMs: undefined, isTakenAway: false };
  await watch.look();
  await watch.look();
  expect(health.report().reasons).toEqual([
    'snapshot 8e457cf5, which is being served, was deleted from the store at 2026-01-01T00:00:00Z; its data stays until 7 days after the next maintenance of the store, at the least',
  ]);
  expect(lines.map(({ level }) => level)).toEqual(['warn']);
  state.deletion = { deletedAtMs, markedAtMs: deletedAtMs + 1000, isTakenAway: false };
  await watch.look();
  expect(GRACE_MS).toBe(7 * 86_400_000);
  expect(health.report()).toMatchObject({
    status: 'degraded',
    reasons: [expect.stringMatching(/from 2026-01-08T00:00:01Z on/)],
  });
  state.deletion = { deletedAtMs, markedAtMs: undefined, isTakenAway: true };
  await watch.look();
  expect(health.report().reasons[0]).toMatch(/maintenance has taken data of it away/);
  expect(lines).toHaveLength(3);
});

it('tells an outage once, and its end', async () => {
  const { state, health, lines, watch } = watched();
  state.failure = new StoreUnavailableError('no answer');
  await watch.look();
  await watch.look();
  expect(health.report()).toMatchObject({
    status: 'degraded',
    reasons: [expect.stringMatching(/cannot be listed: no answer/)],
  });
  state.failure = undefined;
  await watch.look();
  expect(health.report().status).toBe('ok');
  expect(lines.map(({ level }) => level)).toEqual(['warn', 'info']);
});

it('is degraded as long as damaged states are left out', async () => {
  const { state, health, watch } = watched();
  state.damagedStates = new Map([[id, new CorruptStoreError('x')]]);
  await watch.judge();
  expect(health.report().reasons).toEqual(['1 damaged states are left out: snapshots may be missing']);
  state.damagedStates = new Map();
  await watch.look();
  expect(health.report().status).toBe('ok');
});
