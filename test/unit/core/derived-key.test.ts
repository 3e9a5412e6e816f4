import { createSecretKey } from 'node:crypto';
import { expect, test } from 'vitest';
import { deriveFileKey } from '../../../src/core/derived-key.ts';

const storeKey = createSecretKey(Buffer.alloc(32, 7));
const salt = Buffer.alloc(32, 1);

test('the derived key is 256 bits and differs by store, purpose and salt', () => {
  const key = deriveFileKey(storeKey, 'overlay', salt);
  expect(key.symmetricKeySize).toBe(32);
  expect(key.equals(deriveFileKey(storeKey, 'overlay', Buffer.from(salt)))).toBe(true);
  expect(key.equals(deriveFileKey(storeKey, 'cache', salt))).toBe(false);
  expect(key.equals(deriveFileKey(storeKey, 'overlay', Buffer.alloc(32, 2)))).toBe(false);
  expect(key.equals(deriveFileKey(createSecretKey(Buffer.alloc(32, 8)), 'overlay', salt))).toBe(false);
});
