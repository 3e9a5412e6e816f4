/**
 * From a passphrase to the store's key (kloset-format.md 6 and 6.1). CONFIG is not authenticated until there is a key,
 * so its parameters are bounded before anything is computed or allocated.
 */
import crypto, { createSecretKey, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { CorruptStoreError, exitCodes, UnsupportedError, UserError } from '../../core/errors.ts';
import { GiB, KiB, MiB } from '../../core/units.ts';
import { createDecryptor, type EncryptionParameters } from './encryption.ts';
import { createTypescriptKernels } from './kernels.ts';

/** `KDFParams` of CONFIG. Plain data: crosses threads. */
export type KdfParameters = (Argon2idParameters | ScryptParameters | Pbkdf2Parameters) & {
  readonly salt: Uint8Array;
  /** `KeyLen`: must be 32. */
  readonly keyBytes: number;
};

interface Argon2idParameters {
  readonly name: 'ARGON2ID';
  /** Passes over the memory. */
  readonly time: number;
  readonly memoryKiB: number;
  readonly threads: number;
}

interface ScryptParameters {
  readonly name: 'SCRYPT';
  /** `N`, `R`, `P` of CONFIG: RFC 7914's cost, block size and parallelism. */
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

interface Pbkdf2Parameters {
  readonly name: 'PBKDF2';
  readonly iterations: number;
  /** The hash of its HMAC, as CONFIG names it: `SHA256`. */
  readonly hashing: string;
}

const KEY_BYTES = 32;
/** The writer makes 16; Argon2 takes 8 and more, and there is no use for long ones. */
const SALT_BYTES_MIN = 8;
const SALT_BYTES_MAX = 1 * KiB;
/** The writer's default is 256 MiB. */
const MEMORY_BYTES_MAX = 4 * GiB;
/** Memory times passes, bytes: the writer's default is 1 GiB and takes 2 s, so this is two minutes. */
const WORK_BYTES_MAX = 64 * GiB;
const THREADS_MAX = 255;
/** The writer's default is 100,000, and 10 million take some seconds. */
const ITERATIONS_MAX = 100_000_000;
const CANARY_BYTES = 32;

/** The hashes Go's names stand for; the writer selects SHA256. */
const pbkdf2Hashes: Readonly<Record<string, string>> = { SHA256: 'sha256', SHA384: 'sha384', SHA512: 'sha512' };

/** Node 24.7 and later. Missing in the types of Node 20. */
type NativeArgon2 = (
  algorithm: 'argon2id',
  parameters: {
    readonly message: Uint8Array;
    readonly nonce: Uint8Array;
    readonly parallelism: number;
    readonly tagLength: number;
    readonly memory: number;
    readonly passes: number;
  },
  callback: (error: Error | null, key: Buffer) => void,
) => void;
const nativeArgon2 = (crypto as { readonly argon2?: NativeArgon2 }).argon2;

/**
 * Whether `deriveKey` keeps its thread busy for seconds: WebAssembly does, Node's own functions run in Node's thread
 * pool. A thread that serves should then have a worker call it: parameters and the key cross by structured clone.
 */
export function derivationBlocksThread(parameters: KdfParameters): boolean {
  return parameters.name === 'ARGON2ID' && nativeArgon2 === undefined;
}

/**
 * The store's key, 32 bytes. `passphrase` is used as given, byte for byte. Rejects with UnsupportedError or
 * CorruptStoreError, before any work, if the parameters are outside what is read; with UserError if the passphrase is
 * empty, which plakar never takes. Whether the passphrase is the right
 * one, `keyOpensCanary` tells.
 */
export async function deriveKey(passphrase: Uint8Array, parameters: KdfParameters): Promise<KeyObject> {
  const { salt, keyBytes } = parameters;
  if (passphrase.byteLength === 0) {
    throw new UserError('The passphrase is empty', { exitCode: exitCodes.passphrase });
  }
  if (keyBytes !== KEY_BYTES) throw refused(`keys of ${keyBytes} bytes`, 'keys of 32');
  if (salt.byteLength < SALT_BYTES_MIN || salt.byteLength > SALT_BYTES_MAX) {
    throw new CorruptStoreError(`CONFIG has a salt of ${salt.byteLength} bytes: 8 to 1024 are possible`);
  }
  const key = await derive(passphrase, parameters);
  const keyObject = createSecretKey(key);
  key.fill(0);
  return keyObject;
}

function derive(passphrase: Uint8Array, parameters: KdfParameters): Promise<Uint8Array> {
  switch (parameters.name) {
    case 'ARGON2ID':
      return deriveArgon2id(passphrase, parameters);
    case 'SCRYPT':
      return deriveScrypt(passphrase, parameters);
    case 'PBKDF2':
      return derivePbkdf2(passphrase, parameters);
    default:
      throw refused(`key derivation ${(parameters satisfies never as KdfParameters).name}`, 'ARGON2ID, SCRYPT, PBKDF2');
  }
}

async function deriveArgon2id(
  passphrase: Uint8Array,
  { salt, time, memoryKiB, threads }: Argon2idParameters & { readonly salt: Uint8Array },
): Promise<Uint8Array> {
  const memoryBytes = memoryKiB * KiB;
  if (
    !isCount(time) ||
    !isCount(memoryKiB) ||
    !isCount(threads) ||
    threads > THREADS_MAX ||
    memoryKiB < 8 * threads ||
    memoryBytes > MEMORY_BYTES_MAX ||
    memoryBytes * time > WORK_BYTES_MAX
  ) {
    throw refused(
      `Argon2id with ${memoryKiB} KiB, ${time} passes and ${threads} threads`,
      'up to 4 GiB, 64 GiB over all passes, and 255 threads of 8 KiB each',
    );
  }
  if (nativeArgon2 !== undefined) {
    const cost = { parallelism: threads, tagLength: KEY_BYTES, memory: memoryKiB, passes: time };
    return promisify(nativeArgon2)('argon2id', { message: passphrase, nonce: salt, ...cost });
  }
  // Loaded here, since every thread that decodes has this module and none of them derives a key.
  const { argon2id } = await import('./argon2.ts');
  try {
    return await argon2id(passphrase, salt, { time, memoryKiB, threads, keyBytes: KEY_BYTES });
  } catch (cause) {
    // Its options were checked, so what is left is WebAssembly's memory: at most 4 GiB, less where the machine has less.
    throw new UnsupportedError(`Deriving the key needs ${memoryKiB} KiB of memory, more than can be had`, { cause });
  }
}

async function deriveScrypt(
  passphrase: Uint8Array,
  { salt, n, r, p }: ScryptParameters & { readonly salt: Uint8Array },
): Promise<Uint8Array> {
  const memoryBytes = 128 * r * (n + p);
  const isPowerOfTwo = isCount(n) && n > 1 && Number.isInteger(Math.log2(n));
  if (
    !isPowerOfTwo ||
    !isCount(r) ||
    !isCount(p) ||
    memoryBytes > MEMORY_BYTES_MAX ||
    memoryBytes * p > WORK_BYTES_MAX
  ) {
    throw refused(`scrypt with N ${n}, R ${r} and P ${p}`, 'N a power of two, up to 4 GiB, and 64 GiB over all of P');
  }
  // Node refuses more than 32 MiB unless told; what OpenSSL counts on top stays below 1 MiB and 1 KiB a block of R.
  const maxmem = memoryBytes + 1 * MiB + r * KiB;
  return promisify<Uint8Array, Uint8Array, number, crypto.ScryptOptions, Buffer>(crypto.scrypt)(
    passphrase,
    salt,
    KEY_BYTES,
    { N: n, r, p, maxmem },
  );
}

async function derivePbkdf2(
  passphrase: Uint8Array,
  { salt, iterations, hashing }: Pbkdf2Parameters & { readonly salt: Uint8Array },
): Promise<Uint8Array> {
  const hash = Object.hasOwn(pbkdf2Hashes, hashing) ? pbkdf2Hashes[hashing] : undefined;
  if (hash === undefined) throw refused(`PBKDF2 with ${hashing}`, Object.keys(pbkdf2Hashes).join(', '));
  if (!isCount(iterations) || iterations > ITERATIONS_MAX) {
    throw refused(`PBKDF2 with ${iterations} iterations`, `1 to ${ITERATIONS_MAX}`);
  }
  return promisify(crypto.pbkdf2)(passphrase, salt, iterations, KEY_BYTES, hash);
}

/**
 * Whether `encryption.key` is the store's key: it decrypts CONFIG's canary, an encrypted but not compressed value of 32
 * random bytes. False for any failure, since a wrong passphrase and a damaged canary cannot be told apart (6.1). Throws
 * UnsupportedError.
 */
export function keyOpensCanary(canary: Uint8Array, encryption: EncryptionParameters): boolean {
  const decryptor = createDecryptor(encryption, createTypescriptKernels());
  try {
    if (decryptor.plainBytes(canary) !== CANARY_BYTES) return false;
    decryptor.decryptInto(canary, new Uint8Array(CANARY_BYTES));
    return true;
  } catch (error) {
    if (error instanceof CorruptStoreError) return false;
    throw error;
  }
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}

function refused(found: string, read: string): UnsupportedError {
  return new UnsupportedError(`The store uses ${found}; this kloset-nbd reads ${read}`);
}
