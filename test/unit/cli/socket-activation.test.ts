import { expect, test } from 'vitest';
import { takeInheritedSockets } from '../../../src/cli/socket-activation.ts';
import { UserError } from '../../../src/core/errors.ts';

const take = (variables: NodeJS.ProcessEnv) => {
  const environment = { ...variables };
  return { taken: takeInheritedSockets(environment, 42), left: environment };
};

test('listening sockets begin at descriptor 3, and the variables are taken out', () => {
  const { taken, left } = take({ LISTEN_PID: '42', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b', HOME: '/' });
  expect(taken).toEqual({ listening: [3, 4], connection: undefined });
  expect(left).toEqual({ HOME: '/' });
});

test('without names, and with names that are no connection', () => {
  expect(take({ LISTEN_PID: '42', LISTEN_FDS: '1' }).taken).toEqual({ listening: [3], connection: undefined });
  const two = take({ LISTEN_PID: '42', LISTEN_FDS: '2', LISTEN_FDNAMES: 'connection:connection' }).taken;
  expect(two).toEqual({ listening: [3, 4], connection: undefined });
});

test('a connection that systemd has accepted', () => {
  const { taken } = take({ LISTEN_PID: '42', LISTEN_FDS: '1', LISTEN_FDNAMES: 'connection' });
  expect(taken).toEqual({ listening: [], connection: 3 });
});

test.each<NodeJS.ProcessEnv>([
  {},
  { LISTEN_FDS: '1' },
  { LISTEN_PID: '42' },
  { LISTEN_PID: '41', LISTEN_FDS: '1' },
  { LISTEN_PID: '042', LISTEN_FDS: '1' },
])('nothing meant for this process is left alone: %o', (variables) => {
  expect(take(variables)).toEqual({ taken: undefined, left: variables });
});

test('no socket at all', () => expect(take({ LISTEN_PID: '42', LISTEN_FDS: '0' }).taken).toBeUndefined());

test.each(['', 'x', '-1', '1.5', '1e9', '99999', ' 1'])('no number of sockets: "%s"', (LISTEN_FDS) => {
  expect(() => takeInheritedSockets({ LISTEN_PID: '42', LISTEN_FDS }, 42)).toThrow(UserError);
});
