/** The supervisor between real sockets: clients of the test's own, and workers that do exactly what a test says. */
import { describe, expect, test } from 'vitest';
import { commands, NBD_SIMPLE_REPLY_MAGIC, nbdSimpleReply, options } from '../../../src/nbd/protocol.ts';
import { cleanupAfterEach } from '../../support/fixtures.ts';
import { ALL_CLIENT_FLAGS, infoData, RawClient } from '../../support/nbd-client.ts';
import { type ScriptedWorker, startSupervised } from './scripted-worker.ts';

const cleanup = cleanupAfterEach();
const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH } = commands;
const bytesOf = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7) % 251));
const reply = (cookie: Uint8Array, data = Buffer.alloc(0), error = 0) =>
  Buffer.concat([nbdSimpleReply.encode({ magic: NBD_SIMPLE_REPLY_MAGIC, error, cookie }), data]);

async function attachedClient(uri: string): Promise<RawClient> {
  const client = await (await RawClient.connect(uri)).hello();
  cleanup.add(() => client.destroy());
  return client.go('disk');
}

/** Answers requests until `count` were answered; READs with a pattern. */
async function answer(worker: ScriptedWorker, count: number): Promise<number[]> {
  const connection = await worker.attached();
  const types: number[] = [];
  for (let i = 0; i < count; i++) {
    const { type, cookie, length } = await connection.request();
    types.push(type);
    connection.send(reply(cookie, type === NBD_CMD_READ ? bytesOf(length) : undefined));
  }
  return types;
}

describe('when the worker dies', () => {
  test('unanswered requests go to the next one, in their order, to the byte', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    const first = await (await worker(1)).attached();
    for (let i = 0; i < 50; i++) {
      client.request({ type: NBD_CMD_WRITE, offset: i * 512, payload: bytesOf(i) });
      client.request({ type: NBD_CMD_READ, offset: i, length: 10 });
    }
    client.request({ type: NBD_CMD_FLUSH });
    const seen: Buffer[] = [];
    for (let i = 0; i < 101; i++) seen.push((await first.request()).bytes);
    (await worker(1)).die();
    const second = await (await worker(2)).attached();
    for (const bytes of seen) {
      const request = await second.request();
      expect(request.bytes.equals(bytes)).toBe(true);
      second.send(reply(request.cookie, request.type === NBD_CMD_READ ? bytesOf(10) : undefined));
    }
    const answered = new Set<bigint>();
    for (let i = 0; i < 101; i++) answered.add((await client.reply()).cookie);
    expect(answered.size).toBe(101);
  });

  test('what was answered is not asked again', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    const ids = [1, 2, 3].map(() => client.request({ type: NBD_CMD_FLUSH }));
    const first = await (await worker(1)).attached();
    const [one, two] = [await first.request(), await first.request(), await first.request()];
    first.send(reply(two!.cookie));
    expect((await client.reply()).cookie).toBe(ids[1]);
    (await worker(1)).die();
    const second = await (await worker(2)).attached();
    expect((await second.request()).cookie).toEqual(one!.cookie);
    await second.request();
    second.send(reply(one!.cookie));
    expect((await client.reply()).cookie).toBe(ids[0]);
  });

  test('in the middle of a reply, the client gets it once, whole, from the next one', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    client.request({ type: NBD_CMD_READ, length: 100 });
    const first = await (await worker(1)).attached();
    const { cookie } = await first.request();
    first.send(reply(cookie, Buffer.alloc(100, 1)).subarray(0, 60));
    (await worker(1)).die();
    expect(await answer(await worker(2), 1)).toEqual([NBD_CMD_READ]);
    expect((await client.reply()).data).toEqual(bytesOf(100));
    const [again] = await Promise.all([client.read(0, 9), answer(await worker(2), 1)]);
    expect(again).toEqual(bytesOf(9)); // Nothing was left in between.
  });

  test('in the middle of a payload, the next one gets it from its beginning', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    const payload = bytesOf(5000);
    client.request({ type: NBD_CMD_WRITE, length: 5000 });
    client.send(payload.subarray(0, 2000));
    const first = await (await worker(1)).attached();
    await first.receive(28 + 2000);
    (await worker(1)).die();
    const second = await (await worker(2)).attached();
    client.send(payload.subarray(2000));
    const request = await second.request();
    expect(request.payload).toEqual(payload);
    second.send(reply(request.cookie));
    expect((await client.reply()).errno).toBe(0);
  });

  test('in the handshake, the pending option is asked again and answered once', async () => {
    const { uri, worker } = await startSupervised(cleanup, { answersGo: (generation) => generation > 1 });
    const client = await (await RawClient.connect(uri)).hello();
    cleanup.add(() => client.destroy());
    await client.ask(options.NBD_OPT_STRUCTURED_REPLY);
    client.sendOption(options.NBD_OPT_GO, infoData('disk'));
    const first = await (await worker(1)).accepted();
    await first.sawOption(options.NBD_OPT_GO);
    (await worker(1)).die();
    const second = await (await worker(2)).attached();
    expect(second.options).toEqual([options.NBD_OPT_STRUCTURED_REPLY, options.NBD_OPT_GO]);
    expect((await client.receiveOptionReply(options.NBD_OPT_GO)).reply).toBe(3);
    expect((await client.receiveOptionReply(options.NBD_OPT_GO)).reply).toBe(1);
    client.style = 'structured';
    client.request({ type: NBD_CMD_FLUSH });
    expect(await answer(await worker(2), 1)).toEqual([NBD_CMD_FLUSH]);
    expect((await client.reply()).errno).toBe(0);
  });

  test('again and again, a client that waits has its answer in the end', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    client.request({ type: NBD_CMD_READ, length: 7 });
    for (let generation = 1; generation <= 5; generation++) {
      await (await (await worker(generation)).attached()).request();
      (await worker(generation)).die();
    }
    await answer(await worker(6), 1);
    expect((await client.reply()).data).toEqual(bytesOf(7));
  });

  test('a client that has shut down its sending side gets its replies all the same', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    client.request({ type: NBD_CMD_READ, length: 7 });
    client.socket.end();
    await (await (await worker(1)).attached()).request();
    (await worker(1)).die();
    await answer(await worker(2), 1);
    expect((await client.reply()).data).toEqual(bytesOf(7));
  });
});

describe('a new worker that has another disk', () => {
  test.each([
    ['by its answers', { sizeOf: (generation: number) => 1024 * 1024 * generation }],
    ['by what its names mean', { deviceOf: (generation: number) => `device ${generation}` }],
    ['by having none of that name', { deviceOf: (generation: number) => (generation === 1 ? 'device' : undefined) }],
  ])('%s: the client is disconnected, and its requests go nowhere', async (_, script) => {
    const { uri, worker } = await startSupervised(cleanup, script);
    const client = await attachedClient(uri);
    client.request({ type: NBD_CMD_WRITE, payload: bytesOf(512) });
    await (await (await worker(1)).attached()).request();
    (await worker(1)).die();
    await client.closed();
    const second = await (await worker(2)).accepted();
    await second.closed;
    expect(second.pendingBytes).toBe(0);
  });
});

describe('clients', () => {
  test('are one writer an address, as without a supervisor', async () => {
    const { uri, unixUri, worker } = await startSupervised(cleanup);
    const holder = await attachedClient(uri);
    const other = await (await RawClient.connect(unixUri)).hello();
    cleanup.add(() => other.destroy());
    await expect(other.go('disk')).rejects.toThrow(/"disk" is in use by 127\.0\.0\.1:\d+ since/);
    const same = await attachedClient(uri);
    same.destroy();
    holder.destroy();
    const [first, , third] = (await worker(1)).connections;
    await Promise.all([first!.closed, third!.closed]);
    await expect.poll(async () => (await other.askFinal(options.NBD_OPT_GO, infoData('disk'))).reply).toBe(1);
  });

  test('that break the protocol are cut off, and the worker hears the end of them', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    client.send(Buffer.alloc(28));
    await client.closed();
    const connection = await (await worker(1)).attached();
    await connection.closed;
    expect(connection.pendingBytes).toBe(0);
  });

  test('are let go when the worker, alive, closes their connection', async () => {
    const { uri, worker } = await startSupervised(cleanup, {}, { orphanedMsMax: 1 });
    const client = await attachedClient(uri);
    (await (await worker(1)).attached()).end();
    await client.closed();
  });

  test('with unknown flags are passed on: the worker decides', async () => {
    const { uri, worker } = await startSupervised(cleanup);
    const client = await (await RawClient.connect(uri)).hello(ALL_CLIENT_FLAGS);
    cleanup.add(() => client.destroy());
    const { reply: kind } = await client.askFinal(99, bytesOf(3));
    expect(kind).toBe(2 ** 31 + 1);
    expect((await (await worker(1)).accepted()).options).toEqual([99]);
  });
});

describe('the end', () => {
  test('comes with the exit code of a first worker that never served', async () => {
    const { exitCode, worker } = await startSupervised(cleanup, { isReady: () => false });
    (await worker(1)).die({ exitCode: 66 });
    expect(await exitCode).toBe(66);
  });

  test('comes when workers die one after the other, and clients are let go', async () => {
    const limits = { fruitlessDeathsMax: 3, restartDelayMs: 1, fruitfulMs: 1e9 };
    const { uri, exitCode, worker, log } = await startSupervised(cleanup, {}, limits);
    const client = await attachedClient(uri);
    (await (await worker(1)).attached()).end();
    for (let generation = 1; generation <= 4; generation++) {
      (await worker(generation)).die({ exitCode: 70, lastLines: 'the last words' });
    }
    expect(await exitCode).toBe(1);
    await client.closed();
    expect(log.some(({ level, message }) => level === 'error' && message.includes('the last words'))).toBe(true);
  });

  test('after stop is in order: the worker is asked to end, and what it says until then is passed on', async () => {
    const { uri, exitCode, worker, supervisor } = await startSupervised(cleanup);
    const client = await attachedClient(uri);
    client.request({ type: NBD_CMD_READ, length: 7 });
    const connection = await (await worker(1)).attached();
    const { cookie } = await connection.request();
    supervisor.stop();
    expect((await worker(1)).signals).toEqual(['SIGTERM']);
    connection.send(reply(cookie, bytesOf(7)));
    connection.end();
    (await worker(1)).die({ exitCode: 0, leavesSockets: true });
    expect((await client.reply()).data).toEqual(bytesOf(7));
    await client.closed();
    client.destroy();
    expect(await exitCode).toBe(0);
  });
});
