/** Hashes and MACs of a store (kloset-format.md 4): BLAKE3 or SHA-256, always 256 bits. */
import { createHash, createHmac, type KeyObject } from 'node:crypto';
import type { IHasher } from 'hash-wasm';
import { assert, UnsupportedError } from '../../core/errors.ts';
import { MAC_BYTES } from '../../core/mac.ts';
import { createKernels, type Kernels } from './kernels.ts';

/** `Hashing.Algorithm` of CONFIG. */
export type HashAlgorithm = 'BLAKE3' | 'SHA256';

/** 32 bytes over all of `data`, a fresh buffer each time. Synchronous; may be called again and again. */
export type HashFunction = (data: Uint8Array) => Uint8Array;

/** The store's MAC under `key`, 32 bytes: BLAKE3 in keyed mode or HMAC-SHA256. */
export async function createMac(algorithm: HashAlgorithm, key: KeyObject, kernels: Kernels): Promise<HashFunction> {
  if (algorithm === 'BLAKE3') return createBlake3(kernels, key);
  if (algorithm !== 'SHA256')
    throw new UnsupportedError(`stores hashed with ${algorithm satisfies never} are not read`);
  assert(key.symmetricKeySize === MAC_BYTES, 'a MAC key has 32 bytes');
  return (data) => new Uint8Array(createHmac('sha256', key).update(data).digest());
}

/** A MAC over bytes that come piece by piece. */
export interface RunningMac {
  update(part: Uint8Array): void;
  /** 32 bytes; the last call. */
  digest(): Uint8Array;
}

/** `createMac` for what is too large to hold; not the fastest, since few need it. */
export async function createRunningMac(algorithm: HashAlgorithm, key: KeyObject): Promise<RunningMac> {
  if (algorithm === 'SHA256') {
    const hmac = createHmac('sha256', key);
    return { update: (part) => void hmac.update(part), digest: () => new Uint8Array(hmac.digest()) };
  }
  const hasher = (await createHasher(key.export())).init();
  return { update: (part) => void hasher.update(part), digest: () => hasher.digest('binary') };
}

/** BLAKE3-256: plain without `key`, else in keyed mode, for which the key has 32 bytes. */
export async function createBlake3(kernels: Kernels, key?: KeyObject): Promise<HashFunction> {
  assert(key === undefined || key.symmetricKeySize === MAC_BYTES, 'a BLAKE3 key has 32 bytes');
  const keyBytes = key?.export();
  const own = kernels.blake3;
  if (own !== undefined) return (data) => own(data, keyBytes);
  // One hasher is one WebAssembly instance: making it costs more than hashing 100 KiB, so it is used again and again.
  const hasher = await createHasher(keyBytes);
  return (data) => hasher.init().update(data).digest('binary');
}

/** The library's BLAKE3: loaded when it is needed, which few runs do. */
async function createHasher(key: Uint8Array | undefined): Promise<IHasher> {
  const { createBLAKE3 } = await import('hash-wasm');
  return createBLAKE3(8 * MAC_BYTES, key);
}

/** H(x) of the store's algorithm, without a key. */
export async function plainHash(algorithm: HashAlgorithm, data: Uint8Array): Promise<Uint8Array> {
  if (algorithm === 'SHA256') return new Uint8Array(createHash('sha256').update(data).digest());
  return (await createBlake3(await createKernels()))(data);
}

/** BLAKE3-256 of `data`, keyed if there is a key: CONFIG's footer, whatever the store's own algorithm (4.1). */
export async function blake3(data: Uint8Array, key?: KeyObject): Promise<Uint8Array> {
  return (await createBlake3(await createKernels(), key))(data);
}
