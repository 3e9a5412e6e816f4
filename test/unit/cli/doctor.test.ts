import { expect, test } from 'vitest';
import { judgeTimeouts } from '../../../src/cli/doctor.ts';

test("the kernel's time-out is held against ours, the shortest of all devices", () => {
  expect(judgeTimeouts([600_000, 45_000, 0], 60_000)).toMatchObject({
    state: 'missing',
    needed: false,
    text: '45 s are less than --fetch-timeout (60 s): attach with nbd-client -timeout 120',
  });
  expect(judgeTimeouts([600_000, 45_000], 45_000)).toMatchObject({ state: 'ok', text: '45 s' });
  expect(judgeTimeouts([0, 30_000], 60_000)).toMatchObject({ state: 'ok', text: 'none' });
  expect(judgeTimeouts([], 60_000)).toMatchObject({ state: 'ok', text: 'no nbd device is in use' });
});
