import { describe, expect, it } from 'vitest';
import { freeOption, listenOption, normaliseArguments, sizeOption } from '../../../src/cli/arguments.ts';
import { parseOwner } from '../../../src/cli/owner.ts';
import { describeReport } from '../../../src/cli/report.ts';
import { UserError } from '../../../src/core/errors.ts';

describe('a command line', () => {
  it.each<[string, string]>([
    ['serve latest', 'serve latest'],
    ['at /s serve latest', 'serve latest --store /s'],
    ['-keyfile k at /s snapshots -json', '--keyfile k snapshots --json --store /s'],
    ['--keyfile=k at @name serve', '--keyfile=k serve --store @name'],
    ['-keyfile=k snapshots', '--keyfile=k snapshots'],
    ['--log-level debug at s3://b/p serve', '--log-level debug serve --store s3://b/p'],
    ['-h', '-h'],
    ['serve at', 'serve at'],
    ['--keyfile at serve', '--keyfile at serve'],
    ['serve -- -keyfile at x', 'serve -- -keyfile at x'],
    ['at /s serve -- -x', 'serve --store /s -- -x'],
  ])('%s becomes %s', (given, expected) => expect(normaliseArguments(given.split(' '))).toEqual(expected.split(' ')));

  it('wants a location behind "at"', () => expect(() => normaliseArguments(['at'])).toThrow(UserError));
});

describe('options', () => {
  it.each([
    ['512M', 2 ** 29],
    ['10G', 10 * 2 ** 30],
    ['1.5KiB', 1536],
    ['4096', 4096],
    ['0', 0],
  ])('size %s', (text, bytes) => expect(sizeOption('size', text)).toBe(bytes));
  it.each(['', '-1', '10X', '1e3', 'G', '99999999P', '1,5G'])('no size: %s', (text) =>
    expect(() => sizeOption('size', text)).toThrow(UserError),
  );
  it('free space is a share or a size', () => {
    expect([freeOption('25%'), freeOption('5G')]).toEqual([{ percent: 25 }, { bytes: 5 * 2 ** 30 }]);
    for (const text of ['%', '-5%', 'much']) expect(() => freeOption(text)).toThrow(UserError);
  });
  it.each([
    ['tcp://127.0.0.1:10809', { host: '127.0.0.1', port: 10809 }],
    ['tcp://[::1]:0/', { host: '::1', port: 0 }],
    ['tcp://host.example:65535', { host: 'host.example', port: 65535 }],
    ['unix:/run/a b.sock', { path: '/run/a b.sock' }],
  ])('listens on %s', (text, address) => expect(listenOption(text)).toEqual(address));
  it.each(['tcp://127.0.0.1', 'tcp://127.0.0.1:65536', 'tcp://::1:1', 'unix:', '10809', 'http://x:1'])(
    'does not listen on %s',
    (text) => expect(() => listenOption(text)).toThrow(UserError),
  );
});

describe('an owner', () => {
  it.each([
    ['0', { uid: 0, gid: 0 }],
    ['root', { uid: 0, gid: 0 }],
    ['root:root', { uid: 0, gid: 0 }],
    ['4000000:5', { uid: 4_000_000, gid: 5 }],
    ['4000000', { uid: 4_000_000, gid: 4_000_000 }],
  ])('%s is known', async (text, owner) => expect(await parseOwner(text)).toEqual(owner));
  it.each(['', ':', 'root:', ':root', 'no-such-user', 'root:no-such-group', '1:2:3', '-1'])(
    '%s is refused',
    async (text) => expect(parseOwner(text)).rejects.toBeInstanceOf(UserError),
  );
});

it('a report tells amplification only when something was asked', () => {
  const report = {
    askedBytes: 0,
    storeBytes: 2048,
    decodedBytes: 4096,
    chunksFetched: 3,
    chunksFetchedTwice: 1,
    overlayBytes: 0,
    status: 'ok' as const,
    reasons: [],
  };
  const none = describeReport({ ...report, storeAmplification: undefined, decodeAmplification: undefined });
  expect(none).toBe(
    'Clients asked for 0 B; fetched from the store 2.0 KiB, decoded 4.0 KiB, 3 chunks (1 twice); overlay 0 B. Health: ok.',
  );
  expect(describeReport({ ...report, askedBytes: 1024, storeAmplification: 2, decodeAmplification: 4 })).toContain(
    'read amplification 2 (store), 4 (decoded)',
  );
  const ill = { status: 'degraded' as const, reasons: ['one thing', 'another'] };
  expect(describeReport({ ...report, ...ill, storeAmplification: undefined, decodeAmplification: undefined })).toMatch(
    / Health: degraded: one thing; another\.$/,
  );
});
