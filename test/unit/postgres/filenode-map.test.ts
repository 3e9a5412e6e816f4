import { expect, test } from 'vitest';
import { parseFilenodeMap } from '../../../src/postgres/catalog/filenode-map.ts';
import { relationMap } from '../../support/postgres-tree.ts';

const pairs = [
  [1259, 1259],
  [1249, 24601],
] as const;

test.each([
  ['up to PostgreSQL 15', 62, true],
  ['since PostgreSQL 16', 64, true],
  ['of a big-endian machine', 62, false],
])('a relation map %s', (_, tablePairs, littleEndian) => {
  expect([...parseFilenodeMap(relationMap(pairs, { tablePairs, littleEndian }))!]).toEqual(pairs);
});

test('every flipped byte that the CRC covers, and every cut, is noticed', () => {
  const map = relationMap(pairs);
  const coveredBytes = 8 + 62 * 8 + 4;
  for (let at = 0; at < coveredBytes; at++) {
    const flipped = Uint8Array.from(map);
    flipped[at]! ^= 1;
    expect(parseFilenodeMap(flipped), `byte ${at}`).toBeUndefined();
  }
  for (const length of [0, 4, 8, coveredBytes - 1]) expect(parseFilenodeMap(map.subarray(0, length))).toBeUndefined();
});

test('a count beyond the table is no map, whatever its CRC', () => {
  expect(parseFilenodeMap(relationMap(pairs, { count: 65 }))).toBeUndefined();
});
