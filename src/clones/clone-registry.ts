/**
 * The directory of clones. It is a directory of overlays (device/log-format.ts) with, beside their sub-directories:
 *
 *   NAME.clone                   a clone: CloneRecord, as device/checked-file.ts writes it
 *   NAME.clone-<16 hex digits>/  the overlay that the record names; none before the clone is first opened
 *   control                      the socket of the server that has the directory
 *   lock                         held by whoever has it
 *
 * The record is what counts: a clone is made when its record gets its name, reset when that names another overlay, gone
 * when it is removed. Overlays that no record names are what an interrupted copy, reset or removal has left.
 *
 * Records may be read, and clones made, by anybody at any time. All else is for the holder of the lock.
 */
import { join } from 'node:path';
import { UnsupportedError, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { createChecked, readChecked, UNFINISHED_SUFFIX, writeChecked } from '../device/checked-file.ts';
import { errorCode, type OverlayFileSystem } from '../device/file-system.ts';
import { removeOverlay } from '../device/overlay-copy.ts';
import {
  CLONE_FORMAT_VERSION,
  type CloneRecord,
  checkCloneName,
  isCloneName,
  overlayKeyOf,
  parseOverlayKey,
} from './clone-record.ts';

const RECORD_SUFFIX = '.clone';
/** Attempts at making a clone: a server that starts may sweep away what is being written. */
const CREATE_ATTEMPTS = 3;

export class CloneRegistry {
  readonly #directory: string;
  readonly #fileSystem: OverlayFileSystem;

  constructor(directory: string, fileSystem: OverlayFileSystem) {
    this.#directory = directory;
    this.#fileSystem = fileSystem;
  }

  /** Every clone by name, in the order of names; an Error where the record cannot be read. */
  async list(): Promise<Map<string, CloneRecord | Error>> {
    const found = new Map<string, CloneRecord | Error>();
    for (const name of (await this.#names()).sort()) {
      try {
        const record = await this.read(name);
        if (record !== undefined) found.set(name, record);
      } catch (error) {
        if (!(error instanceof UserError || error instanceof UnsupportedError)) throw error;
        found.set(name, error);
      }
    }
    return found;
  }

  /** Undefined if there is no such clone. Rejects with UserError for a damaged record, UnsupportedError for another version's. */
  async read(name: string): Promise<CloneRecord | undefined> {
    if (!isCloneName(name)) return undefined;
    const path = join(this.#directory, `${name}${RECORD_SUFFIX}`);
    const content = await readChecked(this.#fileSystem, path);
    if (content === undefined) return undefined;
    if (content === 'damaged') {
      throw new UserError(`${path} is damaged: the clone "${name}" cannot be opened; move the file away to give it up`);
    }
    const record = content as CloneRecord;
    if (record.formatVersion !== CLONE_FORMAT_VERSION) {
      throw new UnsupportedError(
        `${path} has format ${record.formatVersion}; this version reads format ${CLONE_FORMAT_VERSION}`,
      );
    }
    if (record.name !== name) {
      throw new UserError(`${path} is the record of the clone "${record.name}": give it back its name`);
    }
    return record;
  }

  /** As `read`; rejects with UserError if there is none. */
  async require(name: string): Promise<CloneRecord> {
    const record = await this.read(name);
    if (record === undefined) throw new UserError(`There is no clone "${name}". "kloset-nbd clone list" lists them.`);
    return record;
  }

  /** Rejects with UserError if there is a clone of that name. */
  async create(record: CloneRecord): Promise<void> {
    checkCloneName(record.name);
    for (let attempt = 1; ; attempt++) {
      try {
        const file = `${record.name}${RECORD_SUFFIX}`;
        if (await createChecked(this.#fileSystem, this.#directory, file, record)) return;
        throw new UserError(`There is a clone "${record.name}" already: remove it, or choose another name.`);
      } catch (error) {
        if (errorCode(error) !== 'ENOENT' || attempt === CREATE_ATTEMPTS) throw error;
      }
    }
  }

  /** Replaces the record of a clone. */
  write(record: CloneRecord): Promise<void> {
    return writeChecked(this.#fileSystem, this.#directory, `${record.name}${RECORD_SUFFIX}`, record);
  }

  async remove(name: string): Promise<void> {
    await this.#fileSystem.remove(join(this.#directory, `${name}${RECORD_SUFFIX}`));
    await this.#fileSystem.syncDirectory(this.#directory);
  }

  /** Bytes that the files of a clone's overlay take, blocks shared with other clones included. */
  async storedBytes(record: CloneRecord): Promise<number> {
    const directory = join(this.#directory, overlayKeyOf(record));
    let bytes = 0;
    try {
      for (const name of await this.#fileSystem.list(directory)) {
        const file = await this.#fileSystem.open(join(directory, name), 'read');
        try {
          bytes += (await file.status()).sizeBytes;
        } finally {
          await file.close();
        }
      }
    } catch (error) {
      // Never opened, or removed while it was being looked at.
      if (errorCode(error) !== 'ENOENT') throw error;
    }
    return bytes;
  }

  /** Removes what interrupted operations have left. Only for the holder of the lock, before it does anything else. */
  async sweep(log: Log): Promise<void> {
    const clones = await this.list();
    for (const entry of await this.#fileSystem.list(this.#directory)) {
      const leftover = parseOverlayKey(entry);
      const clone = leftover && clones.get(leftover.name);
      // The overlay of a clone whose record is damaged may be its own.
      const isUnused = clone === undefined || (!(clone instanceof Error) && overlayKeyOf(clone) !== entry);
      const path = join(this.#directory, entry);
      if (leftover !== undefined && isUnused) await removeOverlay(this.#fileSystem, path);
      else if (isUnfinishedRecord(entry)) await this.#fileSystem.remove(path);
      else continue;
      log.info({ path }, 'What an interrupted operation on a clone had left is removed.');
    }
  }

  async #names(): Promise<string[]> {
    const entries = await this.#fileSystem.list(this.#directory).catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return [];
      throw error;
    });
    const files = entries.filter((entry) => entry.endsWith(RECORD_SUFFIX));
    return files.map((file) => file.slice(0, -RECORD_SUFFIX.length)).filter(isCloneName);
  }
}

function isUnfinishedRecord(entry: string): boolean {
  if (!entry.endsWith(UNFINISHED_SUFFIX)) return false;
  const name = /^(.+)\.clone(\.[0-9a-f]{16})?$/.exec(entry.slice(0, -UNFINISHED_SUFFIX.length))?.[1];
  return name !== undefined && isCloneName(name);
}
