/** A proxy before a web server that fails as networks do: every few requests in another way, or on demand altogether. */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { Cleanup } from './fixtures.ts';
import { startTestServer } from './plakar-server-double.ts';

export type ProxyFault = 'none' | '503' | 'reset' | 'stall' | 'short body';

export interface FaultProxy {
  readonly url: string;
  /** How often each was done. */
  readonly done: Map<ProxyFault, number>;
  /** Chooses what happens to the next requests; undefined: every few another fault. */
  always: ProxyFault | undefined;
  /** Milliseconds that every answer is held back. */
  latencyMs: number;
}

/** These in turn, and one stall for each sixteenth of them; a stall lasts until the client gives up. */
const FAULTS = ['503', 'reset', 'short body'] as const;
/** Requests for each fault. */
const FAULT_EVERY = 4;

/** Forwards to `upstream` (`http://HOST:PORT`), with faults. */
export async function startFaultProxy(cleanup: Cleanup, upstream: string): Promise<FaultProxy> {
  let requests = 0;
  const draw = (): ProxyFault => {
    if (++requests % FAULT_EVERY > 0) return 'none';
    const fault = requests / FAULT_EVERY;
    return fault % 16 === 4 ? 'stall' : FAULTS[fault % FAULTS.length]!;
  };
  const server = await startTestServer(cleanup, (request, response) => {
    const fault = proxy.always ?? draw();
    proxy.done.set(fault, (proxy.done.get(fault) ?? 0) + 1);
    setTimeout(() => answer(request, response, { fault, upstream }), proxy.latencyMs);
  });
  const proxy: FaultProxy = { url: server.url, done: new Map(), always: 'none', latencyMs: 0 };
  return proxy;
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { fault, upstream }: { fault: ProxyFault; upstream: string },
): void {
  if (fault === 'stall') return;
  if (fault === 'reset') return void request.socket.destroy();
  if (fault === '503') return void response.writeHead(503).end('try again');
  const { range } = request.headers;
  const forwarded = http.get(
    `${upstream}${request.url}`,
    { headers: range === undefined ? {} : { range } },
    (answered) => {
      const parts: Buffer[] = [];
      answered.on('data', (part: Buffer) => parts.push(part));
      answered.on('end', () => {
        const body = Buffer.concat(parts);
        response.writeHead(answered.statusCode!, {
          'content-type': answered.headers['content-type'],
          'content-length': body.length,
        });
        if (fault === 'none') return void response.end(body);
        response.write(body.subarray(0, body.length >> 1), () => request.socket.destroy());
      });
    },
  );
  forwarded.on('error', () => request.socket.destroy());
}
