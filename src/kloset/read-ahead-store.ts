import { LRUCache } from 'lru-cache';
import { orStopped } from '../core/stop.ts';
import { READ_AHEAD_BYTES_MAX, READ_AHEAD_READ_BYTES_MAX, READ_AHEAD_WINDOW_BYTES } from './fetch-limits.ts';
import type { RemoteStore } from './remote-store.ts';
import type { KlosetStore, ReadOptions, ResourceKind } from './store.ts';

export interface ReadAheadOptions {
  readonly windowBytes?: number;
  readonly readBytesMax?: number;
  readonly cacheBytesMax?: number;
}

/** A piece of a packfile: from its start, a multiple of the window's size, as far as there was something. */
interface Window {
  readonly startsAt: number;
  readonly content: Promise<Uint8Array>;
  /** Where reads that it served began. */
  readonly served: Set<number>;
}

/**
 * Reads small ranges in windows, and keeps some. Metadata blobs are a few hundred bytes each, thousands of them side by
 * side in one packfile: over a network the round trips are all that counts. A range asked for a second time is fetched
 * anew, and alone: whoever asks twice found the first bytes damaged, maybe on the way.
 */
export class ReadAheadStore implements KlosetStore {
  readonly location: string;
  readonly #store: RemoteStore;
  readonly #windowBytes: number;
  readonly #readBytesMax: number;
  readonly #windows: LRUCache<string, Window>;

  constructor(store: RemoteStore, options: ReadAheadOptions = {}) {
    this.location = store.location;
    this.#store = store;
    this.#windowBytes = options.windowBytes ?? READ_AHEAD_WINDOW_BYTES;
    this.#readBytesMax = Math.min(options.readBytesMax ?? READ_AHEAD_READ_BYTES_MAX, this.#windowBytes);
    const windowsMax = Math.max(2, Math.floor((options.cacheBytesMax ?? READ_AHEAD_BYTES_MAX) / this.#windowBytes));
    this.#windows = new LRUCache({ max: windowsMax });
  }

  readConfig(options?: ReadOptions): Promise<Uint8Array> {
    return this.#store.readConfig(options);
  }

  list(kind: ResourceKind, options?: ReadOptions): Promise<string[]> {
    return this.#store.list(kind, options);
  }

  readState(id: string, options?: ReadOptions): Promise<Uint8Array> {
    return this.#store.readState(id, options);
  }

  async readPackfile(id: string, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    const isSmall = target.byteLength <= this.#readBytesMax;
    if (isSmall && (await this.#fillFromWindows(id, offset, target, options.signal))) return;
    await this.#store.readPackfile(id, offset, target, options);
  }

  async close(): Promise<void> {
    this.#windows.clear();
    await this.#store.close();
  }

  /** False if the windows end before the range does, or served it before: then the store itself has the last word. */
  async #fillFromWindows(
    id: string,
    offset: number,
    target: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const end = offset + target.byteLength;
    const windows: Window[] = [];
    for (let at = offset - (offset % this.#windowBytes); at < end; at += this.#windowBytes) {
      windows.push(this.#window(id, at));
    }
    const [first] = windows;
    const forget = () => {
      for (const { startsAt } of windows) this.#windows.delete(nameOf(id, startsAt));
      return false;
    };
    if (first?.served.has(offset)) return forget();
    first?.served.add(offset);
    const contents = await orStopped(Promise.all(windows.map((window) => window.content)), signal);
    let done = 0;
    for (const [index, { startsAt }] of windows.entries()) {
      const piece = contents[index]!.subarray(offset + done - startsAt, end - startsAt);
      target.set(piece, done);
      done += piece.byteLength;
    }
    return done === target.byteLength || forget();
  }

  /** Not stopped by any one reader's signal: others may wait for it, and the next are likely to come. */
  #window(id: string, startsAt: number): Window {
    const name = nameOf(id, startsAt);
    const known = this.#windows.get(name);
    if (known !== undefined) return known;
    const content = this.#fetch(id, startsAt);
    const window = { startsAt, content, served: new Set<number>() };
    this.#windows.set(name, window);
    content.catch(() => {
      if (this.#windows.peek(name) === window) this.#windows.delete(name);
    });
    return window;
  }

  async #fetch(id: string, startsAt: number): Promise<Uint8Array> {
    const content = new Uint8Array(this.#windowBytes);
    const filled = await this.#store.readPackfileUpTo(id, startsAt, content);
    // The last window of a packfile is mostly short: its memory is not held.
    return filled < content.byteLength / 2 ? content.slice(0, filled) : content.subarray(0, filled);
  }
}

function nameOf(id: string, startsAt: number): string {
  return `${id}/${startsAt}`;
}
