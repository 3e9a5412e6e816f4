import { expect, test } from 'vitest';
import { parseTablespaceMap, startSegment } from '../../../src/postgres/backup-label.ts';

test('the segment from which recovery starts', () => {
  const label = 'START WAL LOCATION: 0/7000028 (file 000000010000000000000007)\nCHECKPOINT LOCATION: 0/7000060\n';
  expect(startSegment(label)).toBe('000000010000000000000007');
  expect(startSegment('something else')).toBeUndefined();
});

test('tablespaces, also where a path has newlines and backslashes', () => {
  expect(parseTablespaceMap('16384 /srv/one\n16385 /srv/a\\\nb\\\\c\n')).toEqual([
    { oid: '16384', path: '/srv/one' },
    { oid: '16385', path: '/srv/a\nb\\c' },
  ]);
  expect(parseTablespaceMap('')).toEqual([]);
});

test('what no backup has, and a map of one long line, cost no more than their length', () => {
  expect(parseTablespaceMap('16384 ../../etc\nx /a\n16385\n16386 /b\\')).toEqual([{ oid: '16384', path: '../../etc' }]);
  const long = `16384 ${'\\\n'.repeat(1_000_000)}`;
  expect(parseTablespaceMap(long)[0]?.path.length).toBe(1_000_000);
});
