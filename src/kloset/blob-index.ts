import type { State } from './state.ts';

/** Where a blob's stored bytes lie. */
export interface BlobLocation {
  /** Hex id of the packfile. */
  readonly packfile: string;
  /** Relative to the packfile's payload. */
  readonly offset: number;
  /** Stored bytes. */
  readonly length: number;
}

/** The merge of a store's states: (type, MAC) -> locations (kloset-format 7.3). */
export interface BlobIndex {
  /** Live locations of a blob, best first: those in packfiles marked for deletion come last, their bytes are there until the grace period ends. */
  locate(type: number, mac: Uint8Array): Promise<readonly BlobLocation[]>;
  /** Ids of all snapshots that are not deleted, as 32 bytes, in no particular order. */
  snapshots(): readonly Uint8Array[];
  /** When a snapshot was deleted, milliseconds since 1970; undefined for one that is not. `id` has 64 hex digits. */
  deletedAt(id: string): number | undefined;
  /** When the first packfile was marked for deletion of those marked at or after `sinceMs`, milliseconds since 1970. */
  firstPackfileMarkedSince(sinceMs: number): number | undefined;
  /** Ids of the states it was made from. */
  readonly states: ReadonlySet<string>;
  /**
   * An index with further states merged, perhaps this one, if that is what merging all of them anew would give;
   * undefined, and nothing changed, if it might not be. Rejects with CorruptStoreError on malformed records; what
   * stood before them may be merged then.
   */
  extend(states: readonly State[]): Promise<BlobIndex | undefined>;
  /** Number of locations, dead ones included. */
  readonly locationCount: number;
  close(): Promise<void>;
}
