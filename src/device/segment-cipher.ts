/**
 * The encryption of an overlay's log (log-format.ts has the layout).
 *
 *   overlay key    from the store's key and the salt in overlay.json; nothing is encrypted with it
 *   segment key    HKDF-SHA256 (RFC 5869) over the overlay key, with a random salt of its own in each segment's file
 *
 * A segment is written by the one process that made it, with one `Sealer`: it gives its salt and its key away to nobody.
 * So no nonce is used twice under a key, whatever is cut off, taken back and written again at the same place, and also
 * where a crash lost a segment's file, or a directory was copied, and its number is used again: the salt is another.
 */
import { createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';
import { exitCodes, UserError } from '../core/errors.ts';
import { SEAL_BYTES, Sealer } from '../core/sealer.ts';
import { BLOCK_SIZE } from '../core/units.ts';

/** Makes an overlay's key from its salt; made from another store's key it is another one. */
export type OverlayKeySource = (salt: Uint8Array) => KeyObject;

export const SALT_BYTES = 32;
const KEY_BYTES = 32;
const KEY_CHECK_BYTES = 16;
/** Bytes of a block in an encrypted log. */
export const SEALED_BLOCK_BYTES = BLOCK_SIZE + SEAL_BYTES;

/** What overlay.json says about the encryption of an overlay. */
export interface OverlayEncryption {
  readonly cipher: 'AES-256-GCM';
  /** Of the overlay key; 64 hex digits. */
  readonly salt: string;
  /** 32 hex digits that depend on the key and do not give it away: another key is found out. */
  readonly keyCheck: string;
}

export function newEncryption(keyFor: OverlayKeySource): OverlayEncryption {
  const salt = randomBytes(SALT_BYTES);
  return { cipher: 'AES-256-GCM', salt: salt.toString('hex'), keyCheck: keyCheck(keyFor(salt)) };
}

/** The overlay key. Throws UserError if it is not this overlay's, or there is none. */
export function overlayKey(
  directory: string,
  encryption: OverlayEncryption,
  keyFor: OverlayKeySource | undefined,
): KeyObject {
  const exitCode = exitCodes.passphrase;
  if (keyFor === undefined) {
    const message = `the overlay ${directory} is encrypted, but this store has no key; use the store it was made over`;
    throw new UserError(message, { exitCode });
  }
  const key = keyFor(Buffer.from(encryption.salt, 'hex'));
  if (keyCheck(key) === encryption.keyCheck) return key;
  const message = `the overlay ${directory} is encrypted with the key of another store; use the store it was made over, or another overlay directory`;
  throw new UserError(message, { exitCode });
}

function keyCheck(key: KeyObject): string {
  return Buffer.from(hkdfSync('sha256', key, '', 'kloset-nbd overlay key check', KEY_CHECK_BYTES)).toString('hex');
}

/** Seals and opens the blocks and tables of one segment. */
export class SegmentCipher {
  readonly salt: Uint8Array;
  readonly #sealer: Sealer;

  private constructor(salt: Uint8Array, sealer: Sealer) {
    this.salt = salt;
    this.#sealer = sealer;
  }

  /** For a segment that this process makes. */
  static create(overlayKey: KeyObject): SegmentCipher {
    const salt = randomBytes(SALT_BYTES);
    return new SegmentCipher(salt, Sealer.forSealing(segmentKey(overlayKey, salt)));
  }

  /** For a segment that is there; only opens. */
  static of(overlayKey: KeyObject, salt: Uint8Array): SegmentCipher {
    return new SegmentCipher(salt, Sealer.forOpening(segmentKey(overlayKey, salt)));
  }

  /** Writes the blocks of `data`, which belong at `block` and behind it, to `stored` as they are stored at byte `position`. */
  sealBlocks(block: number, position: number, data: Uint8Array, stored: Buffer): void {
    const count = data.length / BLOCK_SIZE;
    for (let at = 0; at < count; at++) {
      const context = placeOf(block + at, position + at * SEALED_BLOCK_BYTES);
      const plain = data.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE);
      this.#sealer.seal(plain, context, stored.subarray(at * SEALED_BLOCK_BYTES));
    }
  }

  /** Fills `target` with the whole blocks in `stored`, which begin at byte `position`; for each, whether it is what was sealed. */
  openBlocks(block: number, position: number, stored: Uint8Array, target: Uint8Array): boolean[] {
    return Array.from({ length: Math.floor(stored.length / SEALED_BLOCK_BYTES) }, (_, at) => {
      const start = at * SEALED_BLOCK_BYTES;
      const plain = target.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE);
      return this.#sealer.open(
        stored.subarray(start, start + SEALED_BLOCK_BYTES),
        placeOf(block + at, position + start),
        plain,
      );
    });
  }

  /** `header`: of the record, with its checksums left at zero. */
  sealTable(header: Uint8Array, table: Uint8Array, target: Buffer): void {
    this.#sealer.seal(table, header, target);
  }

  openTable(header: Uint8Array, stored: Uint8Array): Buffer | undefined {
    const table = Buffer.alloc(Math.max(0, stored.length - SEAL_BYTES));
    return this.#sealer.open(stored, header, table) ? table : undefined;
  }
}

function segmentKey(overlayKey: KeyObject, salt: Uint8Array): KeyObject {
  return createSecretKey(new Uint8Array(hkdfSync('sha256', overlayKey, salt, 'kloset-nbd overlay segment', KEY_BYTES)));
}

/** A block is valid in one place only. */
function placeOf(block: number, position: number): Buffer {
  const place = Buffer.allocUnsafe(8);
  place.writeUInt32LE(block);
  place.writeUInt32LE(position, 4);
  return place;
}
