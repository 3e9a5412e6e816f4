import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { CorruptStoreError, exitCodes, UserError } from '../core/errors.ts';
import { CONFIG_BYTES_MAX, OPEN_PACKFILES_MAX, STATE_BYTES_MAX } from './limits.ts';
import { isMissing, toStoreError } from './local-errors.ts';
import { OpenFiles } from './open-files.ts';
import { MissingResourceError, type RemoteStore, TransientStoreError } from './remote-store.ts';
import type { ResourceKind } from './store.ts';

const ID_PATTERN = /^[0-9a-f]{64}$/;

/**
 * A store in a local directory (kloset-format 2.1). Files in it are published by rename and never change. A directory
 * without its CONFIG is one whose file system is not mounted: what is missing then may come back.
 */
export class LocalStore implements RemoteStore {
  readonly location: string;
  readonly #packfiles = new OpenFiles(OPEN_PACKFILES_MAX);

  constructor(directory: string) {
    this.location = directory;
  }

  async readConfig(): Promise<Uint8Array> {
    const file = path.join(this.location, 'CONFIG');
    try {
      return await this.#readWhole(file, CONFIG_BYTES_MAX);
    } catch (error) {
      if (!isMissing(error)) throw error;
      const exists = await stat(this.location).then(
        () => true,
        () => false,
      );
      throw new UserError(
        exists
          ? `${this.location} is not a Kloset store: it holds no CONFIG. Name the store's own directory with --store.`
          : `There is no store at ${this.location}. Check the path given with --store, or PLAKAR_REPOSITORY.`,
        { exitCode: exitCodes.noStore, cause: error },
      );
    }
  }

  async list(kind: ResourceKind): Promise<string[]> {
    const root = path.join(this.location, kind);
    const ids: string[] = [];
    for (const bucket of await this.#listOrNothing(root)) {
      if (!/^[0-9a-f]{2}$/.test(bucket)) continue;
      // Temporary files of a running backup lie beside the resources: only full ids count.
      const names = await this.#listOrNothing(path.join(root, bucket));
      for (const name of names) if (ID_PATTERN.test(name) && name.startsWith(bucket)) ids.push(name);
    }
    return ids.sort();
  }

  async readState(id: string): Promise<Uint8Array> {
    try {
      return await this.#readWhole(this.#pathOf('states', id), STATE_BYTES_MAX);
    } catch (error) {
      throw isMissing(error) ? await this.#missing(`State ${id}`, error) : error;
    }
  }

  async readPackfile(id: string, offset: number, target: Uint8Array): Promise<void> {
    const filled = await this.readPackfileUpTo(id, offset, target);
    if (filled === target.byteLength) return;
    this.#packfiles.forget(this.#pathOf('packfiles', id));
    throw new CorruptStoreError(`packfile ${id}: it ends before byte ${offset + target.byteLength}`);
  }

  async readPackfileUpTo(id: string, offset: number, target: Uint8Array): Promise<number> {
    const file = this.#pathOf('packfiles', id);
    const handle = await this.#packfiles.acquire(file).catch(async (error) => {
      throw isMissing(error) ? await this.#missing(`packfile ${id}`, error) : toStoreError(error, `packfile ${id}`);
    });
    try {
      return await handle.fill(offset, target);
    } catch (error) {
      // The next attempt opens the file anew: on a network file system the handle may be what is broken (ESTALE).
      this.#packfiles.forget(file);
      throw toStoreError(error, `packfile ${id}`);
    } finally {
      handle.release();
    }
  }

  async close(): Promise<void> {
    this.#packfiles.close();
  }

  #pathOf(kind: ResourceKind, id: string): string {
    return path.join(this.location, kind, id.slice(0, 2), id);
  }

  /** A store without any resource of a kind has no directory for it. */
  async #listOrNothing(directory: string): Promise<string[]> {
    try {
      return await readdir(directory);
    } catch (error) {
      if (!isMissing(error)) throw toStoreError(error, directory);
      const missing = await this.#missing(directory, error);
      if (missing instanceof TransientStoreError) throw missing;
      return [];
    }
  }

  /** The error for a file that is not there: gone from the store, or away with all of it. */
  async #missing(what: string, cause: unknown): Promise<MissingResourceError | TransientStoreError> {
    const isThere = await stat(path.join(this.location, 'CONFIG')).then(
      () => true,
      () => false,
    );
    return isThere
      ? new MissingResourceError(`${what} has vanished from the store`, { cause })
      : new TransientStoreError(`${what}: there is no store at ${this.location} any more`, { cause });
  }

  async #readWhole(file: string, bytesMax: number): Promise<Uint8Array> {
    try {
      const { size } = await stat(file);
      if (size > bytesMax) throw new CorruptStoreError(`${file} has ${size} bytes, more than the ${bytesMax} allowed`);
      return await readFile(file);
    } catch (error) {
      throw isMissing(error) ? error : toStoreError(error, file);
    }
  }
}
