import { expect, test } from 'vitest';
import { parseExportAddress } from '../../../src/attach/address.ts';
import { leaves } from '../../../src/attach/leaving-symlinks.ts';

test('an export by URI, or by its name alone', () => {
  expect(parseExportAddress('tag:nightly')).toEqual({
    uri: 'nbd://127.0.0.1/tag%3Anightly',
    name: 'tag:nightly',
    at: { host: '127.0.0.1', port: 10809 },
  });
  expect(parseExportAddress('nbd://[::1]:10810/a%20b')).toMatchObject({
    name: 'a b',
    at: { host: '::1', port: 10810 },
  });
  expect(parseExportAddress('nbd+unix:///x?socket=/run/s')).toMatchObject({ name: 'x', at: { path: '/run/s' } });
  expect(() => parseExportAddress('nbds://host/')).toThrow('write nbd://');
  expect(() => parseExportAddress('nbd+unix:///x')).toThrow('write nbd://');
});

test.each([
  ['a', '/etc', true],
  ['a', '../x', true],
  ['a/b', '../x', false],
  ['a/b', '../../x', true],
  ['a', 'b/../../x', true],
  ['a', './b/..', false],
  ['a/b/c', '../../x/../../y', true],
])('the link %s -> %s leaves: %s', (path, target, expected) => {
  expect(leaves(path, target)).toBe(expected);
});
