import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeOwnDirectory } from '../cache/cache-directory.ts';
import { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { equalBytes } from '../core/mac.ts';
import { replaceFile } from '../device/checked-file.ts';
import { lockDirectory } from '../device/directory-lock.ts';
import { errorCode, nodeFileSystem, type OverlayFileSystem } from '../device/file-system.ts';
import type { ReplicaPlace } from '../kloset/blob-replica.ts';
import type { Clock } from '../kloset/clock.ts';
import { DATA_FOLDER } from './data-files.ts';
import { encodeHeader } from './format.ts';
import { HydratedBlobs } from './hydrated-blobs.ts';
import { INDEX_NAME, IndexFile } from './index-file.ts';

const CONFIG_NAME = 'CONFIG';

export interface HydrateDirectoryOptions {
  /** Makes it if it is not there, and locks it: nobody else writes to it then. */
  readonly isWriter: boolean;
  readonly log?: Log;
  readonly fileSystem?: OverlayFileSystem;
  readonly clock?: Clock;
}

type OpenParts = Parameters<ReplicaPlace['open']>[0];

/** A hydrated directory as a place where a store's blobs lie; format.ts says what is in it. */
export class HydrateDirectory implements ReplicaPlace {
  readonly location: string;
  readonly fileSystem: OverlayFileSystem;
  readonly #options: HydrateDirectoryOptions;
  readonly #closers = new Closers();
  #opened: Promise<HydratedBlobs> | undefined;

  constructor(path: string, options: HydrateDirectoryOptions) {
    this.location = path;
    this.#options = options;
    this.fileSystem = options.fileSystem ?? nodeFileSystem;
  }

  async readConfig(): Promise<Uint8Array | undefined> {
    try {
      return await readFile(join(this.location, CONFIG_NAME));
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined;
      throw new UserError(`The hydrated directory ${this.location} cannot be read: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** As ReplicaPlace has it; once. */
  open(parts: OpenParts): Promise<HydratedBlobs> {
    this.#opened ??= this.#open(parts);
    return this.#opened;
  }

  /** What `open` gave. */
  get blobs(): Promise<HydratedBlobs> | undefined {
    return this.#opened;
  }

  close(): Promise<void> {
    return this.#closers.close();
  }

  async #open({ config, fileKey }: OpenParts): Promise<HydratedBlobs> {
    try {
      if (this.#options.isWriter) await this.#prepare(config);
      const copy = await this.readConfig();
      if (copy === undefined) {
        throw new UserError(`${this.location} holds nothing that was hydrated: --hydrate fills it.`);
      }
      if (!equalBytes(copy, config)) {
        throw new UserError(
          `${this.location} was hydrated from another store: name another directory with --hydrate-dir.`,
        );
      }
      return await this.#openBlobs(fileKey);
    } catch (error) {
      return this.#closers.closeBecause(error);
    }
  }

  async #openBlobs(fileKey: OpenParts['fileKey']): Promise<HydratedBlobs> {
    const { log = silentLog, clock, isWriter } = this.#options;
    let index = await IndexFile.open(this.location, this.fileSystem, fileKey);
    if (index === undefined && isWriter) {
      await this.#createFile(INDEX_NAME, encodeHeader(randomBytes(32)));
      index = await IndexFile.open(this.location, this.fileSystem, fileKey);
    }
    if (index === undefined) throw new UserError(`${this.location} holds no index yet: --hydrate fills it.`);
    const blobs = await HydratedBlobs.open({
      directory: this.location,
      index,
      log,
      ...(clock === undefined ? {} : { clock }),
    });
    this.#closers.add(() => blobs.close());
    return blobs;
  }

  /** The directory, its lock, and the copy of CONFIG. */
  async #prepare(config: Uint8Array): Promise<void> {
    try {
      await makeOwnDirectory(this.location);
      await makeOwnDirectory(join(this.location, DATA_FOLDER));
    } catch (error) {
      throw new UserError(`${this.location} cannot be hydrated into: ${(error as Error).message}`, { cause: error });
    }
    const lock = await lockDirectory(this.location, {
      taken: (who) =>
        `${who} hydrates into ${this.location} already; without --hydrate this one reads what is there, or name another directory`,
      missing: '--hydrate needs the program flock (Debian: util-linux): install it',
    });
    this.#closers.add(() => lock.release());
    if ((await this.readConfig()) === undefined) await this.#createFile(CONFIG_NAME, config);
  }

  /** Only the holder of the lock comes here. */
  #createFile(name: string, content: Uint8Array): Promise<void> {
    return replaceFile(this.fileSystem, this.location, name, content);
  }
}
