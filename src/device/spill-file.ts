import { createSecretKey, randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OverlayError, UserError } from '../core/errors.ts';
import { hasFileSystemType } from '../core/file-system-type.ts';
import type { Log } from '../core/log.ts';
import { SEAL_BYTES, Sealer } from '../core/sealer.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { nodeFileSystem, type OverlayFile, type OverlayFileSystem } from './file-system.ts';

/** f_type of file systems that live in memory: tmpfs, ramfs (linux/magic.h). */
const memoryFileSystems: ReadonlySet<number> = new Set([0x0102_1994, 0x8584_58f6]);

/** Bytes of the key of an encrypted file: it is never anywhere but in memory. */
const KEY_BYTES = 32;

export interface SpillFileOptions {
  readonly directory: string;
  /** What is written is of an encrypted store. */
  readonly encrypt: boolean;
  readonly log: Log;
  readonly fileSystem: OverlayFileSystem;
}

/**
 * A temporary file without a name: the space is free again when the process ends, however it ends. Made when the first
 * block spills; most overlays never need it. Its unit is the slot of one block; a slot that may be read is not written.
 */
export class SpillFile {
  readonly #directory: string;
  readonly #fileSystem: OverlayFileSystem;
  readonly #log: Log;
  readonly #sealer: Sealer | undefined;
  readonly #slotBytes: number;
  #file: Promise<OverlayFile> | undefined;

  constructor({ directory, encrypt, log, fileSystem }: SpillFileOptions) {
    this.#directory = directory;
    this.#sealer = encrypt ? Sealer.forSealing(createSecretKey(randomBytes(KEY_BYTES))) : undefined;
    this.#slotBytes = BLOCK_SIZE + (encrypt ? SEAL_BYTES : 0);
    this.#log = log;
    this.#fileSystem = fileSystem;
  }

  /** Fills `target` from byte `skip` of `slot` on. */
  async read(slot: number, skip: number, target: Uint8Array): Promise<void> {
    const file = await this.#opened();
    if (this.#sealer === undefined) {
      const got = await file.read(target, slot * this.#slotBytes + skip);
      if (got < target.length)
        throw new OverlayError(`the spill file in ${this.#directory} is too short`, { reason: 'io' });
      return;
    }
    const count = Math.ceil((skip + target.length) / BLOCK_SIZE);
    const stored = Buffer.alloc(count * this.#slotBytes);
    await file.read(stored, slot * this.#slotBytes);
    const plain = Buffer.allocUnsafe(count * BLOCK_SIZE);
    for (let at = 0; at < count; at++) {
      const sealed = stored.subarray(at * this.#slotBytes, (at + 1) * this.#slotBytes);
      const block = plain.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE);
      if (this.#sealer.open(sealed, slotContext(slot + at), block)) continue;
      throw new OverlayError(`the spill file in ${this.#directory} is damaged`, { reason: 'damaged' });
    }
    target.set(plain.subarray(skip, skip + target.length));
  }

  /** Writes whole blocks from `slot` on. */
  async write(slot: number, data: Uint8Array): Promise<void> {
    const file = await this.#opened();
    await file.write(
      [this.#sealer === undefined ? data : this.#sealed(this.#sealer, slot, data)],
      slot * this.#slotBytes,
    );
  }

  #sealed(sealer: Sealer, slot: number, data: Uint8Array): Buffer {
    const count = data.length / BLOCK_SIZE;
    const stored = Buffer.allocUnsafe(count * this.#slotBytes);
    for (let at = 0; at < count; at++) {
      const block = data.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE);
      sealer.seal(block, slotContext(slot + at), stored.subarray(at * this.#slotBytes));
    }
    return stored;
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined) await (await file).close();
  }

  #opened(): Promise<OverlayFile> {
    if (this.#file === undefined) {
      this.#file = this.#create();
      // A full or read-only disk may be better the next time.
      this.#file.catch(() => {
        this.#file = undefined;
      });
    }
    return this.#file;
  }

  async #create(): Promise<OverlayFile> {
    const path = join(this.#directory, `kloset-nbd-spill-${randomBytes(8).toString('hex')}`);
    const file = await this.#fileSystem.open(path, 'create');
    await this.#fileSystem.remove(path);
    this.#log.info(
      { directory: this.#directory },
      'the memory limit of the overlay is reached: blocks go to a temporary file',
    );
    return file;
  }
}

/** A slot's content is valid in that slot only. */
function slotContext(slot: number): Buffer {
  const context = Buffer.alloc(8);
  context.writeBigUInt64LE(BigInt(slot));
  return context;
}

/**
 * The directory for spilled blocks: `wanted`, else the system's, else /var/tmp if the system's is kept in memory, where
 * spilling would free nothing. Rejects with UserError if `wanted` is no directory.
 */
export async function spillDirectory(wanted: string | undefined, log: Log): Promise<string> {
  if (wanted !== undefined) {
    let inMemory: boolean;
    try {
      await nodeFileSystem.list(wanted);
      inMemory = await livesInMemory(wanted);
    } catch (cause) {
      throw new UserError(`${wanted} cannot hold temporary files; give --temp-dir a directory that exists`, { cause });
    }
    if (inMemory) log.warn({ directory: wanted }, 'the directory for temporary files is kept in memory (tmpfs)');
    return wanted;
  }
  const candidates = [tmpdir(), '/var/tmp'];
  for (const candidate of candidates) {
    try {
      if (!(await livesInMemory(candidate))) return candidate;
    } catch (error) {
      log.debug({ candidate, error }, 'not usable for temporary files');
    }
  }
  const message = `${candidates.join(' and ')} are kept in memory (tmpfs) or missing; give --temp-dir, or TMPDIR, a directory on a disk`;
  throw new UserError(message);
}

function livesInMemory(directory: string): Promise<boolean> {
  return hasFileSystemType(directory, memoryFileSystems);
}
