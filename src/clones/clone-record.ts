/** What is known of a clone besides what was written to it: a file NAME.clone of a few hundred bytes. */
import { randomBytes } from 'node:crypto';
import { UserError } from '../core/errors.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';

/** Version of CloneRecord, in every file. */
export const CLONE_FORMAT_VERSION = 1;

/** A directory of a snapshot; `at` is where on the disk it lies, null for the disk's root. */
export interface ClonePart {
  /** 64 hex digits. */
  readonly snapshot: string;
  /** Absolute. */
  readonly path: string;
  readonly at: string | null;
}

export interface CloneRecord {
  readonly formatVersion: typeof CLONE_FORMAT_VERSION;
  readonly name: string;
  /** 16 hex digits, random: which overlay is the clone's. A reset gives it another one. */
  readonly overlayId: string;
  /** Of the store, as hex: the snapshot is looked for in no other. */
  readonly storeId: string;
  /** Whether the store is encrypted: what is taken out of the clone then is not. */
  readonly isEncrypted: boolean;
  /** As it was typed. */
  readonly selector: string;
  readonly parts: readonly ClonePart[];
  readonly layout: LayoutRequest;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  /** When the clone was last reset; null: never. */
  readonly resetMs: number | null;
  /** From when on it may be removed by itself; null: never. */
  readonly expiresMs: number | null;
  /** Reset, removal and expiry are refused. */
  readonly isProtected: boolean;
}

/** Longest name: with what is put behind it, it stays a file name. */
const NAME_LENGTH_MAX = 64;

/** Whether `text` could be a clone's name: no selector of a snapshot, no other name of an export. */
export function isCloneName(text: string): boolean {
  return nameProblem(text) === undefined;
}

/** What people write for a snapshot: four digits of its id and more. A shorter one (`c1`, `db`) is a fine name. */
const SNAPSHOT_LIKE = /^[0-9a-f]{4,}$/i;

/** Throws UserError (exit 64) that says what is wrong with the name. */
export function checkCloneName(name: string): void {
  const problem = nameProblem(name);
  if (problem !== undefined) throw new UserError(`"${name}" cannot be a clone's name: ${problem}.`);
}

function nameProblem(name: string): string | undefined {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) {
    return 'write letters, digits, ".", "_" and "-", beginning with a letter or digit';
  }
  if (name.length > NAME_LENGTH_MAX) return `it has more than ${NAME_LENGTH_MAX} characters`;
  if (SNAPSHOT_LIKE.test(name)) return 'hex digits alone mean a snapshot; put another character into it';
  if (name.toLowerCase() === 'latest') return '"latest" means the newest snapshot';
  return undefined;
}

export function newOverlayId(): string {
  return randomBytes(8).toString('hex');
}

/** What stands between a clone's name and the id of its overlay. */
const KEY_INFIX = '.clone-';

/** The key of the clone's overlay. */
export function overlayKeyOf({ name, overlayId }: Pick<CloneRecord, 'name' | 'overlayId'>): string {
  return `${name}${KEY_INFIX}${overlayId}`;
}

/** The clone that an overlay's key belongs, or belonged, to; undefined for other overlays. */
export function parseOverlayKey(key: string): { readonly name: string; readonly overlayId: string } | undefined {
  const [, name, overlayId] = /^(.+)\.clone-([0-9a-f]{16})$/.exec(key) ?? [];
  return name !== undefined && overlayId !== undefined && isCloneName(name) ? { name, overlayId } : undefined;
}
