import type { IncomingMessage } from 'node:http';
import { CorruptStoreError, exitCodes, StoreUnavailableError, UserError } from '../core/errors.ts';
import { fillFromBody, HttpClient, type HttpClientOptions, meansNobodyThere } from './http-client.ts';
import { CONFIG_BYTES_MAX, STATE_BYTES_MAX } from './limits.ts';
import {
  PTAR_STATE_ID,
  type PtarSection,
  type PtarSections,
  parsePtarLayout,
  ptarHeader,
  ptarTrailer,
  requirePtarSize,
} from './ptar-layout.ts';
import type { RemoteStore } from './remote-store.ts';
import type { ReadOptions, ResourceKind } from './store.ts';

interface OpenedArchive extends PtarSections {
  readonly sizeBytes: number;
  /** A strong ETag, if the server gives one: changes when the file is replaced. */
  readonly etag: string | undefined;
}

/**
 * A `.ptar` file on an ordinary web server (kloset-format 2.2): HEAD for its size, then ranges as RFC 9110 has them, end
 * included. A file that is replaced while it is open is noticed by its size or ETag and read no further.
 */
export class PtarHttpStore implements RemoteStore {
  readonly location: string;
  readonly #client: HttpClient;
  #opened: Promise<OpenedArchive> | undefined;

  /** `options.url` is the file's own address. */
  constructor(options: HttpClientOptions) {
    this.#client = new HttpClient(options);
    this.location = `ptar+${this.#client.location}`;
  }

  async readConfig(options: ReadOptions = {}): Promise<Uint8Array> {
    const opened = await this.#open(options).catch((error: unknown) => {
      if (!meansNobodyThere(error)) throw error;
      throw new UserError(`The archive cannot be opened: ${(error as Error).message}. Check the address.`, {
        exitCode: exitCodes.noStore,
        cause: error,
      });
    });
    return this.#readSection(opened, 'config', CONFIG_BYTES_MAX, options);
  }

  async list(kind: ResourceKind): Promise<string[]> {
    // The packfile's id stands only in the state.
    return kind === 'states' ? [PTAR_STATE_ID] : [];
  }

  async readState(_id: string, options: ReadOptions = {}): Promise<Uint8Array> {
    return this.#readSection(await this.#open(options), 'state', STATE_BYTES_MAX, options);
  }

  async readPackfile(id: string, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const opened = await this.#open(options);
    const { packfile } = opened;
    if (offset + target.byteLength > packfile.length) {
      throw new CorruptStoreError(`packfile ${id}: it ends before byte ${offset + target.byteLength}`);
    }
    await this.#fill(opened, packfile.offset + offset, target, `packfile ${id}`, options);
  }

  async readPackfileUpTo(id: string, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<number> {
    const { packfile } = await this.#open(options);
    const available = target.subarray(0, Math.max(0, packfile.length - offset));
    await this.readPackfile(id, offset, available, options);
    return available.byteLength;
  }

  async close(): Promise<void> {
    this.#client.close();
  }

  async #readSection(opened: OpenedArchive, name: 'config' | 'state', bytesMax: number, options: ReadOptions) {
    const { offset, length }: PtarSection = opened[name];
    if (length > bytesMax) throw new CorruptStoreError(`${this.location}: its ${name} has ${length} bytes`);
    const content = new Uint8Array(length);
    await this.#fill(opened, offset, content, `The ${name} of the archive`, options);
    return content;
  }

  /** Looked at once, by whoever comes first; again if that fails, since what failed can pass. */
  #open(options: ReadOptions): Promise<OpenedArchive> {
    const opening = this.#opened ?? this.#readLayout(options);
    this.#opened = opening;
    opening.catch(() => {
      if (this.#opened === opening) this.#opened = undefined;
    });
    return opening;
  }

  async #readLayout({ signal }: ReadOptions): Promise<OpenedArchive> {
    const response = await this.#client.request({ method: 'HEAD', path: '', signal, what: 'The archive' });
    response.resume();
    const length = response.headers['content-length'];
    if (length === undefined || !/^\d{1,15}$/.test(length)) {
      throw new StoreUnavailableError(`${this.location}: the server does not say how long the archive is`);
    }
    const sizeBytes = Number(length);
    requirePtarSize(sizeBytes, this.location);
    const file = { sizeBytes, etag: strongEtag(response) };
    const head = new Uint8Array(ptarHeader.sizeBytes);
    const tail = new Uint8Array(ptarTrailer.sizeBytes);
    await this.#fill(file, 0, head, 'The head of the archive', { signal });
    await this.#fill(file, sizeBytes - tail.byteLength, tail, 'The trailer of the archive', { signal });
    return { ...file, ...parsePtarLayout({ head, tail, sizeBytes }, this.location) };
  }

  async #fill(
    file: Pick<OpenedArchive, 'sizeBytes' | 'etag'>,
    offset: number,
    target: Uint8Array,
    what: string,
    { signal }: ReadOptions,
  ): Promise<void> {
    if (target.byteLength === 0) return;
    const last = offset + target.byteLength - 1;
    const headers = { range: `bytes=${offset}-${last}` };
    const response = await this.#client.request({ method: 'GET', path: '', headers, signal, what });
    const problem = this.#problemOf(response, `bytes ${offset}-${last}/${file.sizeBytes}`, file.etag);
    if (problem !== undefined) {
      response.destroy();
      throw new StoreUnavailableError(`${what} at ${this.location}: ${problem}`);
    }
    const received = await fillFromBody(response, target, { what, slackBytes: 0 });
    if (received < target.byteLength) throw new CorruptStoreError(`${what}: it ends before byte ${last + 1}`);
  }

  #problemOf(response: IncomingMessage, range: string, etag: string | undefined): string | undefined {
    if (response.statusCode !== 206) return 'the server ignores ranges; put the archive on one that serves them';
    const given = response.headers['content-range'];
    // A server may say `*` for a size it does not know.
    const isAsked = given === range || given === range.replace(/\d+$/, '*');
    if (!isAsked || (etag !== undefined && strongEtag(response) !== etag)) {
      return 'the archive has been replaced since it was opened; start again to read the new one';
    }
    return undefined;
  }
}

function strongEtag(response: IncomingMessage): string | undefined {
  const { etag } = response.headers;
  return etag?.startsWith('"') ? etag : undefined;
}
