import type { KlosetStore, ResourceKind } from '../../src/kloset/store.ts';

/** One byte of a store to be changed. */
export interface Flip {
  readonly resource: 'CONFIG' | `states/${string}` | `packfiles/${string}`;
  readonly at: number;
  /** Bits to turn over; not 0. */
  readonly mask: number;
}

/** A store with one byte changed, wherever it is read; counts how often it was handed out. */
export class FlippedStore implements KlosetStore {
  readonly location: string;
  handedOut = 0;
  readonly #store: KlosetStore;
  readonly #flip: Flip;

  constructor(store: KlosetStore, flip: Flip) {
    this.#store = store;
    this.#flip = flip;
    this.location = store.location;
  }

  async readConfig(): Promise<Uint8Array> {
    return this.#spoil('CONFIG', 0, await this.#store.readConfig());
  }

  list(kind: ResourceKind): Promise<string[]> {
    return this.#store.list(kind);
  }

  async readState(id: string): Promise<Uint8Array> {
    return this.#spoil(`states/${id}`, 0, await this.#store.readState(id));
  }

  async readPackfile(id: string, offset: number, target: Uint8Array): Promise<void> {
    await this.#store.readPackfile(id, offset, target);
    this.#spoil(`packfiles/${id}`, offset, target);
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #spoil(resource: string, offset: number, content: Uint8Array): Uint8Array {
    const at = this.#flip.at - offset;
    if (resource !== this.#flip.resource || at < 0 || at >= content.byteLength) return content;
    content[at]! ^= this.#flip.mask;
    this.handedOut++;
    return content;
  }
}
