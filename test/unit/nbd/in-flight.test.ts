import { describe, expect, test } from 'vitest';
import { InFlight, InFlightAccount } from '../../../src/nbd/in-flight.ts';

const limits = {
  requestsMax: 10,
  repliesInFlightBytesMax: 1000,
  requestsPerConnectionMax: 4,
  bytesPerConnectionMax: 500,
  guaranteedBytes: 100,
};

/** An account that asks for `wanted` whenever it is told that there may be room, and notes what it got. */
function asking(all: InFlight) {
  const got: number[] = [];
  let wanted: number | undefined;
  const account: InFlightAccount = new InFlightAccount(all, () => ask(wanted!));
  const ask = (bytes: number) => {
    wanted = bytes;
    if (account.take(bytes)) got.push(bytes);
  };
  return { account, ask, got };
}

describe('InFlight', () => {
  test('a connection: at its limits, and one past them', () => {
    const { account } = asking(new InFlight(limits));
    for (let i = 0; i < 4; i++) expect(account.take(125)).toBe(true);
    expect(account.take(0)).toBe(false);
    account.give(125);
    expect(account.take(126)).toBe(false);
    expect(account.take(125)).toBe(true);
  });

  test('all connections: bytes at the limit, and one past it', () => {
    const all = new InFlight(limits);
    const [a, b, c] = [asking(all), asking(all), asking(all)];
    a.ask(500);
    b.ask(400);
    c.ask(101);
    expect([a.got, b.got, c.got]).toEqual([[500], [400], []]);
    expect(all.contended).toBe(true);
    b.account.give(400);
    expect(c.got).toEqual([101]);
    expect(all.contended).toBe(false);
    expect({ requests: all.requests, bytes: all.bytes }).toEqual({ requests: 2, bytes: 601 });
  });

  test('all connections: requests at the limit, and one past it', () => {
    const all = new InFlight({ ...limits, guaranteedBytes: -1 });
    const some = Array.from({ length: 11 }, () => asking(all));
    for (const { ask } of some) ask(0);
    expect(some.map(({ got }) => got.length)).toEqual([...Array(10).fill(1), 0]);
    some[3]!.account.give(0);
    expect(some[10]!.got).toEqual([0]);
  });

  test('a request larger than every allowance is admitted alone', () => {
    const all = new InFlight(limits);
    const [a, b] = [asking(all), asking(all)];
    a.ask(5000);
    b.ask(200);
    expect([a.got, b.got]).toEqual([[5000], []]);
    expect(a.account.take(1)).toBe(false);
    a.account.give(5000);
    expect(b.got).toEqual([200]);
  });

  test('a connection with nothing in flight gets its guaranteed bytes, whatever others hold', () => {
    const all = new InFlight(limits);
    const [hog, other] = [asking(all), asking(all)];
    hog.ask(5000);
    other.ask(100);
    expect(other.got).toEqual([100]);
    other.ask(1);
    expect(other.got).toEqual([100]);
    other.account.give(100);
    expect(other.got).toEqual([100, 1]);
  });

  test('those who wait are served in order, and a small request does not overtake a large one', () => {
    const all = new InFlight({ ...limits, guaranteedBytes: 0 });
    const [hog, large, small] = [asking(all), asking(all), asking(all)];
    hog.ask(300);
    hog.ask(200);
    small.ask(0); // Takes its place as a connection with requests in flight.
    large.ask(499);
    small.ask(400);
    expect([large.got, small.got]).toEqual([[499], [0]]);
    const third = asking(all);
    third.ask(450);
    hog.account.give(200);
    expect([small.got, third.got]).toEqual([[0], []]);
    hog.account.give(300);
    expect([small.got, third.got]).toEqual([[0, 400], []]);
    large.account.give(499);
    expect(third.got).toEqual([450]);
  });

  test('who leaves is not asked again', () => {
    const all = new InFlight(limits);
    const [hog, gone, next] = [asking(all), asking(all), asking(all)];
    hog.ask(5000);
    gone.ask(101);
    next.ask(102);
    gone.account.leave();
    hog.account.give(5000);
    expect([gone.got, next.got]).toEqual([[], [102]]);
  });
});
