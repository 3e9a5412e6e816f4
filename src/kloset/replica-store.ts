/** What stands for a store that is away while a copy of what is needed of it is at hand. */
import { exitCodes, type KlosetNbdError, StoreUnavailableError, UserError } from '../core/errors.ts';
import type { KlosetStore } from './store.ts';

/** CONFIG comes from the copy; there are no states; whatever else is asked of the store is not to be had. */
export class ReplicaStore implements KlosetStore {
  readonly location: string;
  readonly #config: Uint8Array;
  readonly #why: KlosetNbdError;

  /** `why`: what the store said. */
  constructor(location: string, { config, why }: { readonly config: Uint8Array; readonly why: KlosetNbdError }) {
    this.location = location;
    this.#config = config;
    this.#why = why;
  }

  async readConfig(): Promise<Uint8Array> {
    return this.#config;
  }

  async list(): Promise<string[]> {
    return [];
  }

  async readState(id: string): Promise<never> {
    throw this.#away(`state ${id}`);
  }

  async readPackfile(id: string): Promise<never> {
    throw this.#away(`packfile ${id}`);
  }

  async close(): Promise<void> {}

  #away(what: string): StoreUnavailableError {
    return new StoreUnavailableError(`${what}: the store ${this.location} was away at the start`, { cause: this.#why });
  }
}

/** How long a store is waited for that there is a copy of, milliseconds: time for a plakar server to start, not for a hung mount. */
export const STORE_WITH_REPLICA_MS = 15_000;

/** The error of an opening as one that says that there is no store where it should be, or none that answers; undefined for another. */
export function asAway(error: unknown): KlosetNbdError | undefined {
  if (error instanceof DOMException && error.name === 'TimeoutError') {
    return new StoreUnavailableError(`it did not answer within ${STORE_WITH_REPLICA_MS / 1000} s`);
  }
  const isAway =
    error instanceof StoreUnavailableError || (error instanceof UserError && error.exitCode === exitCodes.noStore);
  return isAway ? error : undefined;
}
