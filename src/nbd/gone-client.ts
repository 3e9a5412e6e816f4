import type { Socket } from 'node:net';

/** Between two looks, milliseconds: what is read for nobody goes on for that long. */
const PROBE_MS = 1_000;

const nothing = Buffer.alloc(0);

/**
 * Closes a socket whose client has closed it, while there is work for that client. Reading does not tell: a client that has
 * ended its side may still wait for replies, and one with much in flight is not read from. Writing nothing costs nothing
 * and fails, which closes the socket, once the system knows that nobody reads: on a Unix socket at once, over TCP when the
 * client's system has answered a reply, or the keep-alive, with a reset.
 */
export function closeWhenClientIsGone(socket: Socket, hasWork: () => boolean): void {
  const probe = () => {
    // Replies that wait to be written find out by themselves.
    if (hasWork() && socket.writable && socket.writableLength === 0) socket.write(nothing);
  };
  const timer = setInterval(probe, PROBE_MS);
  socket.once('end', probe);
  socket.once('close', () => clearInterval(timer));
}
