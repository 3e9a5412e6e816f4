/** Where clients connect: TCP ports, Unix sockets, and sockets of either kind that somebody else has opened. */
import { existsSync, fstatSync, readFileSync, readlinkSync } from 'node:fs';
import { lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, Socket } from 'node:net';
import { dirname } from 'node:path';
import { UserError } from '../core/errors.ts';
import { isLoopback } from './addresses.ts';
import type { Transport } from './doorkeeper.ts';
import { readingInto } from './receive-buffer.ts';

/** `fd`: a socket that listens already. */
export type ListenAddress =
  | { readonly host: string; readonly port: number }
  | { readonly path: string }
  | { readonly fd: number };

export interface ListenOptions {
  /** Clients get nothing without TLS, so the URI says so. */
  readonly tlsRequired: boolean;
  /** What all sockets read into: see receive-buffer.ts. Default: a fresh buffer for each read. */
  readonly receiveBuffer?: Buffer;
  accept(socket: Socket, via: Transport): void;
}

/** A place where clients can connect. */
export interface Listening {
  /** How clients name it: `nbd://127.0.0.1:10809/` or `nbd+unix:///?socket=PATH`, with `nbds` where TLS is required. */
  readonly uri: string;
  readonly transport: Transport;
  /** Other machines may connect. */
  readonly isExposed: boolean;
}

export interface Listener extends Listening {
  /** Stops accepting; connections live on. Removes a Unix socket's file. */
  close(): void;
}

/** Longest path of a Unix socket, bytes: sun_path of unix(7) has 108, the last one 0. A longer one would be cut silently. */
const SOCKET_PATH_BYTES_MAX = 107;
/** Seconds of silence after which TCP asks whether the client's machine still lives: one that lost power must not stay the writer for hours. */
const KEEP_ALIVE_MS = 60_000;
/** Access for the owner alone. */
const PRIVATE_UMASK = 0o177;

/**
 * Listens and hands over each connection. Port 0 takes any that is free. Rejects with UserError if it cannot: in use,
 * not allowed, no such directory. A socket file that nobody answers on is left over from a crash and replaced.
 */
export async function listen(
  address: ListenAddress,
  { tlsRequired, receiveBuffer, accept }: ListenOptions,
): Promise<Listener> {
  let transport: Transport = 'path' in address ? 'unix' : 'tcp';
  const keepAlive = { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS };
  const options = { allowHalfOpen: true, noDelay: true, pauseOnConnect: receiveBuffer !== undefined, ...keepAlive };
  const server = createServer(options, (socket) => {
    accept(receiveBuffer === undefined ? socket : readingInto(socket, receiveBuffer), transport);
  });
  if ('path' in address) await listenOnPath(server, address.path);
  else if ('fd' in address) await listenOnDescriptor(server, address.fd);
  else await listenOnPort(server, address);
  const scheme = tlsRequired ? 'nbds' : 'nbd';
  const bound = server.address();
  const close = () => void server.close();
  if (typeof bound !== 'object' || bound === null) {
    transport = 'unix';
    const path = 'fd' in address ? pathOfDescriptor(address.fd) : (bound ?? '');
    return { uri: `${scheme}+unix:///?socket=${encodePath(path)}`, transport, isExposed: false, close };
  }
  const host = 'host' in address ? address.host : bound.address;
  const uri = `${scheme}://${host.includes(':') ? `[${host}]` : host}:${bound.port}/`;
  return { uri, transport, isExposed: !isLoopback(bound.address), close };
}

async function listenOnDescriptor(server: Server, fd: number): Promise<void> {
  try {
    await listening(server, () => server.listen({ fd }));
  } catch (error) {
    throw explain(error, `descriptor ${fd}`, 'give each listening socket to one program only');
  }
}

/** The path of a Unix socket that somebody else has bound; a name in place of one that cannot be found out. */
function pathOfDescriptor(fd: number): string {
  try {
    const inode = /\d+/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[0];
    const line = readFileSync('/proc/self/net/unix', 'latin1')
      .split('\n')
      .find((candidate) => candidate.split(/\s+/)[6] === inode);
    const path = /^(?:\S+\s+){7}(.+)$/.exec(line ?? '')?.[1];
    if (path !== undefined) return Buffer.from(path, 'latin1').toString();
  } catch (error) {
    // Only Linux has /proc: without it the clients' way in has to be known from elsewhere.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
  }
  return `descriptor ${fd}`;
}

/** A connection that somebody else has accepted, on a descriptor that this process was started with. Throws UserError. */
export function openConnection(fd: number): Socket {
  try {
    if (fstatSync(fd).isSocket()) {
      const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
      return socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
    }
  } catch (error) {
    throw new UserError(`descriptor ${fd} cannot be used (${(error as NodeJS.ErrnoException).code}): is it open?`, {
      cause: error,
    });
  }
  throw new UserError(`descriptor ${fd} is no socket: it must be a connection that a client has made`);
}

async function listenOnPort(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  try {
    await listening(server, () => server.listen({ host, port }));
  } catch (error) {
    throw explain(
      error,
      `port ${port} of ${host}`,
      'stop the program that has it, or choose another port (0 takes a free one)',
    );
  }
}

async function listenOnPath(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new UserError(
      `the socket path ${path} has more than ${SOCKET_PATH_BYTES_MAX} bytes, which Unix sockets cannot have: choose a shorter one`,
    );
  }
  // Asked beforehand: bind(2)'s ENOENT reaches us as EACCES.
  if (!existsSync(dirname(path))) {
    throw new UserError(`the directory of the socket ${path} does not exist: create it first, or choose another path`);
  }
  const bind = () =>
    listening(server, () => {
      // The file is made within listen(), synchronously: it never exists with wider rights.
      const before = process.umask(PRIVATE_UMASK);
      try {
        server.listen({ path });
      } finally {
        process.umask(before);
      }
    });
  const advice = 'stop the program that has it, or choose another path';
  try {
    await bind();
  } catch (error) {
    if (!(await isStale(error, path))) throw explain(error, `the socket ${path}`, advice);
    await unlink(path);
    await bind().catch((again) => {
      throw explain(again, `the socket ${path}`, advice);
    });
  }
}

/** Resolves when `start`ed listening has begun, rejects if it fails. */
function listening(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    start();
  });
}

/** Whether the address is taken by a socket file that nobody answers on. */
async function isStale(error: unknown, path: string): Promise<boolean> {
  if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return false;
  if (!(await lstat(path)).isSocket()) return false;
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (refused: NodeJS.ErrnoException) => resolve(refused.code === 'ECONNREFUSED'));
  });
}

function explain(error: unknown, what: string, advice: string): UserError {
  const { code } = error as NodeJS.ErrnoException;
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: `${what} is in use: ${advice}`,
    EACCES: `${what} is not ours to use: run as a user who may, or choose another`,
    EADDRNOTAVAIL: `${what}: this machine does not have that address`,
    ENOTFOUND: `${what}: there is no such host`,
  };
  const message =
    reasons[code ?? ''] ?? `cannot listen on ${what}: ${error instanceof Error ? error.message : String(error)}`;
  return new UserError(message, { cause: error });
}

/** The path as a URI's query takes it; slashes stay readable. */
function encodePath(path: string): string {
  return encodeURIComponent(path).replaceAll('%2F', '/');
}
