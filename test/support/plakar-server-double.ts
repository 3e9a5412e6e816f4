/** Web servers to read stores from, in this process: `plakar server` with its documented quirks, and an ordinary one. */
import { readdirSync, readFileSync } from 'node:fs';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Cleanup } from './fixtures.ts';

/** A server on loopback whose answers a test can bend. */
export interface TestServer {
  /** `http://127.0.0.1:PORT`, no slash at the end. */
  readonly url: string;
  readonly port: number;
  /** Every request that came, as `METHOD /path range`. */
  readonly requests: string[];
  /** Answers the next requests in its place, one each, before the server itself does; false leaves it to the server. */
  readonly interceptors: ((request: IncomingMessage, response: ServerResponse) => boolean)[];
  /** Most connections that were open at once. */
  readonly connectionsMost: number;
  close(): Promise<void>;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export async function startTestServer(cleanup: Cleanup, handle: Handler, port = 0): Promise<TestServer> {
  const requests: string[] = [];
  const interceptors: TestServer['interceptors'] = [];
  let connections = 0;
  let connectionsMost = 0;
  const server = http.createServer((request, response) => {
    requests.push([request.method, request.url, request.headers.range].filter(Boolean).join(' '));
    if (interceptors.shift()?.(request, response)) return;
    handle(request, response);
  });
  server.on('connection', (socket) => {
    connectionsMost = Math.max(connectionsMost, ++connections);
    socket.once('close', () => connections--);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  cleanup.add(close);
  const address = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${address.port}`,
    port: address.port,
    requests,
    interceptors,
    get connectionsMost() {
      return connectionsMost;
    },
    close,
  };
}

/**
 * `plakar server` before a directory store, as kloset-format 2.3 describes it; below `basePath` if there is a proxy.
 * Writing is refused here, where the real one would do it.
 */
export function startPlakarServerDouble(
  cleanup: Cleanup,
  directory: string,
  { basePath = '', authToken, port }: { basePath?: string; authToken?: string; port?: number } = {},
): Promise<TestServer> {
  let primed = false;
  const handle: Handler = (request, response) => {
    if (authToken !== undefined && request.headers.authorization !== `Bearer ${authToken}`) {
      return fail(response, 401, 'who are you');
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') return fail(response, 405, 'Method Not Allowed');
    const path = (request.url ?? '/').slice(basePath.length);
    const [, kind, id] = /^\/resources\/([^/]*)(?:\/([^/]*))?$/.exec(path) ?? [];
    if (kind === undefined) {
      primed = true;
      return send(response, readFileSync(join(directory, 'CONFIG')));
    }
    if (!['packfiles', 'states', 'locks'].includes(kind)) return fail(response, 400, 'invalid resource type');
    if (id === undefined) {
      if (!primed) return fail(response, 500, 'open : no such file or directory');
      response.setHeader('content-type', 'application/json');
      return void response.end(`${JSON.stringify(listDirectory(directory, kind))}\n`);
    }
    if (!/^[0-9a-f]{64}$/i.test(id)) return fail(response, 400, 'invalid MAC');
    const range = parseExclusiveRange(request.headers.range);
    if (range === 'invalid') return fail(response, 400, 'invalid range');
    const resource = primed ? readOrNothing(join(directory, kind, id.slice(0, 2), id)) : undefined;
    if (resource === undefined) return fail(response, 500, missingText(kind, id));
    // A range counts for packfiles only; one beyond the end gives what there is.
    send(response, range === undefined || kind !== 'packfiles' ? resource : resource.subarray(range.from, range.to));
  };
  return startTestServer(cleanup, handle, port);
}

/** An ordinary web server with one file at every path: inclusive ranges, HEAD, a strong ETag. */
export function startFileServer(
  cleanup: Cleanup,
  file: string,
  { ignoresRanges = false }: { ignoresRanges?: boolean } = {},
): Promise<TestServer> {
  const content = readFileSync(file);
  return startTestServer(cleanup, (request, response) => {
    response.setHeader('etag', `"${content.length}"`);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    if (request.method === 'HEAD') {
      response.setHeader('content-length', content.length);
      return void response.end();
    }
    if (first === undefined || ignoresRanges) return send(response, content);
    if (Number(first) >= content.length) return fail(response, 416, 'Range Not Satisfiable');
    const end = Math.min(Number(last), content.length - 1);
    response.writeHead(206, { 'content-range': `bytes ${first}-${end}/${content.length}` });
    response.end(content.subarray(Number(first), end + 1));
  });
}

function send(response: ServerResponse, body: Buffer): void {
  response.setHeader('content-type', 'application/octet-stream');
  // In one write without a length: Go's server then sends anything above 2 KiB in chunks.
  if (body.length <= 2048) response.setHeader('content-length', body.length);
  response.write(body);
  response.end();
}

function fail(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(`${text}\n`);
}

function missingText(kind: string, id: string): string {
  return kind === 'packfiles' ? 'packfile not found' : `open ${id.slice(0, 2)}/${id}: no such file or directory`;
}

/** Only `bytes=A-B` with A < B; B is the first byte not wanted. */
function parseExclusiveRange(header: string | undefined): { from: number; to: number } | 'invalid' | undefined {
  if (header === undefined) return undefined;
  const match = /^bytes=(\d+)-(\d+)$/.exec(header);
  if (match === null || Number(match[2]) <= Number(match[1])) return 'invalid';
  return { from: Number(match[1]), to: Number(match[2]) };
}

/** Null for none, as Go encodes a list that was never filled. */
function listDirectory(directory: string, kind: string): string[] | null {
  const root = join(directory, kind);
  const buckets = readOrNothingOf(() => readdirSync(root)) ?? [];
  const ids = buckets.flatMap((bucket) => readOrNothingOf(() => readdirSync(join(root, bucket))) ?? []);
  return ids.length === 0 ? null : ids.filter((id) => /^[0-9a-f]{64}$/.test(id)).reverse();
}

function readOrNothing(file: string): Buffer | undefined {
  return readOrNothingOf(() => readFileSync(file));
}

function readOrNothingOf<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
