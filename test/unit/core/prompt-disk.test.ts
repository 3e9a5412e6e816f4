/** A disk that answers at once is waited for; one that does not is left alone for far longer than it took. */
import { expect, test } from 'vitest';
import { PromptDisk } from '../../../src/core/prompt-disk.ts';

/** A disk whose reads take what the test says, and the clock by which they do. */
function diskWithClock() {
  const clock = { nowMs: 1000 };
  const disk = new PromptDisk({ nowMs: () => clock.nowMs });
  const read = (tookMs: number) =>
    disk.during(() => {
      clock.nowMs += tookMs;
    });
  return { disk, clock, read };
}

test('reads of a fraction of a millisecond go on, also if one of many is held up', () => {
  const { disk, read } = diskWithClock();
  for (let i = 0; i < 1000; i++) {
    read(i % 100 === 50 ? 20 : 0.3);
    expect(disk.isPrompt, `after ${i} reads`).toBe(true);
  }
});

test('a disk that turns is waited for in some hundredths of the time at most', () => {
  const { disk, clock, read } = diskWithClock();
  let waitedMs = 0;
  const startedMs = clock.nowMs;
  while (clock.nowMs < startedMs + 60_000) {
    if (disk.isPrompt) {
      read(7);
      waitedMs += 7;
    } else clock.nowMs += 1;
  }
  expect(waitedMs).toBeGreaterThan(0);
  expect(waitedMs / 60_000).toBeLessThan(0.06);
});

test('one that hangs for seconds is left alone for minutes, and what it throws is passed on', () => {
  const { disk, clock, read } = diskWithClock();
  expect(() =>
    disk.during(() => {
      clock.nowMs += 3000;
      throw new Error('EIO');
    }),
  ).toThrow('EIO');
  clock.nowMs += 299_000;
  expect(disk.isPrompt).toBe(false);
  clock.nowMs += 2_000;
  expect(disk.isPrompt).toBe(true);
  read(0.1);
  expect(disk.isPrompt).toBe(true);
});
