import { expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { parsePskFile } from '../../../src/nbd/psk-file.ts';

const key = '00112233445566778899aabbccddeeff';
const parsed = (text: string) =>
  Object.fromEntries([...parsePskFile(text, 'F')].map(([user, bytes]) => [user, bytes.toString('hex')]));

test('lines of psktool, with and without an end, in capitals, with comments and empty lines', () => {
  expect(parsed(`alice:${key}`)).toEqual({ alice: key });
  expect(parsed(`# keys of June\r\n\r\nalice:${key.toUpperCase()}\r\nbob@example:${key}${key} \n#\n`)).toEqual({
    alice: key,
    'bob@example': key + key,
  });
});

test('GnuTLS writes names that begin with # in hex', () => {
  expect(parsed(`#23616c696365:${key}\n`)).toEqual({ '#alice': key });
});

test('the last line of a user counts', () => {
  expect(parsed(`alice:${key}\nalice:${key}00`)).toEqual({ alice: `${key}00` });
});

test('the longest names and keys, and those beyond', () => {
  const longest = 'é'.repeat(64);
  expect(parsed(`${longest}:${'ab'.repeat(256)}`)).toEqual({ [longest]: 'ab'.repeat(256) });
  for (const text of [`${longest}x:${key}`, `a:${'ab'.repeat(257)}`, `a:${'ab'.repeat(15)}`, `:${key}`]) {
    expect(() => parsePskFile(text, 'F')).toThrow(/^line 1 of the PSK file F: /);
  }
});

test.each(['alice', 'alice:', `alice:${key}0`, `alice:${key}zz`, `alice ${key}`, `alice:${key}:x`, `x\nalice:${key}`])(
  'what is no line of a key is named by its number, and never shown: %s',
  (text) => {
    const message = (() => {
      try {
        parsePskFile(text, 'F');
      } catch (error) {
        expect(error).toBeInstanceOf(UserError);
        return (error as Error).message;
      }
      return expect.unreachable('it was taken');
    })();
    expect(message).toContain('line 1 of the PSK file F');
    expect(message).not.toContain(key.slice(0, 8));
  },
);

test.each(['', '\n\n', '# nothing\n'])('a file without a key is refused', (text) => {
  expect(() => parsePskFile(text, 'F')).toThrow('has no line USER:KEY');
});
