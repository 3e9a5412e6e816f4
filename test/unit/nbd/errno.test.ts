import { describe, expect, test } from 'vitest';
import {
  AssertionError,
  CorruptStoreError,
  OverlayError,
  StoreUnavailableError,
  UnsupportedError,
  UserError,
} from '../../../src/core/errors.ts';
import { describeError, errnoOf, isBug } from '../../../src/nbd/errno.ts';

const EIO = 5;
const ENOSPC = 28;

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

describe('errnoOf', () => {
  test.each<[string, unknown, number]>([
    ['a full overlay', new OverlayError('full', { reason: 'full' }), ENOSPC],
    ['an overlay that failed', new OverlayError('failed', { reason: 'io' }), EIO],
    ['a damaged overlay', new OverlayError('damaged', { reason: 'damaged' }), EIO],
    ['a damaged store', new CorruptStoreError('damaged'), EIO],
    ['a store that is away', new StoreUnavailableError('away'), EIO],
    ['something unsupported', new UnsupportedError('newer'), EIO],
    ['a mistake of the operator', new UserError('mistake'), EIO],
    ['a full disk', systemError('ENOSPC'), ENOSPC],
    ['a quota', systemError('EDQUOT'), ENOSPC],
    ['a file that cannot grow', systemError('EFBIG'), ENOSPC],
    ['another system error', systemError('EMFILE'), EIO],
    ['what is no error', 'thrown', EIO],
  ])('%s', (_, error, errno) => {
    expect(errnoOf(error)).toBe(errno);
  });
});

test('bugs are told from failures', () => {
  expect([new AssertionError('x'), new TypeError('x'), new ReferenceError('x')].map(isBug)).toEqual([true, true, true]);
  expect([new CorruptStoreError('x'), new RangeError('x'), systemError('EIO'), 'x'].map(isBug)).toEqual(
    Array(4).fill(false),
  );
});

test('the log gets code, details and causes, and a stack for bugs alone', () => {
  const cause = new CorruptStoreError('chunk', { details: { offset: 7 }, cause: systemError('EIO') });
  const described = describeError(new OverlayError('copy failed', { reason: 'io', cause }));
  expect(described).toEqual({
    name: 'OverlayError',
    message: 'copy failed',
    code: 'OVERLAY',
    details: {},
    cause: {
      name: 'CorruptStoreError',
      message: 'chunk',
      code: 'CORRUPT_STORE',
      details: { offset: 7 },
      cause: { name: 'Error', message: 'EIO', code: 'EIO' },
    },
  });
  expect(describeError(new AssertionError('x'))).toHaveProperty('stack');
});
