import { CorruptStoreError, exitCodes, StoreUnavailableError, UserError } from '../core/errors.ts';
import { LISTING_BYTES_MAX } from './fetch-limits.ts';
import { fillFromBody, HttpClient, type HttpClientOptions, meansNobodyThere, readBody } from './http-client.ts';
import { CONFIG_BYTES_MAX, STATE_BYTES_MAX } from './limits.ts';
import { MissingResourceError, RESOURCE_ID_PATTERN, type RemoteStore } from './remote-store.ts';
import type { ReadOptions, ResourceKind } from './store.ts';

/** How CONFIG begins; any web server answers `GET /` with something (kloset-format 1, 3). */
const CONFIG_MAGICS = ['_KLOSET_', '_PLAKAR_'];

/**
 * A store behind `plakar server` (kloset-format 2.3). That server is no ordinary web server: a range's end is exclusive,
 * the answer to one is 200, everything that fails is 500, and until `GET /` was asked after each of its starts it
 * does not find its own store.
 */
export class HttpStore implements RemoteStore {
  readonly location: string;
  readonly #client: HttpClient;
  readonly #closeServer: () => Promise<void>;

  /** `closeServer` is called when the store is closed, for a server that runs for it alone. */
  constructor(options: HttpClientOptions, closeServer = async () => {}) {
    this.#client = new HttpClient(options);
    this.location = this.#client.location;
    this.#closeServer = closeServer;
  }

  async readConfig(options: ReadOptions = {}): Promise<Uint8Array> {
    const config = await this.#readRoot(options).catch((error: unknown) => {
      if (!meansNobodyThere(error)) throw error;
      throw new UserError(`The store cannot be opened: ${(error as Error).message}. Check the address.`, {
        exitCode: exitCodes.noStore,
        cause: error,
      });
    });
    if (!CONFIG_MAGICS.includes(Buffer.from(config.subarray(0, 8)).toString('latin1'))) {
      throw new UserError(`What answers at ${this.location} is no plakar server: its root is not a store's CONFIG.`, {
        exitCode: exitCodes.noStore,
      });
    }
    return config;
  }

  async list(kind: ResourceKind, { signal }: ReadOptions = {}): Promise<string[]> {
    const what = `The list of ${kind}`;
    const body = await this.#primed({ signal }, async () => {
      const response = await this.#client.request({ method: 'GET', path: `/resources/${kind}`, signal, what });
      return readBody(response, { what, bytesMax: LISTING_BYTES_MAX });
    });
    return parseListing(body, `${what} at ${this.location}`);
  }

  async readState(id: string, { signal }: ReadOptions = {}): Promise<Uint8Array> {
    const what = `State ${id}`;
    return this.#primed({ signal }, async () => {
      const response = await this.#client.request({ method: 'GET', path: `/resources/states/${id}`, signal, what });
      return readBody(response, { what, bytesMax: STATE_BYTES_MAX });
    });
  }

  async readPackfile(id: string, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const received = await this.readPackfileUpTo(id, offset, target, options);
    if (received < target.byteLength) {
      throw new CorruptStoreError(`packfile ${id}: it ends before byte ${offset + target.byteLength}`);
    }
  }

  async readPackfileUpTo(
    id: string,
    offset: number,
    target: Uint8Array,
    { signal }: ReadOptions = {},
  ): Promise<number> {
    // A range of no bytes cannot be asked for here: its end would not be beyond its start, which is answered with 400.
    if (target.byteLength === 0) return 0;
    const what = `packfile ${id}`;
    const path = `/resources/packfiles/${id}`;
    const headers = { range: `bytes=${offset}-${offset + target.byteLength}` };
    return this.#primed({ signal }, async () => {
      const response = await this.#client.request({ method: 'GET', path, headers, signal, what });
      // A caching proxy that knows the standard answers 206 with the end included: one byte more, and dropped.
      if (response.statusCode === 206 && !startsAt(response.headers['content-range'], offset)) {
        response.destroy();
        throw new StoreUnavailableError(`${what}: the server sends another range than was asked for`);
      }
      return Math.min(await fillFromBody(response, target, { what, slackBytes: 1 }), target.byteLength);
    });
  }

  async close(): Promise<void> {
    this.#client.close();
    await this.#closeServer();
  }

  async #readRoot({ signal }: ReadOptions): Promise<Uint8Array> {
    const what = 'CONFIG';
    const response = await this.#client.request({ method: 'GET', path: '/', signal, what });
    return readBody(response, { what, bytesMax: CONFIG_BYTES_MAX });
  }

  /** A server that was started again finds nothing until its root was asked for: what is missing is asked for twice. */
  async #primed<T>(options: ReadOptions, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof MissingResourceError)) throw error;
      await this.#readRoot(options);
      return read();
    }
  }
}

/** `null` stands for no resources; names that are no ids are not ours to read. Throws CorruptStoreError. */
export function parseListing(body: Uint8Array, what: string): string[] {
  let listing: unknown;
  try {
    listing = JSON.parse(Buffer.from(body).toString());
  } catch (error) {
    throw new CorruptStoreError(`${what} is not JSON`, { cause: error });
  }
  if (listing === null) return [];
  if (!Array.isArray(listing)) throw new CorruptStoreError(`${what} is not a list`);
  return [...new Set(listing.filter((name) => typeof name === 'string' && RESOURCE_ID_PATTERN.test(name)))].sort();
}

function startsAt(contentRange: string | undefined, offset: number): boolean {
  return contentRange?.startsWith(`bytes ${offset}-`) ?? false;
}
