/** The worked example of kloset-format.md 6.2, RFC vectors of the key derivations, and parameters that are refused. */
import { createSecretKey } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { CorruptStoreError, UnsupportedError, UserError } from '../../../../src/core/errors.ts';
import { toHex } from '../../../../src/core/mac.ts';
import { deriveKey, type KdfParameters, keyOpensCanary } from '../../../../src/kloset/codec/key-derivation.ts';

const salt = Buffer.from('56e3686624ee3b6d7aa470ce36171d20', 'hex');
const argon2id: KdfParameters = { name: 'ARGON2ID', time: 4, memoryKiB: 262144, threads: 1, salt, keyBytes: 32 };
const scrypt: KdfParameters = { name: 'SCRYPT', n: 1024, r: 8, p: 16, salt: Buffer.from('NaClNaCl'), keyBytes: 32 };
const pbkdf2: KdfParameters = { name: 'PBKDF2', iterations: 1, hashing: 'SHA256', salt, keyBytes: 32 };
const storeKey = '2a5933e74efed96a855a3cc342effe1adf3ca15e0d2bd1072f77997aa9e3447d';
const canary = Buffer.from(
  'c201c351071187d8c4b28f23914c6c92388b125e03629dcb66705e5cca64bc04852197ab5d2b17a6' +
    '7b0d76c204d0888aa6ff0942' +
    '746d66681504f923b33b215bb71fc53c4d77c845e4766bd7fcfb160fcee8883d' +
    'b3afdeb70bb0ebc70d811a1bf1201b1a',
  'hex',
);

function hex(digits: string): Buffer {
  return Buffer.from(digits, 'hex');
}

function encryptionWith(keyHex: string) {
  const key = createSecretKey(Buffer.from(keyHex, 'hex'));
  return { subKeyAlgorithm: 'AES256-KW', dataAlgorithm: 'AES256-GCM-SIV', segmentBytes: 65536, key } as const;
}

async function deriveHex(passphrase: string, parameters: KdfParameters): Promise<string> {
  return toHex((await deriveKey(Buffer.from(passphrase), parameters)).export());
}

describe('the worked example', () => {
  test('Argon2id with the defaults', async () => {
    expect(await deriveHex('fixture passphrase 1', argon2id)).toBe(storeKey);
  });

  test('the canary opens under the right key only', async () => {
    expect(keyOpensCanary(canary, encryptionWith(storeKey))).toBe(true);
    const wrongKey = await deriveHex('fixture passphrase 2', { ...argon2id, time: 1, memoryKiB: 64 });
    expect(keyOpensCanary(canary, encryptionWith(wrongKey))).toBe(false);
  });

  test('a damaged canary does not open, whichever byte it is', () => {
    for (let at = 0; at < canary.byteLength; at++) {
      const damaged = Buffer.from(canary);
      damaged[at]! ^= 1;
      expect(keyOpensCanary(damaged, encryptionWith(storeKey)), `byte ${at}`).toBe(false);
      expect(keyOpensCanary(canary.subarray(0, at), encryptionWith(storeKey)), `cut at ${at}`).toBe(false);
    }
  });

  test('a cipher that is not read is no wrong passphrase', () => {
    const encryption = { ...encryptionWith(storeKey), dataAlgorithm: 'AES256-GCM' };
    expect(() => keyOpensCanary(canary, encryption as never)).toThrow(UnsupportedError);
  });
});

/** Salts and canaries of fixture stores, whose keys their manifests tell; and values of Python's hashlib. */
describe('the other derivations', () => {
  test('scrypt with the defaults opens fixture encrypted-scrypt', async () => {
    const parameters: KdfParameters = { ...scrypt, n: 32768, p: 1, salt: hex('543c7262ae69ea0ade92385d92ecc695') };
    const key = await deriveHex('fixture passphrase 2', parameters);
    expect(key).toBe('b2fd01063fde681755729d1244d686309f4db8ee1866cb44364e7d5d995cea8d');
  });

  test('PBKDF2 with the defaults opens fixture encrypted-pbkdf2-sha256', async () => {
    const parameters: KdfParameters = { ...pbkdf2, iterations: 100_000, salt: hex('2652d1ddad7a38529ecc75a5411c98b9') };
    const key = await deriveHex('fixture passphrase 3', parameters);
    expect(key).toBe('e571dcb1f50d1d9af9bc14ec686c79130fc4d9b8beb1f4551217a120e121b4f0');
  });

  test('scrypt with another P; PBKDF2 with another hash', async () => {
    expect(await deriveHex('password', scrypt)).toBe(
      '5ec0b6653757278cec7f355d46d4d034d497313a2a7feb5c4b189317953f116e',
    );
    expect(
      await deriveHex('passwd', { ...pbkdf2, iterations: 1000, hashing: 'SHA512', salt: Buffer.from('NaClNaCl') }),
    ).toBe('4a005055c8d03ecd11b6d338b9c0e7588bd4257de32b21fbf781ea422c4f55f5');
  });
});

describe('what CONFIG may not ask for', () => {
  const refused: readonly [string, KdfParameters][] = [
    ['keys of 16 bytes', { ...argon2id, keyBytes: 16 }],
    ['more than 4 GiB for Argon2id', { ...argon2id, memoryKiB: 4 * 1024 * 1024 + 1, time: 1 }],
    ['4 GiB for a thousand passes', { ...argon2id, memoryKiB: 4 * 1024 * 1024, time: 1000 }],
    ['no passes', { ...argon2id, time: 0 }],
    ['no threads', { ...argon2id, threads: 0 }],
    ['more threads than memory', { ...argon2id, memoryKiB: 31, threads: 4 }],
    ['a fraction of a KiB', { ...argon2id, memoryKiB: 64.5 }],
    ['N that is no power of two', { ...scrypt, n: 1000 }],
    ['N of one', { ...scrypt, n: 1 }],
    ['N above any memory', { ...scrypt, n: 2 ** 40 }],
    ['R above any memory', { ...scrypt, r: 2 ** 30 }],
    ['P above any patience', { ...scrypt, p: 2 ** 20 }],
    ['P of zero', { ...scrypt, p: 0 }],
    ['iterations without end', { ...pbkdf2, iterations: 2 ** 40 }],
    ['no iterations', { ...pbkdf2, iterations: 0 }],
    ['an unknown hash', { ...pbkdf2, hashing: 'MD5' }],
    ['a hash named like a property of every object', { ...pbkdf2, hashing: 'constructor' }],
    ['an unknown derivation', { ...pbkdf2, name: 'HKDF' } as never],
  ];
  test.each(refused)('%s', async (_, parameters) => {
    await expect(deriveKey(Buffer.from('x'), parameters)).rejects.toThrow(UnsupportedError);
  });

  test('a salt of an impossible length', async () => {
    for (const length of [0, 7, 1025]) {
      const parameters = { ...pbkdf2, salt: new Uint8Array(length) };
      await expect(deriveKey(Buffer.from('x'), parameters)).rejects.toThrow(CorruptStoreError);
    }
  });

  test('an empty passphrase', async () => {
    await expect(deriveKey(new Uint8Array(0), pbkdf2)).rejects.toThrow(UserError);
  });
});
