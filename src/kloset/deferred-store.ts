import type { RemoteStore } from './remote-store.ts';
import type { ReadOptions, ResourceKind } from './store.ts';

/** A store whose code is loaded when it is first read: what a command does not use does not slow its start. */
export class DeferredStore implements RemoteStore {
  readonly location: string;
  readonly #load: () => Promise<RemoteStore>;
  #loading: Promise<RemoteStore> | undefined;

  constructor(location: string, load: () => Promise<RemoteStore>) {
    this.location = location;
    this.#load = load;
  }

  async readConfig(options?: ReadOptions): Promise<Uint8Array> {
    return (await this.#store()).readConfig(options);
  }

  async list(kind: ResourceKind, options?: ReadOptions): Promise<string[]> {
    return (await this.#store()).list(kind, options);
  }

  async readState(id: string, options?: ReadOptions): Promise<Uint8Array> {
    return (await this.#store()).readState(id, options);
  }

  async readPackfile(id: string, offset: number, target: Uint8Array, options?: ReadOptions): Promise<void> {
    return (await this.#store()).readPackfile(id, offset, target, options);
  }

  async readPackfileUpTo(id: string, offset: number, target: Uint8Array, options?: ReadOptions): Promise<number> {
    return (await this.#store()).readPackfileUpTo(id, offset, target, options);
  }

  /** Whoever could not be loaded has nothing to close; the reads have said so. */
  async close(): Promise<void> {
    const store = await this.#loading?.catch(() => undefined);
    await store?.close();
  }

  #store(): Promise<RemoteStore> {
    this.#loading ??= this.#load();
    return this.#loading;
  }
}
