/**
 * Durable overlays: one directory, one lock, one sub-directory an export. log-format.ts lists the files.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ReadableDevice } from '../core/device.ts';
import { assert, exitCodes, KlosetNbdError, UserError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';
import { type DirectoryLock, lockDirectory } from './directory-lock.ts';
import { errorCode, nodeFileSystem, type OverlayFileSystem } from './file-system.ts';
import { findLog } from './find-log.ts';
import { AHEAD_SEGMENTS, DATA_FIRST_BYTES } from './growing-segment.ts';
import { SEGMENT_BYTES_TARGET, segmentOfFileName } from './log-format.ts';
import type { RecoveredLog } from './log-recovery.ts';
import { LogStore } from './log-store.ts';
import { OverlayDevice } from './overlay.ts';
import { copyOverlay, removeOverlay } from './overlay-copy.ts';
import {
  formatVersionOf,
  type OverlayIdentity,
  type OverlayMetadata,
  readMetadata,
  readOrMakeToken,
  removeClosed,
  writeClosed,
  writeMetadata,
} from './overlay-metadata.ts';
import { newEncryption, type OverlayKeySource } from './segment-cipher.ts';
import type { SegmentFiles } from './segment-files.ts';
import type { SpaceOptions } from './space-gate.ts';

/** The space options hold for each overlay by itself. */
export interface DirectoryOverlaysOptions extends SpaceOptions {
  /** Where the keys of encrypted overlays come from: needed to open one that is. */
  readonly keyFor?: OverlayKeySource | undefined;
  /** Whether new overlays are encrypted; by default they are where there is `keyFor`. */
  readonly encryptNew?: boolean | undefined;
  readonly log?: Log;
  /** For tests. */
  readonly fileSystem?: OverlayFileSystem;
}

export interface OpenLogOptions extends SpaceOptions {
  /** Where the key of an encrypted overlay comes from. */
  readonly keyFor?: OverlayKeySource | undefined;
  readonly fileSystem: OverlayFileSystem;
  readonly log: Log;
  /** Bytes of a complete segment of the log; small in tests, so that logs have many. */
  readonly segmentBytes?: number;
  /** For tests: so much data of a record is written before it. */
  readonly dataFirstBytes?: number;
  /** For tests: zeroes written ahead of small records at a time. */
  readonly aheadBytes?: number;
}

/** An overlay that exists, opened or not. */
export interface OverlayListing {
  readonly directory: string;
  readonly metadata: OverlayMetadata;
}

export class DirectoryOverlays {
  readonly #directory: string;
  readonly #lock: DirectoryLock;
  readonly #fileSystem: OverlayFileSystem;
  readonly #log: Log;
  readonly #options: DirectoryOverlaysOptions;
  /** By export key. Closed ones stay until they are opened again. */
  readonly #open = new Map<string, OverlayDevice>();

  private constructor(directory: string, lock: DirectoryLock, options: DirectoryOverlaysOptions) {
    this.#directory = directory;
    this.#lock = lock;
    this.#fileSystem = options.fileSystem ?? nodeFileSystem;
    this.#log = options.log ?? silentLog;
    this.#options = options;
  }

  /**
   * Takes the directory, making it if need be, until `close`. Rejects with UserError if another process has it, if it
   * cannot be made, or if flock(1) is missing.
   */
  static async open(directory: string, options: DirectoryOverlaysOptions = {}): Promise<DirectoryOverlays> {
    try {
      const made = await mkdir(directory, { recursive: true, mode: 0o700 });
      if (made !== undefined) await nodeFileSystem.syncDirectory(dirname(directory));
      const lock = await lockDirectory(directory);
      return new DirectoryOverlays(directory, lock, options);
    } catch (cause) {
      throw asUserError(`cannot use ${directory} for overlays`, cause);
    }
  }

  /** Every overlay in the directory. */
  list(): Promise<OverlayListing[]> {
    return listOverlays(this.#directory, this.#fileSystem);
  }

  /** What the overlay of an export belongs to; undefined if it has none yet. */
  async identityOf(exportKey: string): Promise<OverlayIdentity | undefined> {
    return readOverlayIdentity(this.#directory, exportKey, this.#fileSystem);
  }

  /**
   * Opens the overlay of an export over `base`, or makes it. Borrows `base`. Rejects with UserError if it belongs to
   * another snapshot or layout, naming both. A damaged overlay opens read-only: see the device's `readOnlyReason`.
   * An export is opened once at a time; one that is being closed is waited for.
   */
  async openDevice(exportKey: string, base: ReadableDevice, identity: OverlayIdentity): Promise<OverlayDevice> {
    const directory = this.directoryOf(exportKey);
    const former = this.#open.get(exportKey);
    assert(former === undefined || former.closing, 'an overlay has one device at a time');
    try {
      // One that failed says so to whoever closed it; opening again is the way out of that.
      await former
        ?.close()
        .catch((error: unknown) => this.#log.warn({ error, directory }, 'opened again after a failure'));
      const metadata =
        (await readMetadata(this.#fileSystem, directory)) ??
        (await this.#make(directory, { exportKey, identity, sizeBytes: base.sizeBytes }));
      assertBelongsTogether(directory, metadata, { identity, sizeBytes: base.sizeBytes });
      const device = await openLogDevice(directory, metadata, base, {
        ...this.#options,
        fileSystem: this.#fileSystem,
        log: this.#log,
      });
      this.#open.set(exportKey, device);
      return device;
    } catch (cause) {
      throw asUserError(`cannot open the overlay ${directory}`, cause);
    }
  }

  /** The token of an overlay that exists. */
  tokenOf(exportKey: string): Promise<string> {
    return readOrMakeToken(this.#fileSystem, this.directoryOf(exportKey));
  }

  /**
   * Copies the overlay of one export for another, which has none. One that is open is flushed, and copied as it is then
   * while writes go on; one that is not must not be opened meanwhile. A failure leaves nothing behind. Nothing happens
   * if there is no overlay.
   */
  async copy(exportKey: string, newKey: string): Promise<void> {
    const device = this.#open.get(exportKey);
    if (device?.closing === true) await device.close().catch(() => undefined); // Whoever closed it was told.
    const frozen = device === undefined || device.closing ? undefined : await device.freeze();
    const to = this.directoryOf(newKey);
    try {
      const from = this.directoryOf(exportKey);
      const options = { from, to, exportKey: newKey, blocks: frozen?.blocks, nowMs: Date.now() };
      await copyOverlay(this.#fileSystem, options);
    } catch (cause) {
      await removeOverlay(this.#fileSystem, to).catch((error: unknown) =>
        this.#log.warn({ error, directory: to }, 'a copy that failed could not be removed'),
      );
      throw asUserError(`cannot copy the overlay to ${to}`, cause);
    } finally {
      await frozen?.close();
    }
  }

  /** Removes the overlay of an export, if there is one, for good. It must not be open. */
  async remove(exportKey: string): Promise<void> {
    const device = this.#open.get(exportKey);
    assert(device === undefined || device.closing, 'an overlay in use is not removed');
    await device?.close().catch(() => undefined); // Whoever closed it was told.
    this.#open.delete(exportKey);
    await removeOverlay(this.#fileSystem, this.directoryOf(exportKey));
  }

  /** Where the overlay of an export is, or would be. */
  directoryOf(exportKey: string): string {
    return join(this.#directory, exportDirectoryName(exportKey));
  }

  /** Closes all devices, then gives the directory back. Rejects if one of them could not be made durable. */
  async close(): Promise<void> {
    const results = await Promise.allSettled([...this.#open.values()].map((device) => device.close()));
    this.#open.clear();
    await this.#lock.release();
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #make(
    directory: string,
    about: Pick<OverlayMetadata, 'exportKey' | 'identity' | 'sizeBytes'>,
  ): Promise<OverlayMetadata> {
    const { keyFor, encryptNew = true } = this.#options;
    const encryption = keyFor !== undefined && encryptNew ? newEncryption(keyFor) : undefined;
    const metadata: OverlayMetadata = {
      formatVersion: formatVersionOf(encryption),
      overlayId: randomBytes(8).toString('hex'),
      createdMs: Date.now(),
      ...about,
      ...(encryption && { encryption }),
    };
    try {
      await this.#fileSystem.makeDirectory(directory);
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
      const segments = (await this.#fileSystem.list(directory)).filter((name) => segmentOfFileName(name) !== undefined);
      if (segments.length > 0) throw new UserError(`${directory} has a log but no overlay.json: it is damaged`);
    }
    await writeMetadata(this.#fileSystem, directory, metadata);
    await this.#fileSystem.syncDirectory(this.#directory);
    return metadata;
  }
}

/** All overlays in a directory, in the order of their names. Needs no lock. */
export async function listOverlays(directory: string, fileSystem = nodeFileSystem): Promise<OverlayListing[]> {
  const listings: OverlayListing[] = [];
  for (const name of (await fileSystem.list(directory)).sort()) {
    try {
      const metadata = await readMetadata(fileSystem, join(directory, name));
      if (metadata !== undefined) listings.push({ directory: join(directory, name), metadata });
    } catch (error) {
      if (errorCode(error) !== 'ENOTDIR') throw error;
    }
  }
  return listings;
}

/** What the overlay of an export belongs to; undefined if there is none. Needs no lock. */
export async function readOverlayIdentity(
  directory: string,
  exportKey: string,
  fileSystem = nodeFileSystem,
): Promise<OverlayIdentity | undefined> {
  const metadata = await readMetadata(fileSystem, join(directory, exportDirectoryName(exportKey)));
  return metadata?.identity;
}

/** The sub-directory of an export: its key where that is a harmless name, else the key's SHA-256. */
export function exportDirectoryName(exportKey: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(exportKey) && exportKey !== 'lock') return exportKey;
  return `sha256-${createHash('sha256').update(exportKey).digest('hex')}`;
}

/** Opens the log in `directory` as a device over `base`. */
export async function openLogDevice(
  directory: string,
  metadata: OverlayMetadata,
  base: ReadableDevice,
  options: OpenLogOptions,
): Promise<OverlayDevice> {
  const { fileSystem, log, segmentBytes = SEGMENT_BYTES_TARGET } = options;
  const { dataFirstBytes = DATA_FIRST_BYTES, aheadBytes = Math.floor(segmentBytes * AHEAD_SEGMENTS) } = options;
  const { recovered, files, ...found } = await findLog(directory, metadata, options);
  try {
    if (recovered.readOnlyReason === undefined) await settle(directory, files, recovered, fileSystem);
    else log.error({ directory, reason: recovered.readOnlyReason }, 'the overlay is opened read-only');
    const store = new LogStore({
      recovered,
      files,
      ...found,
      segmentBytes,
      dataFirstBytes,
      aheadBytes,
      syncDirectory: () => fileSystem.syncDirectory(directory),
      markOpen: () => removeClosed(fileSystem, directory),
      markClosed: (end) => writeClosed(fileSystem, directory, end),
      log,
    });
    return new OverlayDevice(base, store, options, log);
  } catch (error) {
    await files.closeAll();
    throw error;
  }
}

/** Makes the files what was found to count: cuts off the rest, and syncs what a crash may have left unsynced. */
async function settle(
  directory: string,
  files: SegmentFiles,
  { cut, leftovers, unsynced }: RecoveredLog,
  fileSystem: OverlayFileSystem,
): Promise<void> {
  const removed = [...leftovers];
  if (cut !== undefined) {
    // The newest first: were this interrupted, what is left would still be a log with its end missing.
    removed.push(...[...cut.later].reverse());
    if (cut.position === 0) removed.push(cut.segment);
    else await files.use(cut.segment, (file) => file.truncate(cut.position));
  }
  for (const number of removed) await files.remove(number);
  const touched = new Set(cut !== undefined && cut.position > 0 ? [...unsynced, cut.segment] : unsynced);
  for (const number of touched) await files.use(number, (file) => file.sync());
  await fileSystem.syncDirectory(directory);
}

function assertBelongsTogether(
  directory: string,
  { identity, sizeBytes }: OverlayMetadata,
  wanted: { identity: OverlayIdentity; sizeBytes: number },
): void {
  const [has, wants] = [facts(identity, sizeBytes), facts(wanted.identity, wanted.sizeBytes)];
  const names = new Set([...Object.keys(has), ...Object.keys(wants)]);
  for (const name of names) {
    const [old, now] = [JSON.stringify(has[name] ?? null), JSON.stringify(wants[name] ?? null)];
    if (old === now) continue;
    const message = `the overlay ${directory} was made with ${name} ${old}, but ${now} is wanted; use the former, or another overlay directory`;
    throw new UserError(message, { details: { directory, name, has: old, wanted: now } });
  }
}

function facts({ snapshotId, path, layout }: OverlayIdentity, sizeBytes: number): Record<string, unknown> {
  return { snapshotId, path, ...layout, sizeBytes };
}

function asUserError(what: string, cause: unknown): KlosetNbdError {
  if (cause instanceof KlosetNbdError) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new UserError(`${what}: ${why}`, { cause, exitCode: exitCodes.failure });
}
