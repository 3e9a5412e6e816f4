import { describe, expect, test } from 'vitest';
import { optionReplies } from '../../../src/nbd/protocol.ts';
import { type Peer, type WriterHold, Writers } from '../../../src/nbd/writers.ts';

const alice: Peer = { client: '10.0.0.1', text: '10.0.0.1:4000' };
const aliceAgain: Peer = { client: '10.0.0.1', text: '10.0.0.1:4001' };
const bob: Peer = { client: '10.0.0.2', text: '10.0.0.2:5000' };
const lease = { deviceId: 'd', name: 'latest' };

function writers() {
  return new Writers(() => new Date('2026-01-02T03:04:05Z'));
}

function held(result: ReturnType<Writers['enter']>): WriterHold {
  expect(result).toHaveProperty('release');
  return result as WriterHold;
}

describe('Writers', () => {
  test('names the holder, since when, and what to do', () => {
    const all = writers();
    held(all.enter(lease, alice));
    expect(all.enter(lease, bob)).toEqual({
      reply: optionReplies.NBD_REP_ERR_POLICY,
      message:
        'export "latest" is in use by 10.0.0.1:4000 since 2026-01-02T03:04:05.000Z, and a disk takes one writer at a ' +
        'time: disconnect that client first, or serve with --shared',
    });
  });

  test('one client may have several connections, and holds until the last is gone', () => {
    const all = writers();
    const [first, second] = [held(all.enter(lease, alice)), held(all.enter(lease, aliceAgain))];
    first.release();
    first.release();
    expect(all.enter(lease, bob)).toHaveProperty('reply');
    second.release();
    held(all.enter(lease, bob));
  });

  test('other names of a device are the same disk, other devices are not', () => {
    const all = writers();
    held(all.enter(lease, alice));
    expect(all.enter({ deviceId: 'd', name: 'tag:x' }, bob)).toHaveProperty('reply');
    held(all.enter({ deviceId: 'e', name: 'latest' }, bob));
  });
});
