import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { readingInto } from '../../../src/nbd/receive-buffer.ts';

const closing: { close(): unknown }[] = [];
afterEach(() => {
  for (const one of closing.splice(0)) one.close();
});

/** A server whose sockets read into `buffer`, and clients of it. */
async function serve(buffer: Buffer, accept: (socket: Socket) => void): Promise<() => Socket> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (accepted) =>
    accept(readingInto(accepted, buffer)),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(server);
  return () => {
    const client = connect((server.address() as { port: number }).port, '127.0.0.1');
    closing.push({ close: () => client.destroy() });
    return client;
  };
}

test('all sockets read into the one buffer, and each gets its own bytes', async () => {
  const buffer = Buffer.alloc(1000);
  const received: Buffer[][] = [];
  const client = await serve(buffer, (socket) => {
    const pieces: Buffer[] = [];
    received.push(pieces);
    socket.on('data', (piece: Buffer) => {
      expect(piece.buffer).toBe(buffer.buffer);
      pieces.push(Buffer.from(piece));
    });
    socket.on('end', () => socket.end(`got ${Buffer.concat(pieces).length}`));
  });
  const sent = ['a', 'b', 'c'].map((letter, at) => Buffer.alloc(10_000 + at, letter));
  const answers = sent.map(async (bytes) => {
    const socket = client();
    socket.end(bytes);
    const parts: Buffer[] = [];
    for await (const part of socket) parts.push(part as Buffer);
    return Buffer.concat(parts).toString();
  });
  // Each has ended its side, and still gets its reply.
  expect(await Promise.all(answers)).toEqual(sent.map(({ length }) => `got ${length}`));
  const all = received.map((pieces) => Buffer.concat(pieces).toString()).sort();
  expect(all).toEqual(sent.map(String));
});

test('a socket that is paused reads nothing until it is resumed', async () => {
  let socket: Socket | undefined;
  const pieces: string[] = [];
  const client = await serve(Buffer.alloc(4), (accepted) => {
    socket = accepted;
    accepted.on('data', (piece: Buffer) => {
      pieces.push(piece.toString());
      accepted.pause();
    });
  });
  client().write('abcdefgh');
  while (pieces.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(pieces).toEqual(['abcd']);
  socket!.resume();
  while (pieces.length === 1) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(pieces).toEqual(['abcd', 'efgh']);
});
