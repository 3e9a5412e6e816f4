import type { KeyObject } from 'node:crypto';
import type { ResourceType } from './format.ts';

/** A blob's identity: the pair, never the MAC alone (kloset-format 0.2). */
export interface BlobId {
  readonly type: ResourceType;
  readonly mac: Uint8Array;
}

/** A copy of blobs as stored (compressed, encrypted) that lies nearer than the store. */
export interface BlobReplica {
  /** Stored bytes of a blob that is there, undefined for another. */
  lengthOf(id: BlobId): Promise<number | undefined>;
  /**
   * The stored bytes in a buffer that `take` gave, or undefined where the blob is not there or cannot be read. Those of
   * blobs that are named at random were compared with a keyed checksum; others are for the caller to check by their MAC.
   */
  read(
    id: BlobId,
    take: (length: number) => Uint8Array<SharedArrayBuffer>,
  ): Promise<Uint8Array<SharedArrayBuffer> | undefined>;
  /** What `read` gave is damaged: it is not given again. */
  reject(id: BlobId, why: Error): void;
  /** Stored bytes that were fetched from the store and checked: may be kept. They are the caller's again afterwards. */
  offer(id: BlobId, stored: Uint8Array): void;
  /** Ids of the snapshots of which everything is there. */
  completeSnapshots(): readonly Uint8Array[];
  /** What is there of the others, for people; one line each. */
  describeIncomplete(): readonly string[];
}

/** Where such a copy lies. */
export interface ReplicaPlace {
  /** How messages name it. */
  readonly location: string;
  /** CONFIG of the store it is a copy of; undefined where nothing was copied yet. */
  readConfig(): Promise<Uint8Array | undefined>;
  /** Opens it for the store with that CONFIG; see Repository.fileKey. Rejects with UserError if it is one of another store. */
  open(parts: {
    readonly config: Uint8Array;
    readonly fileKey: (purpose: string, salt: Uint8Array) => KeyObject;
  }): Promise<BlobReplica>;
}
