import { expect, test } from 'vitest';
import { printable, utf8Of } from '../../../src/cli/printable.ts';

test.each([
  ['/plain/name', '/plain/name'],
  ['/naïve/日本', '/naïve/日本'],
  ['a\nb\u001b[2J', 'a\\x0ab\\x1b[2J'],
  ['back\\slash', 'back\\\\slash'],
  ['\u202egnp.exe', '\\xe2\\x80\\xaegnp.exe'],
  [Buffer.from([0x66, 0xff, 0x0a, 0x5c]), 'f\\xff\\x0a\\\\'],
  ['\ufeffx', '\\xef\\xbb\\xbfx'],
])('%j is printed as %s', (name, text) => {
  expect(printable(Buffer.from(name))).toBe(text);
});

test('text is told from other bytes', () => {
  expect(utf8Of(Buffer.from('é'))).toBe('é');
  expect(utf8Of(Buffer.from([0xc3]))).toBeUndefined();
});
