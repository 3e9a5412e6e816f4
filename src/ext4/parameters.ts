/** What an operator can ask of a layout, and everything that shapes its bytes besides the tree itself. */
import { createHash } from 'node:crypto';
import { UnsupportedError, UserError } from '../core/errors.ts';
import { WRITABLE_DEVICE_BYTES_MAX } from '../core/limits.ts';
import { BLOCK_SIZE, GiB } from '../core/units.ts';
import { BLOCKS_PER_GROUP, LABEL_BYTES_MAX, OWNER_ID_MAX } from './format.ts';

/**
 * Raised whenever the same tree and request give other bytes than before; what is older can still be planned, since
 * overlays go on with the version they were made with.
 *
 * 1: the first. 2: the mode mask applies to access control lists, too; times that e2fsck takes for others are moved.
 */
export const LAYOUT_VERSION = 2;
const LAYOUT_VERSION_FIRST = 1;
/** From this version on the mode mask takes its bits away from access control lists. */
export const MASKED_ACLS_VERSION = 2;
/** From this version on no inode has a time that e2fsck remarks on. */
export const UNMISTAKEN_TIMES_VERSION = 2;
/** 64 MiB: a database start uses 50 to 110 blocks, and an overlay never holds more than the journal is long. */
export const JOURNAL_BLOCKS_DEFAULT = 16_384;
/** JBD2_MIN_JOURNAL_BLOCKS. */
export const JOURNAL_BLOCKS_MIN = 1024;
/** e2fsck takes no journal above 10,240,000 blocks for sane. */
export const JOURNAL_BLOCKS_MAX = 10_240_000;
export const FREE_PERCENT_DEFAULT = 25;
export const FREE_BYTES_DEFAULT_MIN = 1 * GiB;
export const SPARE_INODES_DEFAULT_MIN = 65_536;
export const SPARE_INODES_DEFAULT_RATIO = 0.12;
/** Set-uid, set-gid, sticky, and rwx for owner, group and others. */
export const PERMISSION_BITS = 0o7777;

/** Free space: a share of what is used, in percent, or bytes. */
export type FreeSpace = { readonly percent: number } | { readonly bytes: number };

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface LayoutRequest {
  /** Size of the device in all, rounded down to whole blocks; `free` is then without effect. */
  readonly sizeBytes?: number | undefined;
  /** Space beyond the data. Default: 25 % of what is used, at least 1 GiB; less where the disk would exceed 16 TiB by it. */
  readonly free?: FreeSpace | undefined;
  /** Every entry belongs to this owner. */
  readonly owner?: Owner | undefined;
  /** Permission bits that stay; the others are taken away from every entry of the tree. Default: 07777, all stay. */
  readonly modeMask?: number | undefined;
  /** 32 hexadecimal digits, dashes as you like. Default: made from the snapshot's id and the other parameters. */
  readonly uuid?: string | undefined;
  /** At most 16 bytes of UTF-8. Default: `kloset-` and the first 8 digits of the snapshot's id. */
  readonly label?: string | undefined;
  /** Inodes for new files. Default: 12 % of those in use, at least 65,536; a small `sizeBytes` may leave fewer. */
  readonly spareInodes?: number | undefined;
  readonly journalBlocks?: number | undefined;
}

/** Which snapshot the tree is. */
export interface SnapshotIdentity {
  /** Lower-case hex. */
  readonly snapshotId: string;
  /** Seconds since 1970; becomes the filesystem's creation time. */
  readonly createdSeconds: number;
  /** Where in the snapshot the tree's root is, if not at its root. Two such trees then have two UUIDs. */
  readonly path?: string | undefined;
}

/** The choices that do not depend on the tree's size. */
export interface LayoutChoices {
  readonly layoutVersion: number;
  readonly snapshotId: string;
  readonly path: string;
  readonly createdSeconds: number;
  readonly owner: Owner | null;
  readonly modeMask: number;
  readonly label: string;
  readonly journalBlocks: number;
  /** 32 hex digits: s_hash_seed. */
  readonly hashSeed: string;
}

/** Plain JSON: equal parameters and an equal tree give equal bytes. */
export interface LayoutParameters extends LayoutChoices {
  /** The device's length. Blocks behind the filesystem's end read as zeroes. */
  readonly deviceBlocks: number;
  readonly totalBlocks: number;
  readonly inodesPerGroup: number;
  /** With dashes, lower-case. */
  readonly uuid: string;
}

/** Whether this release makes layouts of that version. */
export function isLayoutVersion(version: number): boolean {
  return Number.isInteger(version) && version >= LAYOUT_VERSION_FIRST && version <= LAYOUT_VERSION;
}

/** Checks a request and fills in all that can be known without the tree. Throws UserError, UnsupportedError for an unknown version. */
export function resolveChoices(
  request: LayoutRequest,
  identity: SnapshotIdentity,
  layoutVersion: number,
): LayoutChoices {
  if (!isLayoutVersion(layoutVersion)) {
    throw new UnsupportedError(
      `layout version ${layoutVersion} is not one that this kloset-nbd makes (${LAYOUT_VERSION_FIRST} to ${LAYOUT_VERSION})`,
    );
  }
  const owner = request.owner ?? null;
  if (owner !== null) {
    checkInteger('owner', owner.uid, 0, OWNER_ID_MAX);
    checkInteger('group', owner.gid, 0, OWNER_ID_MAX);
  }
  const label = request.label ?? `kloset-${identity.snapshotId.slice(0, 8)}`;
  if (Buffer.byteLength(label) > LABEL_BYTES_MAX || label.includes('\0')) {
    throw new UserError(`the label ${JSON.stringify(label)} is longer than ${LABEL_BYTES_MAX} bytes`);
  }
  if (request.sizeBytes !== undefined) checkInteger('size', request.sizeBytes, BLOCK_SIZE, Number.MAX_SAFE_INTEGER);
  if (request.free !== undefined) checkFree(request.free);
  if (request.spareInodes !== undefined) checkInteger('number of spare inodes', request.spareInodes, 0, 2 ** 32 - 1);
  return {
    layoutVersion,
    snapshotId: identity.snapshotId,
    path: identity.path ?? '/',
    createdSeconds: Math.max(0, Math.floor(identity.createdSeconds)),
    owner: owner === null ? null : { uid: owner.uid, gid: owner.gid },
    modeMask: checkInteger('mode mask', request.modeMask ?? PERMISSION_BITS, 0, PERMISSION_BITS),
    label,
    journalBlocks: checkInteger(
      'journal length in blocks',
      request.journalBlocks ?? JOURNAL_BLOCKS_DEFAULT,
      JOURNAL_BLOCKS_MIN,
      JOURNAL_BLOCKS_MAX,
    ),
    hashSeed: digest('hash seed', identity.snapshotId).toString('hex'),
  };
}

/** The UUID asked for, or one that stands for the snapshot and every other parameter (version 8 of RFC 9562). */
export function resolveUuid(asked: string | undefined, others: Omit<LayoutParameters, 'uuid'>): string {
  if (asked !== undefined) {
    const digits = asked.replaceAll('-', '').toLowerCase();
    if (!/^[0-9a-f]{32}$/.test(digits))
      throw new UserError(`${JSON.stringify(asked)} is no UUID: 32 hex digits are needed`);
    return dashed(digits);
  }
  const made = digest('uuid', JSON.stringify(others, Object.keys(others).concat('uid', 'gid').sort()));
  made[6] = (made[6]! & 15) | (8 << 4);
  made[8] = (made[8]! & 63) | (2 << 6);
  return dashed(made.toString('hex'));
}

/** A UUID's or seed's 16 bytes. */
export function hexBytes(text: string): Uint8Array {
  return Buffer.from(text.replaceAll('-', ''), 'hex');
}

/** Blocks of free space for `usedBlocks` used ones. */
export function freeBlocks(free: FreeSpace | undefined, usedBlocks: number): number {
  if (free === undefined) {
    const wanted = Math.max(Math.ceil((usedBlocks * FREE_PERCENT_DEFAULT) / 100), FREE_BYTES_DEFAULT_MIN / BLOCK_SIZE);
    // Rather less free space than a disk that is too large to be written.
    const writable = WRITABLE_DEVICE_BYTES_MAX / BLOCK_SIZE - usedBlocks;
    return writable >= 0 ? Math.min(wanted, writable) : wanted;
  }
  return Math.ceil('bytes' in free ? free.bytes / BLOCK_SIZE : (usedBlocks * free.percent) / 100);
}

/** Inodes beyond the ones in use that a filesystem is given when nobody says how many. */
export function spareInodesDefault(usedInodes: number): number {
  return Math.max(SPARE_INODES_DEFAULT_MIN, Math.ceil(usedInodes * SPARE_INODES_DEFAULT_RATIO));
}

function checkFree(free: FreeSpace): void {
  const [value, most] = 'bytes' in free ? [free.bytes, 2 ** 50] : [free.percent, 100 * BLOCKS_PER_GROUP];
  if (!(value >= 0 && value <= most)) throw new UserError(`the free space ${value} is not between 0 and ${most}`);
}

function checkInteger(what: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new UserError(`the ${what} ${value} is not between ${least} and ${most}`);
  }
  return value;
}

function digest(purpose: string, text: string): Buffer {
  return createHash('sha256').update(`kloset-nbd ext4 ${purpose}\0${text}`).digest().subarray(0, 16);
}

function dashed(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
