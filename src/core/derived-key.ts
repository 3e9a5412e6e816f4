import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';

const KEY_BYTES = 32;

/**
 * A 256-bit key for our own files beside a store, bound to that store's key: HKDF-SHA256 (RFC 5869) over it. `purpose`
 * keeps the keys of different kinds of file apart, `salt` (random, kept in the file; at least 16 bytes) those of one
 * kind. Of a plaintext store everybody who knows its id can make the key, as plakar's own MAC key: it proves
 * that a file belongs to this store and is whole, not who wrote it.
 */
export function deriveFileKey(storeKey: KeyObject, purpose: string, salt: Uint8Array): KeyObject {
  return createSecretKey(new Uint8Array(hkdfSync('sha256', storeKey, salt, `kloset-nbd ${purpose}`, KEY_BYTES)));
}
