/**
 * GET and HEAD over HTTP or HTTPS, and nothing else: a `plakar server` takes PUT from anyone. Connections are kept and
 * bounded; a request that moves no byte for a while is given up; every failure becomes an error that says whether
 * trying again can help. Redirects are refused by name: the range rules of 2.3 hold for one server, not for another.
 */
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { CorruptStoreError, StoreUnavailableError } from '../core/errors.ts';
import { ERROR_TEXT_BYTES_MAX } from './fetch-limits.ts';
import { MissingResourceError, TransientStoreError } from './remote-store.ts';

export interface HttpClientOptions {
  /** `http:` or `https:`. User and password in it are sent, and named in no message; so is its query. */
  readonly url: URL;
  /** The Unix socket that the server listens on, instead of the URL's host and port. */
  readonly socketPath?: string | undefined;
  /** How messages name the store; the URL, if nothing is given. */
  readonly name?: string | undefined;
  /** Sent as `Authorization: Bearer …`. */
  readonly authToken?: string | undefined;
  /** False accepts any certificate. */
  readonly verifyCertificate: boolean;
  /** Connections at once; further requests wait. */
  readonly connectionsMax: number;
  /** Milliseconds without a byte after which a request is given up. */
  readonly stallTimeoutMs: number;
}

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD';
  /** Joined to the path of the client's URL; empty for that URL itself, query included. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** What is being read, for messages. */
  readonly what: string;
}

export class HttpClient {
  /** Without user, password and query. */
  readonly location: string;
  readonly #options: HttpClientOptions;
  readonly #agent: http.Agent;
  readonly #underWay = new Set<http.ClientRequest>();
  #isClosed = false;

  constructor(options: HttpClientOptions) {
    const { url, connectionsMax, verifyCertificate, name } = options;
    this.#options = options;
    this.location = name ?? `${url.origin}${url.pathname}`;
    // First in, first out: under LIFO the connections at the back idle until the server closes them under a request.
    const pool = { keepAlive: true, maxSockets: connectionsMax, scheduling: 'fifo' } as const;
    this.#agent =
      url.protocol === 'https:'
        ? new https.Agent({ ...pool, rejectUnauthorized: verifyCertificate })
        : new http.Agent(pool);
  }

  /**
   * Resolves once the headers of a 2xx answer are there; its body is the caller's to read to the end or destroy.
   * Rejects with MissingResourceError (404, and what `plakar server` says instead), TransientStoreError,
   * CorruptStoreError (416) or StoreUnavailableError.
   */
  async request(request: HttpRequest): Promise<IncomingMessage> {
    const response = await this.#send(request);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) {
      const encoding = response.headers['content-encoding'] ?? 'identity';
      if (encoding === 'identity') return response;
      response.destroy();
      throw new StoreUnavailableError(`${request.what}: ${this.location} sends it in encoding ${encoding}, unasked`);
    }
    const text = request.method === 'HEAD' ? '' : await errorText(response);
    throw statusError(response, text, `${request.what} at ${this.location}`);
  }

  /** Stops what is under way; later requests reject. */
  close(): void {
    this.#isClosed = true;
    for (const request of this.#underWay) request.destroy(new StoreUnavailableError(`${this.location} was closed`));
    this.#agent.destroy();
  }

  #send(asked: HttpRequest): Promise<IncomingMessage> {
    const { method, path, headers, signal, what } = asked;
    const { url, socketPath, authToken, stallTimeoutMs } = this.#options;
    const target = path === '' ? url : new URL(url.pathname.replace(/\/*$/, '') + path, url);
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#isClosed) throw new StoreUnavailableError(`${what}: ${this.location} has been closed`);
      const authorization = authToken === undefined ? {} : { authorization: `Bearer ${authToken}` };
      const request = (url.protocol === 'https:' ? https : http).request(target, {
        method,
        agent: this.#agent,
        ...(signal === undefined ? {} : { signal }),
        ...(socketPath === undefined ? {} : { socketPath }),
        headers: { 'accept-encoding': 'identity', ...authorization, ...headers },
      });
      request.setTimeout(stallTimeoutMs, () => {
        request.destroy(new TransientStoreError(`${what}: ${this.location} sent nothing for ${stallTimeoutMs} ms`));
      });
      this.#underWay.add(request);
      request.once('close', () => this.#underWay.delete(request));
      request.once('response', resolve);
      // Stays for the request's whole life: a reset after the answer began is emitted here as well as on the answer.
      request.on('error', (error: NodeJS.ErrnoException) => {
        // A kept connection that the server closed meanwhile says nothing about the server. The next one may be as stale:
        // this ends with a fresh one.
        if (request.reusedSocket && error.code === 'ECONNRESET') resolve(this.#send(asked));
        else reject(networkError(error, `${what} at ${this.location}`));
      });
      request.end();
    });
  }
}

/** Fills `target` with the first bytes of the body. Resolves to the bytes that came in all, at most `slackBytes` more. */
export async function fillFromBody(
  response: IncomingMessage,
  target: Uint8Array,
  { what, slackBytes }: { readonly what: string; readonly slackBytes: number },
): Promise<number> {
  let received = 0;
  await receive(response, what, (piece) => {
    if (received < target.byteLength) target.set(piece.subarray(0, target.byteLength - received), received);
    received += piece.byteLength;
    if (received > target.byteLength + slackBytes) {
      throw new StoreUnavailableError(
        `${what}: the server sends more than was asked for: it, or a proxy before it, ignores ranges`,
      );
    }
  });
  return received;
}

/** The whole body, at most `bytesMax`; beyond that rejects with CorruptStoreError before it is held. */
export async function readBody(
  response: IncomingMessage,
  { what, bytesMax }: { readonly what: string; readonly bytesMax: number },
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let received = 0;
  await receive(response, what, (piece) => {
    received += piece.byteLength;
    if (received > bytesMax) throw new CorruptStoreError(`${what} has more than the ${bytesMax} bytes allowed`);
    pieces.push(piece);
  });
  return Buffer.concat(pieces, received);
}

/** Hands the body to `take` piece by piece; not once more after it has settled. Rejects if the body breaks off. */
export function receive(response: IncomingMessage, what: string, take: (piece: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let settled = false;
    const fail = (error: unknown) => {
      if (settled) return;
      settled = true;
      response.destroy();
      reject(error);
    };
    const brokeOff = (cause?: unknown) =>
      fail(new TransientStoreError(`${what}: the answer broke off before its end`, { cause }));
    response.on('data', (piece: Buffer) => {
      if (settled) return;
      try {
        take(piece);
      } catch (error) {
        fail(error);
      }
    });
    response.on('end', () => {
      if (!response.complete) return brokeOff();
      settled = true;
      resolve();
    });
    response.on('error', (error) => (error instanceof StoreUnavailableError ? fail(error) : brokeOff(error)));
    response.on('close', () => brokeOff());
  });
}

/** The first line of what the server says, for people; a reason not to be had is not worth another error. */
async function errorText(response: IncomingMessage): Promise<string> {
  const text = await readBody(response, { what: 'the answer', bytesMax: ERROR_TEXT_BYTES_MAX }).catch(() => undefined);
  return (text?.toString().split('\n')[0] ?? '').replace(/[^\x20-\x7e]/g, '?').slice(0, 200);
}

/** Statuses that say "not now": time-outs, throttling, and errors that servers and proxies recover from. */
const PASSING_STATUSES: readonly number[] = [408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524];

/** `plakar server` answers 500 for what is missing too; only the text tells (kloset-format 2.3). */
const MISSING_PATTERN = /not found|no such file|does not exist|no such key/i;

function statusError(response: IncomingMessage, text: string, what: string): Error {
  const status = response.statusCode ?? 0;
  const answer = text === '' ? `${status}` : `${status}, "${text}"`;
  const details = { status };
  if (status === 404 || status === 410 || (status === 500 && MISSING_PATTERN.test(text))) {
    return new MissingResourceError(`${what}: the store does not hold it (${answer})`, { details });
  }
  if (status === 416) return new CorruptStoreError(`${what}: it ends before the range asked for`, { details });
  if (PASSING_STATUSES.includes(status)) {
    const retryAfterMs = parseRetryAfter(response.headers['retry-after']);
    return new TransientStoreError(`${what}: the server failed (${answer})`, { details, retryAfterMs });
  }
  if (status === 401 || status === 403 || status === 407) {
    return new StoreUnavailableError(`${what}: access is refused (${answer})`, { details });
  }
  if (status >= 300 && status < 400) {
    return new StoreUnavailableError(`${what}: the server redirects elsewhere (${status}); give that address instead`, {
      details,
    });
  }
  return new StoreUnavailableError(`${what}: the server answers ${answer}`, { details });
}

/** Milliseconds from `Retry-After` in seconds; its other form, a date, needs clocks that agree. */
export function parseRetryAfter(value: string | undefined): number | undefined {
  return value !== undefined && /^\d{1,6}$/.test(value) ? Number(value) * 1000 : undefined;
}

function networkError(error: NodeJS.ErrnoException, what: string): Error {
  if (error instanceof StoreUnavailableError) return error;
  if (error.name === 'AbortError') {
    // Whoever stopped it may have said why, and whether another attempt makes sense.
    if (error.cause instanceof StoreUnavailableError) return error.cause;
    return new StoreUnavailableError(`${what}: the read was stopped`, { cause: error });
  }
  const reason = error.code ?? error.message;
  return isCertificateProblem(reason)
    ? new StoreUnavailableError(`${what}: its certificate is not accepted (${reason})`, { cause: error })
    : new TransientStoreError(`${what} cannot be reached (${reason})`, { cause: error, details: { reason } });
}

function isCertificateProblem(code: string): boolean {
  return /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code);
}

/** Whether a failure says that nothing is there at all, rather than that something is in trouble: for the first contact. */
export function meansNobodyThere(error: unknown): boolean {
  if (!(error instanceof StoreUnavailableError)) return false;
  if (!(error instanceof TransientStoreError)) return true;
  return /^(ENOTFOUND|ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|EPROTO|ERR_SSL|HPE_)/.test(`${error.details.reason}`);
}
