import { createHash } from 'node:crypto';
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { type BucketItem, Client, S3Error } from 'minio';
import { CorruptStoreError, exitCodes, KlosetNbdError, StoreUnavailableError, UserError } from '../core/errors.ts';
import { LISTING_KEYS_MAX } from './fetch-limits.ts';
import { fillFromBody, meansNobodyThere, parseRetryAfter, readBody } from './http-client.ts';
import { CONFIG_BYTES_MAX, STATE_BYTES_MAX } from './limits.ts';
import { MissingResourceError, RESOURCE_ID_PATTERN, type RemoteStore, TransientStoreError } from './remote-store.ts';
import type { S3Access } from './s3-credentials.ts';
import { nameOfS3Store, type S3Settings } from './s3-location.ts';
import type { ReadOptions, ResourceKind } from './store.ts';

export interface S3StoreOptions {
  readonly settings: S3Settings;
  readonly access: S3Access;
  /** Connections at once; further requests wait. */
  readonly connectionsMax: number;
  /** Milliseconds without a byte after which a request is given up. */
  readonly stallTimeoutMs: number;
}

/** Statuses that minio would try again itself; here that is RetryingStore's to decide, which has a budget and a log. */
const PASSING_STATUSES: readonly number[] = [408, 429, 499, 500, 502, 503, 504, 520];

/** Codes of errors that pass, where the status alone does not say so. */
const PASSING_CODES: readonly string[] = [
  'SlowDown',
  'InternalError',
  'ServiceUnavailable',
  'RequestTimeout',
  'Throttling',
];
const EXPIRED_CODES: readonly string[] = ['ExpiredToken', 'ExpiredTokenException', 'TokenRefreshRequired'];
const MISSING_CODES: readonly string[] = ['NoSuchKey', 'NotFound', 'NoSuchVersion'];

/**
 * A store in an S3-compatible object store (kloset-format 2.4). Only GET and HEAD are ever sent. Under storage classes
 * that freeze, the writer keeps a copy with `.frozen` at the end of its key: what exists only so cannot be read.
 */
export class S3Store implements RemoteStore {
  readonly location: string;
  readonly #settings: S3Settings;
  readonly #access: S3Access;
  readonly #client: Client;
  readonly #agent: http.Agent;
  readonly #underWay = new Set<http.ClientRequest>();
  /** Errors of kept connections that the server had closed meanwhile, which say nothing about the server. */
  readonly #ofStaleConnections = new WeakSet<Error>();
  #isClosed = false;

  constructor({ settings, access, connectionsMax, stallTimeoutMs }: S3StoreOptions) {
    const { host, port, useTls, verifyCertificate, region, pathStyle } = settings;
    this.#settings = settings;
    this.#access = access;
    this.location = nameOfS3Store(settings);
    const pool = { keepAlive: true, maxSockets: connectionsMax, scheduling: 'fifo' } as const;
    this.#agent = useTls ? new https.Agent({ ...pool, rejectUnauthorized: verifyCertificate }) : new http.Agent(pool);
    this.#client = new Client({
      endPoint: host,
      port,
      useSSL: useTls,
      pathStyle,
      ...access,
      ...(region === undefined ? {} : { region }),
      transportAgent: this.#agent,
      transport: { request: this.#request(stallTimeoutMs) },
      retryOptions: { disableRetry: true },
    });
  }

  async readConfig(options: ReadOptions = {}): Promise<Uint8Array> {
    try {
      return await this.#readWhole('CONFIG', CONFIG_BYTES_MAX, 'CONFIG', options);
    } catch (error) {
      if (error instanceof UserError || !meansNobodyThere(error)) throw error;
      const { message } = error as Error;
      const isEmpty = error instanceof MissingResourceError;
      throw new UserError(
        isEmpty
          ? `There is no store at ${this.location}: it holds no CONFIG. Check bucket and prefix.`
          : `The store cannot be opened: ${message}. Check endpoint, keys and bucket.`,
        { exitCode: exitCodes.noStore, cause: error },
      );
    }
  }

  async list(kind: ResourceKind, options: ReadOptions = {}): Promise<string[]> {
    const what = `The list of ${kind}`;
    options.signal?.throwIfAborted();
    try {
      return await this.#onFreshConnection(() => this.#listIds(kind, what, options));
    } catch (error) {
      throw this.#toStoreError(error, what);
    }
  }

  readState(id: string, options: ReadOptions = {}): Promise<Uint8Array> {
    return this.#readWhole(keyOf('states', id), STATE_BYTES_MAX, `State ${id}`, options);
  }

  async readPackfile(id: string, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const received = await this.readPackfileUpTo(id, offset, target, options);
    if (received < target.byteLength) {
      throw new CorruptStoreError(`packfile ${id}: it ends before byte ${offset + target.byteLength}`);
    }
  }

  async readPackfileUpTo(id: string, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<number> {
    if (target.byteLength === 0) return 0;
    const what = `packfile ${id}`;
    const key = keyOf('packfiles', id);
    try {
      const range = `bytes=${offset}-${offset + target.byteLength - 1}`;
      const response = await this.#get(key, { range }, what, options);
      if (response.statusCode !== 206 || !response.headers['content-range']?.startsWith(`bytes ${offset}-`)) {
        response.destroy();
        throw new StoreUnavailableError(`${what}: the server ignores ranges`);
      }
      return await fillStoppable(response, target, what, options);
    } catch (error) {
      if (error instanceof MissingResourceError) throw await this.#frozenOr(error, key, what);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const request of this.#underWay) request.destroy(new StoreUnavailableError(`${this.location} was closed`));
    this.#agent.destroy();
  }

  async #listIds(kind: ResourceKind, what: string, { signal }: ReadOptions): Promise<string[]> {
    const prefix = `${this.#settings.prefix}${kind}/`;
    const ids: string[] = [];
    const items = this.#client.listObjectsV2(this.#settings.bucket, prefix, true);
    const stop = () => items.destroy(stopReason(signal, what));
    signal?.addEventListener('abort', stop, { once: true });
    try {
      for await (const { name } of items as AsyncIterable<BucketItem>) {
        // `<2 hex>/<64 hex>`; frozen copies, and whatever else lies there, are skipped.
        const id = name?.slice(name.lastIndexOf('/') + 1) ?? '';
        if (RESOURCE_ID_PATTERN.test(id) && name === `${prefix}${id.slice(0, 2)}/${id}`) ids.push(id);
        if (ids.length > LISTING_KEYS_MAX)
          throw new CorruptStoreError(`${what} has more than ${LISTING_KEYS_MAX} names`);
      }
    } finally {
      signal?.removeEventListener('abort', stop);
    }
    return ids.sort();
  }

  async #readWhole(key: string, bytesMax: number, what: string, options: ReadOptions): Promise<Uint8Array> {
    const response = await this.#get(key, {}, what, options);
    return stoppable(response, options, what, readBody(response, { what, bytesMax }));
  }

  /** The answer's headers; its body is the caller's. */
  async #get(key: string, headers: Record<string, string>, what: string, { signal }: ReadOptions) {
    signal?.throwIfAborted();
    const { bucket, prefix, customerKey } = this.#settings;
    const ask = () =>
      this.#client.makeRequestAsync(
        {
          method: 'GET',
          bucketName: bucket,
          objectName: prefix + key,
          headers: { ...headers, ...customerHeaders(customerKey) },
        },
        '',
        [200, 206],
      );
    try {
      return await orStopped(this.#onFreshConnection(ask), signal, what);
    } catch (error) {
      throw this.#toStoreError(error, what);
    }
  }

  /** Asks again where the connection was stale; the next one may be too: this ends with a fresh one. */
  async #onFreshConnection<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof Error && this.#ofStaleConnections.has(error)) return this.#onFreshConnection(ask);
      throw error;
    }
  }

  /** Whether what is missing is there as a frozen copy; `missing` if not, or if that cannot be told. */
  async #frozenOr(missing: MissingResourceError, key: string, what: string): Promise<StoreUnavailableError> {
    const { bucket, prefix } = this.#settings;
    const isFrozen = await this.#client.statObject(bucket, `${prefix}${key}.frozen`).then(
      () => true,
      () => false,
    );
    if (!isFrozen) return missing;
    const message = `${what}: it lies in cold storage only (${key}.frozen). Restore it there under its plain key first`;
    return new StoreUnavailableError(message, { cause: missing });
  }

  /** What minio sends its requests with: refuses when closed, gives up stalls, and ends those that may be tried again. */
  #request(stallTimeoutMs: number): typeof http.request {
    const { useTls } = this.#settings;
    const send = (options: https.RequestOptions, callback: (response: IncomingMessage) => void): http.ClientRequest => {
      if (this.#isClosed) throw new StoreUnavailableError(`${this.location} has been closed`);
      const request = (useTls ? https : http).request(options);
      this.#underWay.add(request);
      request.once('close', () => this.#underWay.delete(request));
      request.once('error', (error: NodeJS.ErrnoException) => {
        if (request.reusedSocket && error.code === 'ECONNRESET') this.#ofStaleConnections.add(error);
      });
      request.setTimeout(stallTimeoutMs, () =>
        request.destroy(new TransientStoreError(`${this.location} sent nothing for ${stallTimeoutMs} ms`)),
      );
      // minio never reads the body of these, which would keep their connection for ever.
      request.once('response', (response) => {
        const status = response.statusCode ?? 0;
        if (!PASSING_STATUSES.includes(status)) return callback(response);
        const retryAfterMs = parseRetryAfter(response.headers['retry-after']);
        const details = { status };
        request.destroy(new TransientStoreError(`the server failed (${status})`, { details, retryAfterMs }));
      });
      return request;
    };
    return send as typeof http.request;
  }

  #toStoreError(error: unknown, what: string): Error {
    const where = `${what} at ${this.location}`;
    if (error instanceof TransientStoreError) {
      const { retryAfterMs, details } = error;
      return new TransientStoreError(`${where}: ${error.message}`, { retryAfterMs, details, cause: error });
    }
    if (error instanceof KlosetNbdError) return error;
    if (error instanceof Error && error.cause instanceof TransientStoreError) return error.cause;
    if (!(error instanceof S3Error)) {
      const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
      return new TransientStoreError(`${where} cannot be reached (${reason})`, { cause: error, details: { reason } });
    }
    const code = error.code ?? 'an unknown error';
    const extras = { details: { code }, cause: error };
    if (MISSING_CODES.includes(code)) return new MissingResourceError(`${where}: the store does not hold it`, extras);
    if (code === 'InvalidRange') return new CorruptStoreError(`${what}: it ends before the range asked for`, extras);
    if (EXPIRED_CODES.includes(code) && 'credentialsProvider' in this.#access) {
      this.#access.credentialsProvider.forget();
      return new TransientStoreError(`${where}: the role's keys have expired`, extras);
    }
    if (PASSING_CODES.includes(code)) return new TransientStoreError(`${where}: the server failed (${code})`, extras);
    return new StoreUnavailableError(`${where}: the server refuses it (${code})`, extras);
  }
}

function keyOf(kind: ResourceKind, id: string): string {
  return `${kind}/${id.slice(0, 2)}/${id}`;
}

/** The key itself goes along with every request (SSE-C): over TLS only, which the server sees to. */
function customerHeaders(key: Buffer | undefined): Record<string, string> {
  if (key === undefined) return {};
  return {
    'x-amz-server-side-encryption-customer-algorithm': 'AES256',
    'x-amz-server-side-encryption-customer-key': key.toString('base64'),
    'x-amz-server-side-encryption-customer-key-md5': createHash('md5').update(key).digest('base64'),
  };
}

/** minio's requests know no signals: an answer that comes after the stop is thrown away unread. */
function orStopped(asking: Promise<IncomingMessage>, signal: AbortSignal | undefined, what: string) {
  if (signal === undefined) return asking;
  return new Promise<IncomingMessage>((resolve, reject) => {
    const stop = () => reject(stopReason(signal, what));
    signal.addEventListener('abort', stop, { once: true });
    asking
      .then((response) => {
        if (signal.aborted) response.destroy();
        else resolve(response);
      }, reject)
      .finally(() => signal.removeEventListener('abort', stop));
  });
}

function fillStoppable(response: IncomingMessage, target: Uint8Array, what: string, options: ReadOptions) {
  return stoppable(response, options, what, fillFromBody(response, target, { what, slackBytes: 0 }));
}

/** `reading` of the body, ended by the signal. */
async function stoppable<T>(
  response: IncomingMessage,
  { signal }: ReadOptions,
  what: string,
  reading: Promise<T>,
): Promise<T> {
  if (signal === undefined) return reading;
  const stop = () => response.destroy(stopReason(signal, what));
  signal.addEventListener('abort', stop, { once: true });
  try {
    return await reading;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function stopReason(signal: AbortSignal | undefined, what: string): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof KlosetNbdError ? reason : new StoreUnavailableError(`${what}: the read was stopped`);
}
