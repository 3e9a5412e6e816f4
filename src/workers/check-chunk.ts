import { CorruptStoreError } from '../core/errors.ts';
import { equalBytes } from '../core/mac.ts';
import type { Codec } from '../kloset/codec/codec.ts';

/** Decodes `stored` into all of `target` and compares its MAC. Throws CorruptStoreError; `target` is then not to be used. */
export function decodeChecked(codec: Codec, stored: Uint8Array, target: Uint8Array, mac: Uint8Array): void {
  codec.decodeInto(stored, target);
  requireMac(codec, target, mac);
}

/** Throws CorruptStoreError unless `plain` has that MAC. */
export function requireMac(codec: Codec, plain: Uint8Array, mac: Uint8Array): void {
  if (!equalBytes(codec.mac(plain), mac)) throw new CorruptStoreError('its MAC does not match its content');
}
