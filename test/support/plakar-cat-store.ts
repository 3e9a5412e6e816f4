/** Chunks through a plakar that does as the test says. */
import { afterEach, expect, vi } from 'vitest';
import { PlakarCatChunkStore } from '../../src/source/plakar-cat-chunk-store.ts';
import type { PlakarCatOptions } from '../../src/source/plakar-cat-options.ts';
import { FakePlakar, fakeFile, LogRecorder, testDecoder } from './fake-plakar.ts';
import { Cleanup, temporaryFolder } from './fixtures.ts';

export type PlakarCatSetUp = Partial<Omit<PlakarCatOptions, 'plakar' | 'spool'>> & { bytesMax?: number };

/** For a whole file: what sets up a store over a fake, which both end with each test. */
export function plakarCatStores() {
  // The store is closed before the fake, whose children it ends.
  const cleanup = new Cleanup();
  afterEach(() => {
    vi.useRealTimers();
    return cleanup.run();
  });
  return async ({ bytesMax, ...options }: PlakarCatSetUp = {}) => {
    const fake = await FakePlakar.start(cleanup);
    const log = new LogRecorder();
    const clock = { nowMs: 0 };
    const store = new PlakarCatChunkStore({
      plakar: { command: fake.command, location: '/the/store', passphrase: 'secret word' },
      decoder: testDecoder,
      log,
      spool: { directory: temporaryFolder(cleanup), bytesMax },
      killGraceMs: 20_000,
      retryPauseMs: 1000,
      now: () => clock.nowMs,
      ...options,
    });
    cleanup.add(() => store.close());
    return { fake, store, log, clock };
  };
}

/** The error a promise rejects with; a promise that resolves fails the test. */
export async function errorOf(promise: Promise<unknown>): Promise<Error> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(Error);
  return outcome as Error;
}

/** Reads still being waited for when a test ends are rejected by close(). */
export function leave(promise: Promise<unknown>): void {
  promise.catch(() => undefined);
}

/** From now on time passes only as told. To be called before anything is read. */
export function stopTime() {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  return {
    /** Lets time pass once somebody waits for it, and what has happened is dealt with. */
    async pass(ms: number): Promise<void> {
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      await turnsUntil(() => vi.getTimerCount() > 0);
      vi.advanceTimersByTime(ms);
    },
  };
}

export async function turnsUntil(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate);
}

export const small = (name: string) => fakeFile(`/${name}`, [`content of ${name}`]);
