import { describe, expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { AllowList, isLoopback } from '../../../src/nbd/addresses.ts';
import { Doorkeeper } from '../../../src/nbd/doorkeeper.ts';
import { nbdLimits } from '../../../src/nbd/limits.ts';

describe('--allow', () => {
  test.each<[network: string, inside: readonly string[], outside: readonly string[]]>([
    ['192.0.2.7', ['192.0.2.7', '::ffff:192.0.2.7'], ['192.0.2.6', '192.0.2.8', '::1', '::c000:207']],
    ['10.0.0.0/8', ['10.0.0.0', '10.255.255.255', '::ffff:10.1.2.3'], ['9.255.255.255', '11.0.0.0', '::a00:1']],
    ['10.1.2.3/8', ['10.200.0.1'], ['11.1.2.3']],
    ['192.0.2.128/25', ['192.0.2.128', '192.0.2.255'], ['192.0.2.127']],
    ['192.0.2.6/31', ['192.0.2.6', '192.0.2.7'], ['192.0.2.5', '192.0.2.8']],
    ['0.0.0.0/0', ['1.2.3.4', '255.255.255.255', '::ffff:1.2.3.4'], ['::1', '2001:db8::1']],
    ['::1', ['::1'], ['::2', '127.0.0.1']],
    ['::1/128', ['::1'], ['::']],
    ['fd00::/8', ['fd00::', 'fdff:ffff::1'], ['fc00::1', 'fe00::1', '127.0.0.1']],
    ['2001:db8::/33', ['2001:db8:7fff::1'], ['2001:db8:8000::1']],
    ['::/0', ['::1', '2001:db8::1'], ['127.0.0.1', '::ffff:127.0.0.1']],
    ['fe80::/10', ['fe80::1%eth0', 'febf::1'], ['fec0::1']],
    ['::ffff:10.0.0.0/104', ['10.9.8.7', '::ffff:10.9.8.7'], ['11.0.0.1', '::1']],
    ['::ffff:a00:0/104', ['10.9.8.7'], ['11.0.0.1']],
    ['::ffff:0:0/96', ['1.2.3.4'], ['::1']],
  ])('%s', (network, inside, outside) => {
    const list = new AllowList([network]);
    expect(inside.filter((address) => !list.has(address))).toEqual([]);
    expect(outside.filter((address) => list.has(address))).toEqual([]);
  });

  test('any of several', () => {
    const list = new AllowList(['127.0.0.1', '::1', '10.0.0.0/8']);
    expect(['127.0.0.1', '::1', '10.3.4.5', '127.0.0.2'].map((address) => list.has(address))).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  test.each([
    '',
    '/8',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '10.0.0/8',
    '10.0.0.0/a',
    '::1/129',
    '::/1000',
    'localhost',
    'fe80::1%eth0',
    '10.0.0.1 ',
    '256.0.0.1',
    '[::1]',
  ])('no network: "%s"', (text) => expect(() => new AllowList([text])).toThrow(UserError));
});

test.each([
  ['127.0.0.1', true],
  ['127.255.255.254', true],
  ['::1', true],
  ['::ffff:127.0.0.1', true],
  ['0.0.0.0', false],
  ['::', false],
  ['10.0.0.1', false],
  ['::ffff:10.0.0.1', false],
  ['::127.0.0.1', false],
  ['fe80::1%lo', false],
])('%s is this machine’s own: %s', (address, own) => expect(isLoopback(address)).toBe(own));

describe('the doorkeeper', () => {
  const lines: string[] = [];
  const log = { debug() {}, info() {}, error() {}, warn: (_: object, message: string) => void lines.push(message) };

  const gone = { remoteAddress: undefined, remotePort: undefined };

  test('knows TCP clients by their plain address, and all on Unix sockets as one', () => {
    const doorkeeper = new Doorkeeper(log, new AllowList(['192.0.2.0/24']));
    expect(doorkeeper.admit({ remoteAddress: '::ffff:192.0.2.1', remotePort: 5 }, 'tcp')).toEqual({
      client: '192.0.2.1',
      text: '192.0.2.1:5',
    });
    expect(doorkeeper.admit(gone, 'tcp')).toBeUndefined();
    expect(doorkeeper.admit(gone, 'unix')).toMatchObject({ client: 'unix' });
    expect(lines).toEqual([]);
  });

  test('logs refusals now and then, with their number', () => {
    let nowMs = 0;
    const doorkeeper = new Doorkeeper(log, new AllowList(['192.0.2.0/24']), () => nowMs);
    const knock = (address: string) => doorkeeper.admit({ remoteAddress: address, remotePort: 9 }, 'tcp');
    for (let i = 0; i < 1000; i++) expect(knock('198.51.100.1')).toBeUndefined();
    expect(lines).toEqual(['connection refused: no --allow has this address']);
    nowMs = nbdLimits.refusalLogMs;
    knock('2001:db8::1');
    nowMs *= 2;
    knock('2001:db8::1');
    expect(lines.slice(1)).toEqual([
      'connection refused: no --allow has this address, as 999 others since the last such line',
      'connection refused: no --allow has this address',
    ]);
  });
});
