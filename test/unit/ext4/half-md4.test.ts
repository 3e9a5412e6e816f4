import { expect, test } from 'vitest';
import { halfMd4, hashSeedWords } from '../../../src/ext4/half-md4.ts';

const seed = hashSeedWords(Buffer.from('01020304050607080910111213141516', 'hex'));

/** Answers of `debugfs -R "dx_hash -h half_md4 -s 01020304-0506-0708-0910-111213141516 NAME"`. */
test.each([
  ['abc', 0x75d82d58, 0x0f9dc951],
  ['PG_VERSION', 0xd6e26d4c, 0x9ff7ae47],
  ['a_very_long_name_of_more_than_thirty_two_bytes_so_two_rounds.txt', 0xef5cdf7e, 0x41d02528],
])('%s', (name, hash, minor) => {
  const bytes = Buffer.from(`before${name}behind`);
  const result = { hash: 0, minor: 0 };
  halfMd4(seed, bytes, 6, 6 + name.length, result);
  expect(result).toEqual({ hash, minor });
});
