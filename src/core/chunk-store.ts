import type { Reach } from './device.ts';
import type { FileCost } from './file-costs.ts';
import type { StopOptions } from './stop.ts';

/** One chunk of a file, and enough about where it was found to say so when it is damaged. */
export interface ChunkRef {
  /** 32 bytes: the chunk's identity, MAC of its plain bytes. */
  readonly mac: Uint8Array;
  /** Plain bytes, as the file's object records them. */
  readonly lengthBytes: number;
  /** Which chunk of which file asked. Another file may share the chunk. */
  readonly file: FileRef;
  readonly indexInFile: number;
}

/** A file of a snapshot, as error messages name it. */
export interface FileRef {
  /** 64 hex digits. */
  readonly snapshotId: string;
  /** Absolute path inside the snapshot as recorded: raw bytes, need not be UTF-8. */
  readonly path: Uint8Array;
  /** All chunks of the file in order; `chunks[ref.indexInFile]` is the ref itself. */
  readonly chunks: readonly ChunkRef[];
  /** Where to count what is fetched for it; undefined for metadata. */
  readonly cost?: FileCost | undefined;
}

/** Whom a chunk is fetched for. A client waits for `read`; all others are guesses, which must never delay one. */
export type FetchPurpose = 'read' | 'read-ahead' | 'prefetch' | 'profile' | 'warm-up';

export interface ChunkOptions extends StopOptions {
  /**
   * Default: `read`. It becomes `read` when a client joins a fetch that was a guess: who lets others wait asks again
   * whenever it chooses the next, and hands the options on as they are, not a copy.
   */
  readonly purpose?: FetchPurpose;
  /** Called when its stored bytes have come: decoding is what is left, and stopping would save next to nothing. */
  readonly onFetched?: (() => void) | undefined;
  /** Whether it is asked for by who reads its file from one end on: for all of it, and hardly once more. Default: it is not. */
  readonly isInSequence?: boolean;
  /**
   * Given its stored bytes, where they have come from the store and were found sound, before they are used for another: they
   * are left alone until what this returns settles. It never rejects.
   */
  readonly onSound?: ((stored: Uint8Array) => Promise<void> | undefined) | undefined;
}

/** Whether nobody waits for the chunk, as of now. */
export function isGuess({ purpose = 'read' }: ChunkOptions): boolean {
  return purpose !== 'read';
}

/** Plain bytes of chunks, already decrypted, decompressed and checked against their MAC. */
export interface ChunkStore {
  /**
   * The chunk's plain bytes, exactly `lengthBytes` long. Shared with the cache and other callers: read, never write.
   * Rejects with CorruptStoreError or StoreUnavailableError.
   */
  get(chunk: ChunkRef, options?: ChunkOptions): Promise<Uint8Array>;
  /**
   * Fills `target` with the chunk's bytes from `offset` (inside the chunk): where a part of a chunk is at hand, nobody
   * makes the rest. Rejects as `get`.
   */
  readInto?(chunk: ChunkRef, offset: number, target: Uint8Array, options?: ChunkOptions): Promise<void>;
  /** The same at once, if the bytes are within reach; false if `readInto` is to be asked, and `target` then holds nothing of meaning. */
  readIntoNow?(chunk: ChunkRef, offset: number, target: Uint8Array, reach?: Reach): boolean;
  /** Sees to it that a later read of the chunk needs no fetch; true if it had to be fetched, or decoded. Rejects as `get`. */
  prefetch?(chunk: ChunkRef, options: ChunkOptions): Promise<boolean>;
  /** As `get`, of stored bytes that somebody kept. Rejects with CorruptStoreError if they are not that chunk's. */
  decode?(chunk: ChunkRef, stored: Uint8Array, options?: ChunkOptions): Promise<Uint8Array>;
  /** Takes back what `get` or `decode` gave, if its memory can be used again: nobody reads it any more. Nobody must. */
  giveBack?(plain: Uint8Array): void;
  close(): Promise<void>;
}
