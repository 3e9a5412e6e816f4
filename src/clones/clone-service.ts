/** What can be done with clones, whether this process has them or a server does. All values are plain JSON. */
import type { ExportDevice } from '../core/export-device.ts';
import type { CloneDiff } from './clone-diff.ts';
import type { CloneRecord } from './clone-record.ts';

export interface CloneSummary {
  readonly record: CloneRecord;
  /** Bytes that its files take, blocks shared with other clones included. */
  readonly storedBytes: number;
  /** Clients that have it open, by way of the server that has the directory. */
  readonly connections: number;
}

export interface CloneList {
  readonly clones: readonly CloneSummary[];
  /** Records that cannot be read, and why. */
  readonly unreadable: readonly { readonly name: string; readonly reason: string }[];
}

export interface CloneInfo extends CloneSummary {
  /** Bytes of the disk that were written since the snapshot, in whole blocks. */
  readonly dirtyBytes: number;
  readonly diff: CloneDiff;
  /** Why the clone takes no writes; null if it does. */
  readonly readOnlyReason: string | null;
}

export interface CloneCheck {
  readonly name: string;
  readonly isSound: boolean;
  readonly readOnlyReason: string | null;
  /** A crash cut its last writes off, which no FLUSH had confirmed: no damage. */
  readonly hasTornTail: boolean;
  readonly checkedBlocks: number;
  readonly damagedBlockCount: number;
  /** The first of them. */
  readonly damagedBlocks: readonly { readonly block: number; readonly message: string }[];
  readonly remarks: readonly string[];
}

export interface CloneChange {
  readonly isProtected?: boolean;
  /** Milliseconds since 1970; null: it lives until it is removed. */
  readonly expiresMs?: number | null;
}

/** A disk at one moment, to be read out. */
export interface CloneView extends Pick<ExportDevice, 'sizeBytes' | 'read'>, Required<Pick<ExportDevice, 'status'>> {
  readonly record: CloneRecord;
  /** Clients were connected: what is there is what a crash of theirs would have left. */
  readonly connections: number;
  close(): Promise<void>;
}

/** Methods reject with UserError (exit 64) for a clone that is not there, or whose state forbids it. */
export interface CloneService {
  /** The process that serves the clones; undefined if it is this one, for this command only. */
  readonly serverPid: number | undefined;
  /** Removes what has expired, then lists the others. */
  list(): Promise<CloneList>;
  info(name: string): Promise<CloneInfo>;
  diff(name: string): Promise<{ readonly diff: CloneDiff; readonly connections: number }>;
  /** Reads everything the clone has stored. Refused while clients are connected. */
  check(name: string): Promise<CloneCheck>;
  /** Of a clone that clients write to, what is there after a flush. Resolves to how many clients there were. */
  copy(name: string, newName: string): Promise<{ readonly connections: number }>;
  change(name: string, change: CloneChange): Promise<void>;
  /** Gives up what was written. `force` disconnects clients first; without it they are a reason to refuse. */
  reset(name: string, options: { readonly force: boolean }): Promise<void>;
  remove(name: string, options: { readonly force: boolean }): Promise<void>;
  /** Holds the clone as it is after a flush, while clients go on. To be closed. */
  view(name: string): Promise<CloneView>;
  close(): Promise<void>;
}
