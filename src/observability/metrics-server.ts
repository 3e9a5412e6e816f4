/** `--metrics`: `/metrics` for Prometheus and `/healthz` for probes, over plain HTTP. Both only tell. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { UserError } from '../core/errors.ts';
import type { HealthReport } from '../core/health.ts';
import type { Log } from '../core/log.ts';

/** Connections at once: some scrapers and probes, each with one that it keeps. The next ones are closed at once. */
const CONNECTIONS_MAX = 32;
/** A request has to be there, and its answer to be taken, within so many milliseconds. */
const REQUEST_MS_MAX = 10_000;
/** Longer than the usual pause between two scrapes would keep places of clients that never come back. */
const KEEP_ALIVE_MS = 5_000;
/** How often connections that are too slow are looked for, milliseconds. */
const CHECK_EVERY_MS = 1_000;
/** Bytes of a request's headers: what scrapers send has some hundred. */
const HEADER_BYTES_MAX = 8 * 1024;

export interface MetricsServerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly registry: Registry;
  readonly health: () => HealthReport;
  readonly log: Log;
}

export class MetricsServer {
  readonly #server: Server;
  /** `http://127.0.0.1:9100/`. */
  readonly uri: string;

  private constructor(server: Server) {
    this.#server = server;
    const { address, family, port } = server.address() as AddressInfo;
    this.uri = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/`;
  }

  /** Rejects with UserError if the address cannot be had. */
  static async listen(options: MetricsServerOptions): Promise<MetricsServer> {
    const server = createServer({
      connectionsCheckingInterval: CHECK_EVERY_MS,
      requestTimeout: REQUEST_MS_MAX,
      headersTimeout: REQUEST_MS_MAX,
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: HEADER_BYTES_MAX,
    });
    server.maxConnections = CONNECTIONS_MAX;
    // A client that takes none of its answer is as slow as one that does not ask.
    server.setTimeout(REQUEST_MS_MAX, (socket) => socket.destroy());
    server.on('request', (request, response) => {
      answer(request, response, options).catch((error: unknown) => {
        options.log.error({ error: String(error) }, `The metrics could not be told: ${String(error)}`);
        response.destroy();
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(explain(error, options)));
      server.listen({ host: options.host, port: options.port }, resolve);
    });
    return new MetricsServer(server);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { registry, health }: MetricsServerOptions,
): Promise<void> {
  const path = request.url?.split('?', 1)[0];
  const isKnown = path === '/metrics' || path === '/healthz';
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    send(response, { status: 405, type: 'text/plain', body: 'GET and HEAD only\n', headers: { Allow: 'GET, HEAD' } });
  } else if (!isKnown) {
    send(response, { status: 404, type: 'text/plain', body: 'There are /metrics and /healthz.\n' });
  } else if (path === '/metrics') {
    send(response, { status: 200, type: registry.contentType, body: await registry.metrics() });
  } else {
    const report = health();
    const status = report.status === 'ok' ? 200 : 503;
    send(response, { status, type: 'application/json', body: `${JSON.stringify(report)}\n` });
  }
}

/** HEAD gets the same headers; Node leaves its body out. */
function send(
  response: ServerResponse,
  { status, type, body, headers }: { status: number; type: string; body: string; headers?: Record<string, string> },
): void {
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    ...headers,
  });
  response.end(body);
}

function explain(error: NodeJS.ErrnoException, { host, port }: MetricsServerOptions): UserError {
  const where = `--metrics ${host}:${port}`;
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: 'the port is in use: stop the program that has it, or choose another port (0 takes a free one)',
    EACCES: 'the port is not ours to use: run as a user who may, or choose one above 1023',
    EADDRNOTAVAIL: 'this machine does not have that address',
    ENOTFOUND: 'there is no such host',
  };
  return new UserError(`${where}: ${reasons[error.code ?? ''] ?? error.message}`, { cause: error });
}
