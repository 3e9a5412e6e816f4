/**
 * Entry of the process beside plakar: in a network namespace (or not, see RelayOrders) it keeps `plakar server` running
 * on loopback and hands GET requests from a Unix socket to it, nothing else: that server takes PUT from anyone. The file
 * system is shared, so the socket is reached from outside while the port is not.
 *
 * It ends when its standard input does, which happens however its parent ends. In a PID namespace it is the first
 * process: when it ends, for whatever reason, the kernel kills everything beside it.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import {
  LAST_WORDS_BYTES_MAX,
  LISTEN_WAIT_MS_MAX,
  NETWORK_WAIT_MS_MAX,
  POLL_MS,
  RESTART_FORGIVEN_MS,
  RESTART_MS_FIRST,
  RESTART_MS_MAX,
} from './limits.ts';
import type { RelayEvent, RelayOrders } from './messages.ts';

const run = promisify(execFile);
const orders = JSON.parse(process.argv[2] ?? '{}') as RelayOrders;
/** In a namespace of its own every port is free: plakar's own default. */
let port = 9876;
let plakar: ChildProcess | undefined;

function tell(event: RelayEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function end(exitCode: number): never {
  plakar?.kill('SIGKILL');
  rmSync(orders.directory, { recursive: true, force: true });
  process.exit(exitCode);
}

/** Loopback, an address, names: what plakar needs before it starts. */
async function prepareNetwork(): Promise<void> {
  if (orders.network === 'host') {
    port = await freePort();
    return;
  }
  if (orders.network === 'none') {
    await run('ip', ['link', 'set', 'lo', 'up']);
    return;
  }
  const isUp = () => Object.values(networkInterfaces()).some((all) => all?.some(({ internal }) => !internal));
  for (const until = Date.now() + NETWORK_WAIT_MS_MAX; !isUp(); await sleep(POLL_MS)) {
    if (Date.now() > until) throw new Error(`the namespace has no network after ${NETWORK_WAIT_MS_MAX} ms`);
  }
  if (orders.nameserver !== undefined) await useNameserver(orders.nameserver);
}

/** The host's own nameserver may be one on its loopback, which is another one in here. */
async function useNameserver(address: string): Promise<void> {
  const hosts = realpathSync('/etc/resolv.conf');
  const others = readFileSync(hosts, 'utf8')
    .split('\n')
    .filter((line) => !line.startsWith('nameserver'));
  const file = join(orders.directory, 'resolv.conf');
  writeFileSync(file, [`nameserver ${address}`, ...others].join('\n'));
  await run('mount', ['--bind', file, hosts]);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port: free } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return free;
}

/** Runs plakar again and again. Never resolves. */
async function keepServing(): Promise<never> {
  for (let pauseMs = RESTART_MS_FIRST; ; pauseMs = Math.min(2 * pauseMs, RESTART_MS_MAX)) {
    const startedAtMs = performance.now();
    const { why, lastWords } = await serveOnce();
    if (performance.now() - startedAtMs > RESTART_FORGIVEN_MS) pauseMs = RESTART_MS_FIRST;
    tell({ event: 'ended', why, lastWords, againInMs: pauseMs });
    await sleep(pauseMs);
  }
}

/** Starts plakar and resolves when it has ended. */
async function serveOnce(): Promise<{ why: string; lastWords: string }> {
  const [command = '', ...words] = orders.plakar;
  // Where there is no PID namespace, plakar must not outlive us either.
  const all = ['--pdeathsig', 'KILL', '--', command, ...words, '-listen', `127.0.0.1:${port}`];
  const child = spawn('setpriv', all, { stdio: ['ignore', 'pipe', 'pipe'] });
  plakar = child;
  let lastWords = '';
  const keep = (piece: Buffer) => {
    lastWords = (lastWords + piece.toString()).slice(-LAST_WORDS_BYTES_MAX);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  const hasEnded = ended.then(() => 'ended' as const);
  const until = Date.now() + LISTEN_WAIT_MS_MAX;
  while ((await Promise.race([hasEnded, accepts()])) === false) {
    if (Date.now() > until) child.kill('SIGKILL');
    await sleep(POLL_MS);
  }
  if (child.exitCode === null && child.signalCode === null) tell({ event: 'serving' });
  return { why: await ended, lastWords };
}

function accepts(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

const agent = new http.Agent({ keepAlive: true });

/** Only what a reader asks for goes through. What fails in plakar looks like a connection that broke. */
function relay(request: IncomingMessage, response: ServerResponse): void {
  const { method, url: path = '/', headers } = request;
  if (method !== 'GET') return void response.writeHead(405).end('only GET goes through here\n');
  const range = headers.range === undefined ? {} : { range: headers.range };
  const upstream = http.request({ host: '127.0.0.1', port, path, agent, headers: range });
  upstream.once('response', (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    pipeline(answer, response, () => undefined);
  });
  upstream.once('error', () => response.destroy());
  response.once('close', () => upstream.destroy());
  upstream.end();
}

async function main(): Promise<void> {
  process.stdin
    .on('end', () => end(0))
    .on('error', () => end(0))
    .resume();
  // Whoever reads it may be gone; the end of the input follows.
  process.stdout.on('error', () => undefined);
  tell({ event: 'hello' });
  await prepareNetwork();
  process.umask(0o177);
  const server = http.createServer(relay);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(orders.socketPath, resolve);
  });
  process.umask(0o077);
  await keepServing();
}

main().catch((error: Error) => {
  tell({ event: 'failed', why: error.message.split('\n')[0] ?? '' });
  // The line must be out before the process is.
  process.stdout.write('', () => end(1));
});
