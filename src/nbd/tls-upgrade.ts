/**
 * From a socket in clear to its encrypted self, on the server's side.
 *
 * Each connection has a `tls.Server` of its own, which never listens: it is Node's only public way to have a client's
 * certificate verified and to know which connection an outcome belongs to. It costs 1 ms and 40 KiB a connection, and
 * as nothing is shared, no session is resumed: every client proves itself anew, to the credentials of today.
 */
import type { Socket } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';

export interface UpgradeOutcome {
  /** Bytes, reads and writes go through `socket` from now on. Called in the turn in which the handshake is done. */
  established(socket: TLSSocket): void;
  /** The socket is closed, or about to be. */
  failed(reason: string): void;
}

/**
 * Begins the TLS handshake on a socket that nobody reads from any more. `received` came behind the request for TLS:
 * it is part of that handshake, whatever it is, and never an option. Ends by one call of `outcome`, except if the socket
 * is destroyed meanwhile by the caller, who keeps the time.
 */
export function upgradeToTls(socket: Socket, options: TlsOptions, received: Buffer, outcome: UpgradeOutcome): void {
  // One that shuts down its side before the handshake is done has failed; afterwards it may, and still gets its replies.
  const { allowHalfOpen } = socket;
  socket.allowHalfOpen = false;
  if (received.length > 0) socket.unshift(received);
  const server = createServer(options);
  server.once('secureConnection', (secured: TLSSocket) => {
    secured.allowHalfOpen = allowHalfOpen;
    outcome.established(secured);
  });
  server.once('tlsClientError', (error, failed) => {
    outcome.failed(explain(error, failed));
    failed.destroy();
  });
  server.emit('connection', socket);
}

function explain(error: NodeJS.ErrnoException, { authorizationError }: TLSSocket): string {
  // Node's types say Error; it is OpenSSL's name of what is wrong with the client's certificate.
  if (authorizationError !== null && authorizationError !== undefined) {
    return `the client's certificate was refused: ${String(authorizationError)}`;
  }
  if (error.code === 'ECONNRESET') return 'the client closed the connection';
  // "80AC087A917F0000:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../deps/...:354:\n"
  return /error:[0-9A-F]+:[^:]*:[^:]*:([^:]+)/.exec(error.message)?.[1] ?? error.message.trim();
}
