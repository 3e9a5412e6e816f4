import { describe, expect, test } from 'vitest';
import { Restarts } from '../../../src/supervise/restarts.ts';
import { workerArguments } from '../../../src/supervise/worker-process.ts';

const limits = {
  fruitlessDeathsMax: 4,
  restartDelayMs: 50,
  restartDelayMsMax: 80,
  deathsMax: 6,
  deathsWindowMs: 1000,
};

describe('when to start a worker again', () => {
  test('at once after a fruitful death and after a first fruitless one, then later and later, then never', () => {
    const restarts = new Restarts(limits);
    const fruitless = () => restarts.died({ nowMs: 0, fruitful: false });
    expect(restarts.died({ nowMs: 0, fruitful: true })).toEqual({ restartAfterMs: 0 });
    expect([fruitless(), fruitless(), fruitless()].map((verdict) => 'restartAfterMs' in verdict && verdict)).toEqual([
      { restartAfterMs: 0 },
      { restartAfterMs: 50 },
      { restartAfterMs: 80 },
    ]);
    expect(fruitless()).toEqual({ giveUp: '4 workers in a row died without having served anything' });
  });

  test('a fruitful life makes up for what was before', () => {
    const restarts = new Restarts(limits);
    for (let i = 0; i < 3; i++) restarts.died({ nowMs: 0, fruitful: false });
    restarts.died({ nowMs: 0, fruitful: true });
    expect(restarts.died({ nowMs: 5000, fruitful: false })).toEqual({ restartAfterMs: 0 });
  });

  test('too many deaths in the window end it, however fruitful; the same number over a longer time does not', () => {
    const fast = new Restarts(limits);
    const slow = new Restarts(limits);
    for (let i = 0; i < 5; i++) expect(fast.died({ nowMs: i, fruitful: true })).toEqual({ restartAfterMs: 0 });
    expect(fast.died({ nowMs: 999, fruitful: true })).toEqual({ giveUp: '6 workers died within 1 seconds' });
    for (let i = 0; i < 20; i++) expect(slow.died({ nowMs: i * 200, fruitful: true })).toEqual({ restartAfterMs: 0 });
  });
});

test('a worker gets the words of its supervisor, but for where to listen and who supervises', () => {
  const given = ['at', '/store', 'serve', 'latest', '--listen', 'tcp://0.0.0.0:1', '-listen=unix:/a', '--supervise'];
  const more = ['--overlay', 'dir', '-supervise', '--supervise=true', '--no-supervise', '--', '--listen', 'x'];
  expect(workerArguments([...given, ...more], '/private/1.sock')).toEqual([
    ...['at', '/store', 'serve', 'latest', '--overlay', 'dir', '--listen=unix:/private/1.sock', '--', '--listen', 'x'],
  ]);
});
