import type { StopOptions } from '../core/stop.ts';

export type ReadOptions = StopOptions;

/**
 * Where a Kloset store's resources lie. Reading only: nothing in this program can write to one. A store whose reads
 * cannot stall, such as one in memory, may ignore signals.
 */
export interface KlosetStore {
  /** How messages name the store. Holds no secrets. */
  readonly location: string;
  /** The CONFIG resource, envelope included. Rejects with UserError (exit 66) if there is no store here. */
  readConfig(options?: ReadOptions): Promise<Uint8Array>;
  /** Ids of all resources of a kind, lower-case hex, ascending. */
  list(kind: ResourceKind, options?: ReadOptions): Promise<string[]>;
  /** A whole state, envelope included. */
  readState(id: string, options?: ReadOptions): Promise<Uint8Array>;
  /**
   * Fills all of `target` from byte `offset` of the packfile's file (its envelope counts). `target` is not empty.
   * Rejects with CorruptStoreError if the packfile ends before, StoreUnavailableError if it cannot be read.
   */
  readPackfile(id: string, offset: number, target: Uint8Array, options?: ReadOptions): Promise<void>;
  close(): Promise<void>;
}

export type ResourceKind = 'packfiles' | 'states';
