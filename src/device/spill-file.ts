import { randomBytes } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { overlayFailure } from './file-errors.ts';
import { nodeFileSystem, type OverlayFile, type OverlayFileSystem } from './file-system.ts';

/** f_type of file systems that live in memory: tmpfs, ramfs (linux/magic.h). */
const memoryFileSystems: ReadonlySet<number> = new Set([0x0102_1994, 0x8584_58f6]);

/**
 * A temporary file without a name: the space is free again when the process ends, however it ends. Made when the first
 * block spills; most overlays never need it.
 */
export class SpillFile {
  readonly #directory: string;
  readonly #fileSystem: OverlayFileSystem;
  readonly #log: Log;
  #file: Promise<OverlayFile> | undefined;

  constructor({ directory, log, fileSystem }: { directory: string; log: Log; fileSystem: OverlayFileSystem }) {
    this.#directory = directory;
    this.#log = log;
    this.#fileSystem = fileSystem;
  }

  async read(target: Uint8Array, position: number): Promise<void> {
    const file = await this.#opened();
    const got = await file.read(target, position);
    if (got < target.length) throw overlayFailure(`the spill file in ${this.#directory} is too short`, undefined);
  }

  async write(data: Uint8Array, position: number): Promise<void> {
    const file = await this.#opened();
    await file.write([data], position);
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
  const message = `${candidates.join(' and ')} are kept in memory (tmpfs) or missing; give --temp-dir a directory on a disk`;
  throw new UserError(message);
}

async function livesInMemory(directory: string): Promise<boolean> {
  const { type } = await statfs(directory);
  // Some systems hand the type out as a signed number.
  return memoryFileSystems.has(type >>> 0);
}
