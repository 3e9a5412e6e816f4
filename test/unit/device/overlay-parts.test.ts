import { describe, expect, it } from 'vitest';
import { RangeLocks } from '../../../src/device/range-locks.ts';
import { SlotAllocator } from '../../../src/device/slot-allocator.ts';
import { UseEpochs } from '../../../src/device/use-epochs.ts';

describe('RangeLocks', () => {
  const settled = async (given: unknown) => {
    let done = false;
    void Promise.resolve(given).then(() => {
      done = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    return done;
  };

  it('shares whole blocks, and lets a read-modify-write have its range alone, in order', async () => {
    const locks = new RangeLocks();
    const first = await locks.acquire({ first: 0, count: 10, exclusive: false });
    const second = await locks.acquire({ first: 5, count: 10, exclusive: false });
    const alone = locks.acquire({ first: 9, count: 1, exclusive: true });
    const later = locks.acquire({ first: 9, count: 1, exclusive: false });
    const elsewhere = await locks.acquire({ first: 20, count: 1, exclusive: true });
    expect(await settled(alone)).toBe(false);
    first();
    expect(await settled(alone)).toBe(false);
    second();
    const release = await alone;
    expect(await settled(later)).toBe(false);
    release();
    (await later)();
    elsewhere();
  });
});

describe('UseEpochs', () => {
  it('acts at once where nothing is in flight', () => {
    const epochs = new UseEpochs();
    let acted = 0;
    epochs.retire(() => acted++);
    expect(acted).toBe(1);
  });

  it('waits for those that were in flight, not for those that come later', () => {
    const epochs = new UseEpochs();
    let acted = false;
    const old = epochs.enter();
    epochs.retire(() => {
      acted = true;
    });
    let younger = epochs.enter();
    epochs.leave(old);
    expect(acted).toBe(true);
    let second = false;
    epochs.retire(() => {
      second = true;
    });
    // A steady stream, always one in flight.
    for (let round = 0; round < 5; round++) {
      const next = epochs.enter();
      epochs.leave(younger);
      younger = next;
    }
    expect(second).toBe(true);
  });
});

describe('SlotAllocator', () => {
  it('hands out freed slots again, the lowest of a run first, and no more than there are', () => {
    const slots = new SlotAllocator(5);
    expect([1, 2, 3, 4, 5, 6].map(() => slots.allocate())).toEqual([0, 1, 2, 3, 4, undefined]);
    slots.free(1, 3);
    expect(slots.used).toBe(2);
    expect([slots.allocate(), slots.allocate(), slots.allocate(), slots.allocate()]).toEqual([1, 2, 3, undefined]);
    expect(slots.highWater).toBe(5);
  });
});
