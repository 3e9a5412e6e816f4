/**
 * The two small files beside a log: overlay.json says what the overlay belongs to, closed.json how its log ended. Both
 * are `{"checksum": …, "content": …}`: CRC-32 of the content as JSON without spaces. Each is written under another name,
 * synced, renamed and its directory synced, so it is there as a whole or not at all.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { UnsupportedError, UserError } from '../core/errors.ts';
import { errorCode, type OverlayFileSystem } from './file-system.ts';
import { FORMAT_VERSION } from './log-format.ts';
import type { ClosedLog } from './log-recovery.ts';

export type LayoutValue = string | number | boolean | null;

/** What an overlay was made over. Opened over anything else its blocks would make no sense. */
export interface OverlayIdentity {
  /** Lower-case hex, 64 digits. */
  readonly snapshotId: string;
  /** The directory of the snapshot that is the device's root. */
  readonly path: string;
  /** Everything else that decides the base's bytes: layout version, size, owner… */
  readonly layout: Readonly<Record<string, LayoutValue>>;
}

export interface OverlayMetadata {
  readonly formatVersion: number;
  /** 16 hex digits, random. */
  readonly overlayId: string;
  readonly exportKey: string;
  readonly sizeBytes: number;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  readonly identity: OverlayIdentity;
}

const METADATA_NAME = 'overlay.json';
const CLOSED_NAME = 'closed.json';
/** Far above any real one; what is longer is something else. */
const FILE_BYTES_MAX = 1024 * 1024;

/** Undefined if there is none. Rejects with UserError if it is damaged, UnsupportedError if it is of another version. */
export async function readMetadata(
  fileSystem: OverlayFileSystem,
  directory: string,
): Promise<OverlayMetadata | undefined> {
  const path = join(directory, METADATA_NAME);
  const content = await readChecked(fileSystem, path);
  if (content === undefined) return undefined;
  if (content === 'damaged') {
    throw new UserError(`${path} is damaged: this overlay cannot be opened; move ${directory} away to begin a new one`);
  }
  const metadata = content as OverlayMetadata;
  if (metadata.formatVersion !== FORMAT_VERSION) {
    const message = `${directory} has overlay format ${metadata.formatVersion}; this version reads format ${FORMAT_VERSION}`;
    throw new UnsupportedError(message);
  }
  return metadata;
}

export function writeMetadata(
  fileSystem: OverlayFileSystem,
  directory: string,
  metadata: OverlayMetadata,
): Promise<void> {
  return writeChecked(fileSystem, directory, METADATA_NAME, metadata);
}

/** How the log ended; undefined if it was not closed, or the file that says so is damaged: the log is then walked. */
export async function readClosed(fileSystem: OverlayFileSystem, directory: string): Promise<ClosedLog | undefined> {
  const content = await readChecked(fileSystem, join(directory, CLOSED_NAME));
  return content === 'damaged' ? undefined : (content as ClosedLog | undefined);
}

export function writeClosed(fileSystem: OverlayFileSystem, directory: string, closed: ClosedLog): Promise<void> {
  return writeChecked(fileSystem, directory, CLOSED_NAME, closed);
}

/** Removes the mark durably. */
export async function removeClosed(fileSystem: OverlayFileSystem, directory: string): Promise<void> {
  try {
    await fileSystem.remove(join(directory, CLOSED_NAME));
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
  await fileSystem.syncDirectory(directory);
}

async function readChecked(fileSystem: OverlayFileSystem, path: string): Promise<unknown> {
  const bytes = await readWhole(fileSystem, path);
  if (bytes === undefined) return undefined;
  try {
    const { checksum, content } = JSON.parse(bytes.toString()) as { checksum: unknown; content: unknown };
    return checksum === crc32(JSON.stringify(content)) ? content : 'damaged';
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return 'damaged';
    throw error;
  }
}

async function readWhole(fileSystem: OverlayFileSystem, path: string): Promise<Buffer | undefined> {
  let file: Awaited<ReturnType<OverlayFileSystem['open']>>;
  try {
    file = await fileSystem.open(path, 'read');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const bytes = Buffer.alloc(Math.min(FILE_BYTES_MAX, (await file.status()).sizeBytes));
    return bytes.subarray(0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}

async function writeChecked(
  fileSystem: OverlayFileSystem,
  directory: string,
  name: string,
  content: object,
): Promise<void> {
  const plain = JSON.stringify(content);
  const temporary = join(directory, `${name}.new`);
  // What an interrupted attempt left is worth nothing.
  await fileSystem.remove(temporary).catch((error: unknown) => {
    if (errorCode(error) !== 'ENOENT') throw error;
  });
  const file = await fileSystem.open(temporary, 'create');
  try {
    await file.write([Buffer.from(`{"checksum":${crc32(plain)},"content":${plain}}\n`)], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await fileSystem.rename(temporary, join(directory, name));
  await fileSystem.syncDirectory(directory);
}
