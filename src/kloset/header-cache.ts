/** Snapshots' headers in the disk cache: one file for all of a store, the blobs as they are once decoded. They never change. */
import { readColumns, writeColumns } from '../cache/columns.ts';
import type { SealedReader } from '../cache/sealed-reader.ts';
import type { StoreCache } from '../cache/store-cache.ts';
import { MAC_BYTES, toHex } from '../core/mac.ts';

const NAME = 'headers 1';

export class HeaderCache {
  readonly #cache: StoreCache | undefined;
  readonly #cached: ReadonlyMap<string, Uint8Array>;
  /** Those that are asked for in this opening: others' snapshots are deleted. */
  readonly #current = new Map<string, Uint8Array>();

  private constructor(cache: StoreCache | undefined, cached: ReadonlyMap<string, Uint8Array>) {
    this.#cache = cache;
    this.#cached = cached;
  }

  static async open(cache: StoreCache | undefined): Promise<HeaderCache> {
    return new HeaderCache(cache, (await cache?.read(NAME, readHeaders)) ?? new Map());
  }

  get(id: Uint8Array): Uint8Array | undefined {
    return this.#cached.get(toHex(id));
  }

  /** Keeps a header that was understood. */
  keep(id: Uint8Array, blob: Uint8Array): void {
    this.#current.set(toHex(id), blob);
  }

  /** Keeps a header as it is cached, if it is. */
  retain(id: Uint8Array): void {
    const blob = this.get(id);
    if (blob !== undefined) this.keep(id, blob);
  }

  /** Writes what is kept, if it is not what is there. */
  async save(): Promise<void> {
    const isSame =
      this.#current.size === this.#cached.size && [...this.#current.keys()].every((id) => this.#cached.has(id));
    if (isSame) return;
    const blobs = [...this.#current.values()];
    await this.#cache?.write(NAME, (writer) =>
      writeColumns(writer, {
        values: {},
        columns: {
          ids: new Uint8Array(Buffer.from([...this.#current.keys()].join(''), 'hex')),
          lengths: Uint32Array.from(blobs, (blob) => blob.byteLength),
          blobs: new Uint8Array(Buffer.concat(blobs)),
        },
      }),
    );
  }
}

async function readHeaders(reader: SealedReader): Promise<Map<string, Uint8Array>> {
  const read = await readColumns(reader);
  const ids = read.column('ids', 'u8');
  const blobs = read.column('blobs', 'u8');
  const headers = new Map<string, Uint8Array>();
  let at = 0;
  for (const [i, length] of read.column('lengths', 'u32').entries()) {
    headers.set(toHex(ids.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES)), blobs.subarray(at, at + length));
    at += length;
  }
  return headers;
}
