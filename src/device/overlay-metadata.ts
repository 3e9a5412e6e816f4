/**
 * The small files beside a log: overlay.json says what the overlay belongs to, closed.json how its log ended, token.json
 * by which token clients know it. A copy of an overlay gets another token.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { UnsupportedError, UserError } from '../core/errors.ts';
import { readChecked, writeChecked } from './checked-file.ts';
import { errorCode, type OverlayFileSystem } from './file-system.ts';
import {
  CRC_FORMAT_VERSION,
  ENCRYPTED_CRC_FORMAT_VERSION,
  ENCRYPTED_FORMAT_VERSION,
  FORMAT_VERSION,
} from './log-format.ts';
import type { ClosedLog } from './log-recovery.ts';
import type { OverlayEncryption } from './segment-cipher.ts';

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
  /** Undefined for an overlay that is not encrypted. */
  readonly encryption?: OverlayEncryption | undefined;
}

/** That are read. */
const plainVersions = [CRC_FORMAT_VERSION, FORMAT_VERSION];
const encryptedVersions = [ENCRYPTED_CRC_FORMAT_VERSION, ENCRYPTED_FORMAT_VERSION];

const METADATA_NAME = 'overlay.json';
const TOKEN_NAME = 'token.json';
/** Bytes of a token: too many to be met twice. */
export const TOKEN_BYTES = 16;
const CLOSED_NAME = 'closed.json';

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
  const known = metadata.encryption === undefined ? plainVersions : encryptedVersions;
  if (!known.includes(metadata.formatVersion)) {
    const message = `${directory} has overlay format ${metadata.formatVersion}; this version reads formats ${CRC_FORMAT_VERSION} to ${ENCRYPTED_FORMAT_VERSION}`;
    throw new UnsupportedError(message);
  }
  return metadata;
}

/** Of a new overlay. */
export function formatVersionOf(encryption: OverlayEncryption | undefined): number {
  return encryption === undefined ? FORMAT_VERSION : ENCRYPTED_FORMAT_VERSION;
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

/** The overlay's token, hex; made the first time. A damaged one is replaced: clients then have to attach anew, and reach no other disk. */
export async function readOrMakeToken(fileSystem: OverlayFileSystem, directory: string): Promise<string> {
  const known = await readChecked(fileSystem, join(directory, TOKEN_NAME));
  if (known !== undefined && known !== 'damaged') return (known as { token: string }).token;
  const token = randomBytes(TOKEN_BYTES).toString('hex');
  await writeChecked(fileSystem, directory, TOKEN_NAME, { token });
  return token;
}
