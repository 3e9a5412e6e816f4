/** What reading over a network adds to KlosetStore: errors that say whether to try again, and reads of unknown length. */
import { type ErrorDetails, StoreUnavailableError } from '../core/errors.ts';
import type { KlosetStore, ReadOptions } from './store.ts';

/** A store that can also be read without knowing where a packfile ends: for reading ahead. It heeds signals. */
export interface RemoteStore extends KlosetStore {
  /** As readPackfile, but fills only what there is; resolves to how many bytes that are. `offset` lies inside. */
  readPackfileUpTo(id: string, offset: number, target: Uint8Array, options?: ReadOptions): Promise<number>;
}

interface Extras {
  readonly details?: ErrorDetails;
  readonly cause?: unknown;
}

/** The store did not answer, or not whole, in a way that can pass: reset, stall, throttling, an error of the server. */
export class TransientStoreError extends StoreUnavailableError {
  /** Milliseconds the server asked to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    { retryAfterMs, ...extras }: Extras & { readonly retryAfterMs?: number | undefined } = {},
  ) {
    super(message, extras);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The store answers, and does not hold the resource, or no longer: maintenance may have taken it away. */
export class MissingResourceError extends StoreUnavailableError {}

/** Names of resources as they stand in paths and keys: exactly 64 lower-case hex digits (kloset-format 2.1). */
export const RESOURCE_ID_PATTERN = /^[0-9a-f]{64}$/;
