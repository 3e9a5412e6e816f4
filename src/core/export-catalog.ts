import type { BlockDevice } from './device.ts';

/** One line of NBD_OPT_LIST. */
export interface ExportSummary {
  readonly name: string;
  /** One line for people: date, tags, size. */
  readonly description: string;
}

/** A device held open for one connection (or one look at it); give it back with `release`. */
export interface ExportLease {
  /** The name that stands for the device in messages; a device can have several names. */
  readonly name: string;
  /** Equal for all names of one device: the one-writer rule and multi-conn go by it. */
  readonly deviceId: string;
  readonly description: string;
  readonly readOnly: boolean;
  readonly device: BlockDevice;
  /** Idempotent. The device may be closed once nobody holds it. */
  release(): void;
}

/** What a server offers. */
export interface ExportCatalog {
  /** Every export. Opens no device: a store can hold hundreds. */
  list(): Promise<readonly ExportSummary[]>;
  /**
   * Opens, or shares, the device behind `name`; the empty name is the default export. Resolves to undefined if there is
   * no such export. Rejects with CorruptStoreError, StoreUnavailableError, OverlayError or UserError, whose message is
   * meant for the client.
   */
  acquire(name: string): Promise<ExportLease | undefined>;
}
