import { expect, test } from 'vitest';
import { checkCloneName, isCloneName } from '../../../src/clones/clone-record.ts';
import { UserError } from '../../../src/core/errors.ts';

test.each(['c1', 'db', 'abc', 'c50', 'cafe-1', 'tuesday', 'v1.2_x'])('%s is a name', (name) => {
  expect(isCloneName(name)).toBe(true);
});

test.each([
  ['cafe', 'hex digits alone mean a snapshot'],
  ['8e457cf5', 'hex digits alone mean a snapshot'],
  ['Latest', 'newest snapshot'],
  ['.hidden', 'beginning with a letter or digit'],
  ['', 'beginning with a letter or digit'],
  ['a/b', 'letters, digits'],
])('%j is none: %s', (name, why) => {
  expect(() => checkCloneName(name)).toThrow(UserError);
  expect(() => checkCloneName(name)).toThrow(why);
});
