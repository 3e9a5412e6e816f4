import { describe, expect, it } from 'vitest';
import { Closers } from '../../../src/core/closers.ts';
import { ByteBudget, mapConcurrently } from '../../../src/core/concurrency.ts';

/** A promise and what settles it. */
function gate<T = void>() {
  let open: (value: T) => void = () => {};
  let fail: (error: Error) => void = () => {};
  const promise = new Promise<T>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { promise, open, fail };
}
/** Lets everything run that waits for nothing but its turn. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('mapping concurrently', () => {
  it('keeps the order, and to the limit', async () => {
    let underWay = 0;
    let most = 0;
    const results = await mapConcurrently([5, 4, 3, 2, 1], 2, async (item, index) => {
      most = Math.max(most, ++underWay);
      for (let i = 0; i < item; i++) await turn();
      underWay--;
      return `${item}@${index}`;
    });
    expect(results).toEqual(['5@0', '4@1', '3@2', '2@3', '1@4']);
    expect(most).toBe(2);
    expect(await mapConcurrently([], 4, async () => 1)).toEqual([]);
  });

  it('passes the first failure on when nothing is under way any more, and begins nothing new', async () => {
    const slow = gate();
    const begun: number[] = [];
    let settled = false;
    const mapping = mapConcurrently([0, 1, 2, 3], 2, async (item) => {
      begun.push(item);
      if (item === 0) throw new Error('first');
      await slow.promise;
      throw new Error('second');
    }).finally(() => {
      settled = true;
    });
    mapping.catch(() => undefined);
    await turn();
    expect(settled).toBe(false);
    slow.open();
    await expect(mapping).rejects.toThrow('first');
    expect(begun).toEqual([0, 1]);
  });
});

describe('a budget of bytes', () => {
  it('lets in first come first served, and one larger than all of it alone', async () => {
    const budget = new ByteBudget(100);
    const log: string[] = [];
    const gates = new Map([60, 50, 500, 10].map((bytes) => [bytes, gate()]));
    const works = [...gates].map(([bytes, { promise }]) =>
      budget.with(bytes, async () => {
        log.push(`${bytes} in, ${budget.bytesInUse} used`);
        await promise;
      }),
    );
    await turn();
    expect(log).toEqual(['60 in, 60 used']); // 10 would fit, but comes behind 50 and 500.
    for (const { open } of gates.values()) {
      open();
      await turn();
    }
    await Promise.all(works);
    expect(log).toEqual(['60 in, 60 used', '50 in, 50 used', '500 in, 500 used', '10 in, 10 used']);
    expect(budget.bytesInUse).toBe(0);
  });

  it('lets guesses in behind all others, and into half of it; one that somebody waits for by now is none', async () => {
    const budget = new ByteBudget(100);
    const log: string[] = [];
    const gates = new Map<string, ReturnType<typeof gate<void>>>();
    const enter = (name: string, bytes: number, isGuess = () => false) => {
      const held = gate();
      gates.set(name, held);
      const work = () => {
        log.push(name);
        return held.promise;
      };
      return budget.with(bytes, work, { isGuess });
    };
    let isWanted = false;
    const works = [
      enter('guess', 40, () => true),
      enter('second guess', 40, () => true),
      enter('wanted later', 40, () => !isWanted),
      enter('read', 50),
      enter('second read', 50),
    ];
    await turn();
    expect(log).toEqual(['guess', 'read']);
    isWanted = true;
    gates.get('read')!.open();
    await turn();
    expect(log).toEqual(['guess', 'read', 'wanted later']);
    for (const name of ['wanted later', 'second read', 'guess', 'second guess']) {
      gates.get(name)!.open();
      await turn();
    }
    await Promise.all(works);
    expect(log).toEqual(['guess', 'read', 'wanted later', 'second read', 'second guess']);
    expect(budget.bytesInUse).toBe(0);
  });

  it('gets back what failed, thrown or rejected', async () => {
    const budget = new ByteBudget(0);
    for (let i = 0; i < 3; i++) {
      await expect(budget.with(10, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
      const thrower = () => {
        throw new Error('at once');
      };
      await expect(budget.with(10, thrower)).rejects.toThrow('at once');
    }
    expect(await budget.with(10, async () => budget.bytesInUse)).toBe(10);
    expect(budget.bytesInUse).toBe(0);
  });
});

describe('closers', () => {
  it('run backwards, all of them and once, and tell of the first failure', async () => {
    const closers = new Closers();
    const ran: number[] = [];
    for (const i of [1, 2, 3, 4]) {
      closers.add(async () => {
        ran.push(i);
        if (i === 2 || i === 3) throw new Error(`step ${i}`);
      });
    }
    await expect(closers.close()).rejects.toThrow('step 3');
    await closers.close();
    expect(ran).toEqual([4, 3, 2, 1]);
  });

  it('prefer the failure they are run for', async () => {
    const closers = new Closers();
    closers.add(() => Promise.reject(new Error('closing')));
    await expect(closers.closeBecause(new Error('the reason'))).rejects.toThrow('the reason');
  });
});
