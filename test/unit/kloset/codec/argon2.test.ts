/** Argon2id: known keys, and its two implementations against each other. */
import { expect, test } from 'vitest';
import { argon2id, byHashWasm } from '../../../../src/kloset/codec/argon2.ts';
import { seededRandom } from '../../../support/overlay-random.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** By the `argon2` program of the reference implementation: `printf PASSPHRASE | argon2 SALT -id -v 13 -t T -k K -p P -l L -r`. */
test.each([
  [
    'password',
    'somesalt',
    { time: 2, memoryKiB: 65536, threads: 1, keyBytes: 32 },
    '09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7',
  ],
  [
    'password',
    'somesalt',
    { time: 2, memoryKiB: 256, threads: 2, keyBytes: 32 },
    '6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037',
  ],
])('%s with %s and %o', async (passphrase, salt, cost, key) => {
  expect(hex(await argon2id(Buffer.from(passphrase), Buffer.from(salt), cost))).toBe(key);
  expect(hex(await byHashWasm(Buffer.from(passphrase), Buffer.from(salt), cost))).toBe(key);
});

test('both make the same of any bytes, zeroes and what is no text among them', async () => {
  const random = seededRandom(11);
  for (let round = 0; round < 20; round++) {
    const threads = 1 + random.below(4);
    const cost = { time: 1 + random.below(3), memoryKiB: 8 * threads + random.below(200), threads, keyBytes: 32 };
    const passphrase = random.fill(Buffer.alloc(1 + random.below(200)));
    const salt = random.fill(Buffer.alloc(8 + random.below(60)));
    passphrase[random.below(passphrase.length)] = 0;
    const keys = [await argon2id(passphrase, salt, cost), await byHashWasm(passphrase, salt, cost)];
    expect(hex(keys[0]!), JSON.stringify(cost)).toBe(hex(keys[1]!));
  }
});

test('what the implementation refuses is told in its words', async () => {
  const cost = { time: 1, memoryKiB: 64, threads: 1, keyBytes: 32 };
  await expect(argon2id(Buffer.from('x'), Buffer.from('short'), cost)).rejects.toThrow('Salt is too short');
});
