/** An NBD client that can misbehave in ways no ordinary one can: the few bytes of the handshake, and requests. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Cleanup } from '../support/fixtures.ts';

/** Magic numbers and codes of the NBD protocol's text, doc/proto.md. */
const IHAVEOPT = 0x49484156454f5054n;
const NBD_OPT_EXPORT_NAME = 1;
const CLIENT_FLAGS_FIXED_NO_ZEROES = 3;
const NBD_REQUEST_MAGIC = 0x25609513;
const NBD_CMD_READ = 0;
const GREETING_BYTES = 18;
/** Size and flags of the export: what answers NBD_OPT_EXPORT_NAME without the padding. */
const EXPORT_BYTES = 10;

/** Connects to the TCP listener of a server and leaves the conversation to the caller. */
export async function connectRaw(cleanup: Cleanup, uri: string): Promise<Socket> {
  const { hostname, port } = new URL(uri);
  const socket = connect({ host: hostname, port: Number(port) });
  // Being thrown out is what these tests are about: 'close' tells of it.
  socket.on('error', () => {});
  cleanup.add(() => socket.destroy());
  await once(socket, 'connect');
  return socket;
}

/** Bytes of client flags and an option as a client sends them. */
export function optionBytes(option: number, data: Buffer, claimedLength = data.length): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32BE(CLIENT_FLAGS_FIXED_NO_ZEROES, 0);
  bytes.writeBigUInt64BE(IHAVEOPT, 4);
  bytes.writeUInt32BE(option, 12);
  bytes.writeUInt32BE(claimedLength, 16);
  return Buffer.concat([bytes, data]);
}

/** Goes through the handshake to the transmission phase of an export, then stops reading from the socket. */
export async function attachRaw(cleanup: Cleanup, uri: string, exportName: string): Promise<Socket> {
  const socket = await connectRaw(cleanup, uri);
  await receive(socket, GREETING_BYTES);
  socket.write(optionBytes(NBD_OPT_EXPORT_NAME, Buffer.from(exportName)));
  await receive(socket, EXPORT_BYTES);
  return socket;
}

/** A READ request. */
export function readRequest(cookie: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(NBD_REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(NBD_CMD_READ, 6);
  bytes.writeBigUInt64BE(BigInt(cookie), 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** Reads exactly `length` bytes; leaves the socket paused. Rejects if it ends before. */
export async function receive(socket: Socket, length: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let missing = length; missing > 0; ) {
    // All there is: whoever waits for more beside a part is called at once, and again, and nothing more ever comes.
    const piece: Buffer | null = socket.read(Math.min(missing, Math.max(1, socket.readableLength)));
    if (piece !== null) {
      pieces.push(piece);
      missing -= piece.length;
      continue;
    }
    if (socket.readableEnded || socket.destroyed) throw new Error('the server closed the connection');
    await pieceOrEnd(socket);
  }
  return Buffer.concat(pieces);
}

async function pieceOrEnd(socket: Socket): Promise<void> {
  const looking = new AbortController();
  const { signal } = looking;
  await Promise.race([once(socket, 'readable', { signal }), once(socket, 'close', { signal })]);
  // The other one listens on otherwise, once for each piece that was received.
  looking.abort();
}

/** Resolves when the server has closed the connection; what it sent is thrown away. */
export async function closedByServer(socket: Socket): Promise<void> {
  socket.resume();
  if (!socket.closed) await once(socket, 'close');
}
