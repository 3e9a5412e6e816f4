/**
 * Sockets that read into one buffer, again and again. By themselves Node's sockets allocate 64 KiB for each read: under
 * large writes, collecting those took as much time as all the rest of a write.
 */
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { KiB } from '../core/units.ts';

/** What one read may bring: more than a Unix socket holds, and it stays in a core's second-level cache. */
export const RECEIVE_BYTES = 256 * KiB;

/** What Node's types leave out: a socket's side in the system, and that a socket can be made of one. */
interface WithHandle {
  _handle: object | null | undefined;
}
interface SocketOptions extends SocketConstructorOpts, ConnectOpts {
  readonly handle: object;
}

/**
 * The connection of `accepted`, which has not begun to read (`pauseOnConnect`) and is of no use afterwards, as a socket
 * that reads into `buffer`. Each `data` event carries a view of it that is valid until its handlers return: so all
 * sockets of a thread share one. Only a new socket can be told to do so, and net.Server makes its own, hence the detour;
 * a Node that keeps its handles elsewhere gets its own socket back.
 */
export function readingInto(accepted: Socket, buffer: Buffer): Socket {
  const source = accepted as unknown as WithHandle;
  const handle = source._handle;
  if (handle === null || handle === undefined) return accepted.resume();
  source._handle = null;
  const options: SocketOptions = {
    handle,
    allowHalfOpen: accepted.allowHalfOpen,
    onread: {
      buffer,
      callback(bytes) {
        socket.emit('data', buffer.subarray(0, bytes));
        return true;
      },
    },
  };
  const socket = new Socket(options);
  return socket;
}
