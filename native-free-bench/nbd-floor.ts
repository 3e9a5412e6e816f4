/**
 * The least a Node process can do for a READ: it parses nothing but the cookie and the length, and answers with the
 * same bytes every time. What this cannot reach, no NBD server written in JavaScript on Node's sockets can.
 *
 *   node nbd-floor.js SOCKET SIZE_BYTES    (simple replies, NBD_OPT_GO only; prints `ready URI`)
 */
import { createServer, type Socket } from 'node:net';

const [path, size] = process.argv.slice(2) as [string, string];
const HEADER_BYTES = 28;
const READ_BYTES_MAX = 1 << 20;
const ACK_BYTES = 20;
const GO = 7;
const REPLY_BYTES = 16;
const DISCONNECT = 2;

function optionReply(option: number, type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(ACK_BYTES);
  head.writeBigUInt64BE(0x3e889045565a9n);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

function exportInfo(): Buffer {
  const info = Buffer.alloc(12);
  info.writeBigUInt64BE(BigInt(size), 2);
  info.writeUInt16BE(0b11, 10); // HAS_FLAGS, READ_ONLY
  return info;
}

/** Answers options until GO; returns what came behind it. */
function haggle(socket: Socket, input: Buffer): Buffer | undefined {
  for (let at = 0; at + 16 <= input.length; ) {
    const option = input.readUInt32BE(at + 8);
    at += 16 + input.readUInt32BE(at + 12);
    if (option !== GO) {
      socket.write(optionReply(option, 2 ** 31 + 1, Buffer.alloc(0)));
      continue;
    }
    socket.write(Buffer.concat([optionReply(GO, 3, exportInfo()), optionReply(GO, 1, Buffer.alloc(0))]));
    return input.subarray(at);
  }
  return undefined;
}

const server = createServer((socket) => {
  const reply = Buffer.alloc(REPLY_BYTES + READ_BYTES_MAX);
  let left: Buffer = Buffer.alloc(0);
  let isServing = false;
  let hasFlags = false;
  const transmit = (input: Buffer) => {
    const all = left.length === 0 ? input : Buffer.concat([left, input]);
    const count = Math.floor(all.length / HEADER_BYTES);
    if (count > 1) socket.cork();
    for (let i = 0; i < count; i++) {
      const at = i * HEADER_BYTES;
      if (all.readUInt16BE(at + 6) === DISCONNECT) socket.end();
      else answer(all, at, count === 1 && socket.writableLength === 0);
    }
    if (count > 1) socket.uncork();
    left = all.subarray(count * HEADER_BYTES);
  };
  /** Alone: the socket has nothing else to send, so the one buffer may be used. */
  const answer = (request: Buffer, at: number, alone: boolean) => {
    const head = alone ? reply : Buffer.allocUnsafe(REPLY_BYTES);
    head.writeUInt32BE(0x67446698, 0);
    head.writeUInt32BE(0, 4);
    request.copy(head, 8, at + 8, at + 16);
    const length = request.readUInt32BE(at + 24);
    if (alone) {
      socket.write(reply.subarray(0, REPLY_BYTES + length));
      return;
    }
    socket.write(head);
    socket.write(reply.subarray(REPLY_BYTES, REPLY_BYTES + length));
  };
  const greeting = Buffer.alloc(18);
  greeting.write('NBDMAGICIHAVEOPT', 'latin1');
  greeting.writeUInt16BE(0b11, 16);
  socket.write(greeting);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    if (isServing) {
      transmit(chunk);
      return;
    }
    // libnbd sends each option by itself, and waits for the answer.
    const input = hasFlags ? chunk : chunk.subarray(4);
    hasFlags = true;
    const rest = haggle(socket, input);
    if (rest === undefined) return;
    isServing = true;
    if (rest.length > 0) transmit(rest);
  });
});
server.listen({ path }, () => process.stdout.write(`ready nbd+unix:///?socket=${path}\n`));
process.on('SIGTERM', () => process.exit(0));
