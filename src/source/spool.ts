/**
 * Chunks that have passed, kept in a file without a name: it is unlinked as soon as it is open, so nothing stays behind
 * however the process ends. Append only; nothing is ever evicted, since getting a chunk again can cost a whole file.
 *
 * The spool never fails its caller: when the disk or the limit is full it keeps nothing more (one warning), and a chunk
 * that cannot be read back is forgotten. It does not check what it reads: the caller verifies the MAC again.
 *
 * Memory: about 150 bytes a chunk, and the chunks being written.
 */
import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { SEAL_BYTES, Sealer } from '../core/sealer.ts';
import { formatBytes } from '../core/units.ts';

export interface SpoolOptions {
  readonly directory: string;
  /** The chunks are of an encrypted store: they are encrypted, with a key that is in memory only. Default: they are not. */
  readonly encrypt?: boolean | undefined;
  /** Bytes of chunks; default: no limit but the disk's. */
  readonly bytesMax?: number | undefined;
  readonly log: Log;
}

/** A MAC as a map key: one character a byte, half the memory of hex. */
export type MacKey = string & { readonly __brand: 'MacKey' };

export function macKey(mac: Uint8Array): MacKey {
  return Buffer.from(mac.buffer, mac.byteOffset, mac.byteLength).toString('latin1') as MacKey;
}

/** Bytes of the key of an encrypted spool. */
const KEY_BYTES = 32;

export class Spool {
  readonly #directory: string;
  readonly #bytesMax: number;
  readonly #log: Log;
  readonly #sealer: Sealer | undefined;
  readonly #places = new Map<MacKey, { readonly offset: number; readonly length: number }>();
  /** Chunks on their way to the disk: readable from the moment `keep` is called. */
  readonly #writing = new Map<MacKey, Uint8Array>();
  #file: Promise<FileHandle> | undefined;
  #end = 0;
  #keeping = true;
  #closed = false;

  constructor({ directory, encrypt = false, bytesMax = Number.POSITIVE_INFINITY, log }: SpoolOptions) {
    this.#sealer = encrypt ? Sealer.forSealing(createSecretKey(randomBytes(KEY_BYTES))) : undefined;
    this.#directory = directory;
    this.#bytesMax = bytesMax;
    this.#log = log;
  }

  /** Whether a chunk offered now would be kept, as far as is known. Once false, it stays so. */
  get keeping(): boolean {
    return this.#keeping;
  }

  /** Bytes kept. */
  get sizeBytes(): number {
    return this.#end;
  }

  /** Creates the file now instead of at the first chunk. Rejects with UserError: here the operator can still choose another directory. */
  async open(): Promise<void> {
    try {
      await this.#handle();
    } catch (cause) {
      throw new UserError(
        `cannot create a temporary file in ${this.#directory} (${reasonOf(cause)}): choose a writable directory with --temp-dir`,
        { exitCode: exitCodes.failure, cause, details: { directory: this.#directory } },
      );
    }
  }

  has(key: MacKey): boolean {
    return this.#places.has(key) || this.#writing.has(key);
  }

  /**
   * Keeps a chunk, unless it is there already or there is no room. Borrows `bytes` until settled. Never rejects; settles
   * once the bytes are with the kernel, so that awaiting it paces the caller by the disk.
   */
  async keep(key: MacKey, bytes: Uint8Array): Promise<void> {
    if (!this.#keeping || this.has(key)) return;
    const length = bytes.byteLength + (this.#sealer === undefined ? 0 : SEAL_BYTES);
    if (this.#end + length > this.#bytesMax) {
      this.#stopKeeping(`its limit of ${formatBytes(this.#bytesMax)} is reached`);
      return;
    }
    const offset = this.#end;
    this.#end += length;
    this.#writing.set(key, bytes);
    try {
      await writeFully(await this.#handle(), this.#sealed(bytes, offset), offset);
      // Unless it was forgotten meanwhile.
      if (this.#writing.get(key) === bytes) this.#places.set(key, { offset, length });
    } catch (error) {
      this.#stopKeeping(`a write failed (${reasonOf(error)})`);
    } finally {
      this.#writing.delete(key);
    }
  }

  /** The bytes kept under `key`, the caller's to read, not to write; undefined if there are none or they cannot be read. */
  async read(key: MacKey): Promise<Uint8Array | undefined> {
    const beingWritten = this.#writing.get(key);
    if (beingWritten !== undefined) return beingWritten;
    const place = this.#places.get(key);
    if (place === undefined || this.#closed) return undefined;
    try {
      return this.#opened(await readFully(await this.#handle(), place), place.offset);
    } catch (error) {
      if (!this.#closed) this.forget(key, `a read failed (${reasonOf(error)})`);
      return undefined;
    }
  }

  /** Drops a chunk that came back wrong; its bytes in the file stay unused. */
  forget(key: MacKey, reason: string): void {
    const place = this.#places.get(key);
    const wasThere = this.#places.delete(key);
    if (!this.#writing.delete(key) && !wasThere) return;
    this.#log.warn(
      { directory: this.#directory, ...place, reason },
      'a chunk kept in the temporary directory came back damaged; it is fetched again',
    );
  }

  /** Idempotent. The file is gone once this settles. */
  async close(): Promise<void> {
    this.#keeping = false;
    this.#closed = true;
    this.#places.clear();
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    // A file that never came to be has been reported when it failed.
    const handle = await file.catch(() => undefined);
    await handle?.close();
  }

  #sealed(bytes: Uint8Array, offset: number): Uint8Array {
    if (this.#sealer === undefined) return bytes;
    const sealed = Buffer.allocUnsafe(bytes.byteLength + SEAL_BYTES);
    this.#sealer.seal(bytes, placeContext(offset), sealed);
    return sealed;
  }

  #opened(stored: Uint8Array, offset: number): Uint8Array {
    if (this.#sealer === undefined) return stored;
    const bytes = Buffer.allocUnsafe(stored.byteLength - SEAL_BYTES);
    if (!this.#sealer.open(stored, placeContext(offset), bytes)) throw new Error('it is not what was written');
    return bytes;
  }

  #handle(): Promise<FileHandle> {
    if (this.#closed) return Promise.reject(new Error('the spool is closed'));
    this.#file ??= createUnlinked(this.#directory);
    return this.#file;
  }

  #stopKeeping(reason: string): void {
    if (!this.#keeping) return;
    this.#keeping = false;
    this.#log.warn(
      { directory: this.#directory, keptBytes: this.#end, reason },
      `no more file contents are kept in ${this.#directory}: ${reason}; reads go on, but some contents will be streamed more than once`,
    );
  }
}

/** What is kept is valid in its place only. */
function placeContext(offset: number): Buffer {
  const context = Buffer.alloc(8);
  context.writeBigUInt64LE(BigInt(offset));
  return context;
}

async function createUnlinked(directory: string): Promise<FileHandle> {
  const path = join(directory, `kloset-nbd-spool-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.byteLength - done, offset + done);
    done += bytesWritten;
  }
}

async function readFully(
  file: FileHandle,
  { offset, length }: { offset: number; length: number },
): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error('the file ends early');
    done += bytesRead;
  }
  return bytes;
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : String(error instanceof Error ? error.message : error);
}
