/** What a handshake may not be: too long, too slow, no handshake at all. Limits on both sides. */
import { afterEach, describe, expect, test } from 'vitest';
import { KiB } from '../../../src/core/units.ts';
import { IHAVEOPT, nbdClientFlags, nbdOption, options, optionReplies as rep } from '../../../src/nbd/protocol.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { infoData, RawClient } from '../../support/nbd-client.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';

let running: TestServer;
afterEach(() => running.close());

async function start(...args: Parameters<typeof startServer>): Promise<TestServer> {
  running = await startServer(...args);
  return running;
}

/** The server still serves others. */
async function expectAlive(): Promise<void> {
  const client = await (await running.client()).go();
  expect(await client.read(0, 512)).toEqual(Buffer.alloc(512));
  client.destroy();
}

describe('input that is no handshake', () => {
  test.each([
    ['an unknown client flag', [nbdClientFlags.encode({ flags: 4 })]],
    ['the highest client flag', [nbdClientFlags.encode({ flags: 0x80000003 })]],
    ['HTTP', [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')]],
    ['zeroes', [Buffer.alloc(4096)]],
    ['a wrong option magic', [nbdClientFlags.encode({ flags: 3 }), Buffer.from('IHAVENOT0000000000000000')]],
  ])('%s: closed, said in the log, others go on', async (_, bytes) => {
    await start(new MemoryDevice(4096));
    const client = await RawClient.connect(running.unix);
    await client.receive(18);
    client.send(...bytes);
    expect(await client.closed()).toEqual(Buffer.alloc(0));
    expect(running.log.find(({ level }) => level === 'warn')?.message).toMatch(/^disconnected: .*fixed newstyle/);
    client.destroy();
    await expectAlive();
  });

  test('half a handshake, closed by the client at every byte', async () => {
    await start(new MemoryDevice(4096));
    const whole = Buffer.concat([
      nbdClientFlags.encode({ flags: 3 }),
      nbdOption.encode({ magic: IHAVEOPT, option: options.NBD_OPT_GO, length: 10 }),
      infoData('disk'),
    ]);
    for (let length = 0; length < whole.length; length++) {
      const client = await RawClient.connect(running.unix);
      client.send(whole.subarray(0, length));
      client.socket.end();
      await client.closed();
    }
    await until(() => running.server.counters.connectionsOpen === 0);
    expect(running.catalog.leases).toBe(0);
    await expectAlive();
  });

  test('options before the client shut down its sending side are answered', async () => {
    await start(new MemoryDevice(4096));
    const client = await running.client();
    client.sendOption(options.NBD_OPT_LIST);
    client.sendOption(options.NBD_OPT_INFO, infoData('disk'));
    client.socket.end();
    for (const reply of [rep.NBD_REP_SERVER, rep.NBD_REP_ACK]) {
      expect(await client.receiveOptionReply(options.NBD_OPT_LIST)).toMatchObject({ reply });
    }
    for (const reply of [rep.NBD_REP_INFO, rep.NBD_REP_ACK]) {
      expect(await client.receiveOptionReply(options.NBD_OPT_INFO)).toMatchObject({ reply });
    }
    expect(await client.closed()).toEqual(Buffer.alloc(0));
  });

  test('byte by byte, and all at once with a request behind it', async () => {
    await start(new MemoryDevice(4096));
    const drip = await RawClient.connect(running.tcp);
    drip.socket.setNoDelay(true);
    await drip.receive(18);
    const whole = Buffer.concat([
      nbdClientFlags.encode({ flags: 3 }),
      nbdOption.encode({ magic: IHAVEOPT, option: 999, length: 3 }),
      Buffer.from('abc'),
      nbdOption.encode({ magic: IHAVEOPT, option: options.NBD_OPT_GO, length: 10 }),
      infoData('disk'),
    ]);
    for (const byte of whole) {
      drip.send(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await drip.receiveOptionReply(999)).reply).toBe(rep.NBD_REP_ERR_UNSUP);
    expect((await drip.receiveOptionReply(options.NBD_OPT_GO)).reply).toBe(rep.NBD_REP_INFO);
    expect((await drip.receiveOptionReply(options.NBD_OPT_GO)).reply).toBe(rep.NBD_REP_ACK);
    expect(await drip.read(0, 10)).toHaveLength(10);

    const flood = await RawClient.connect(running.tcp);
    await flood.receive(18);
    const request = Buffer.from('25609513000000000000000000000007000000000000000000000200', 'hex');
    flood.send(Buffer.concat([whole, request]));
    await flood.receiveOptionReply(999);
    await flood.receiveOptionReply(options.NBD_OPT_GO);
    await flood.receiveOptionReply(options.NBD_OPT_GO);
    expect((await flood.receive(16 + 512)).readBigUInt64BE(8)).toBe(7n);
    drip.destroy();
    flood.destroy();
  });
});

describe('limits', () => {
  test('option data: 64 KiB, and a byte more', async () => {
    await start(new MemoryDevice(4096));
    const client = await running.client();
    expect(await client.askFinal(999, Buffer.alloc(64 * KiB))).toMatchObject({ reply: rep.NBD_REP_ERR_UNSUP });
    expect(await client.askFinal(999, Buffer.alloc(64 * KiB + 1))).toMatchObject({ reply: rep.NBD_REP_ERR_TOO_BIG });
    await client.go();
    const nameless = await running.client();
    nameless.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.alloc(64 * KiB + 1, 'n'));
    expect(await nameless.closed()).toEqual(Buffer.alloc(0));
  });

  test('bytes of a handshake, announced ones included', async () => {
    await start(new MemoryDevice(4096), { limits: { handshakeBytesMax: 1000 } });
    const client = await running.client();
    expect(await client.askFinal(999, Buffer.alloc(1000 - 16))).toMatchObject({ reply: rep.NBD_REP_ERR_UNSUP });
    client.sendOption(999);
    await client.closed();
    const announcing = await running.client();
    announcing.sendOption(999, Buffer.alloc(0), 0xffffffff);
    await announcing.closed();
    await expectAlive();
  });

  test('options of a handshake', async () => {
    await start(new MemoryDevice(4096), { limits: { handshakeOptionsMax: 3 } });
    const client = await running.client();
    for (let i = 0; i < 2; i++) await client.ask(999);
    await client.go();
    expect(await client.read(0, 1)).toHaveLength(1);
    const other = await running.client();
    for (let i = 0; i < 3; i++) await other.ask(999);
    other.sendOption(999);
    await other.closed();
  });

  test('time for the client’s side, with time the server needs left out', async () => {
    await start(new MemoryDevice(4096), { limits: { handshakeMsMax: 600 } });
    const open = running.catalog.acquire.bind(running.catalog);
    running.catalog.acquire = async (name) => {
      await new Promise((resolve) => setTimeout(resolve, 900));
      return open(name);
    };
    const prompt = await (await running.client()).go();
    const slow = await running.client();
    await slow.closed();
    expect(running.log.some(({ message }) => message.includes('no handshake within 600 ms'))).toBe(true);
    expect(await prompt.read(0, 1)).toHaveLength(1);
  });

  test('connections: the last place, and who makes room for one more', async () => {
    await start(new MemoryDevice(4096), { limits: { connectionsMax: 3 } });
    const attached = await (await running.client()).go();
    const first = await running.client();
    const second = await running.client();
    await second.ask(999);
    const third = await (await running.client()).go();
    await first.closed();
    await second.ask(999);
    await (await running.client()).go();
    await second.closed();
    // All three serve a disk now: nobody makes room.
    const refused = await RawClient.connect(running.unix);
    expect(await refused.closed()).toEqual(Buffer.alloc(0));
    expect([await attached.read(0, 1), await third.read(0, 1)]).toHaveLength(2);
    expect(running.server.counters).toMatchObject({ connectionsOpen: 3, connectionsRefused: 3 });
  });

  test('a client that asks and asks and reads no answer is not served ahead of its reading', async () => {
    const many = Object.fromEntries(
      Array.from({ length: 200 }, (_, i) => [
        `export-${i}`,
        { device: new MemoryDevice(4096), description: 'd'.repeat(1000) },
      ]),
    );
    await start(many);
    let lists = 0;
    const list = running.catalog.list.bind(running.catalog);
    running.catalog.list = () => {
      lists++;
      return list();
    };
    const client = await running.client();
    client.pauseReading();
    for (let i = 0; i < 1000; i++) client.sendOption(options.NBD_OPT_LIST);
    await expectAlive();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(lists).toBeLessThan(20); // 200 KB each: what sockets hold, not 200 MB.
    client.resumeReading();
    for (let i = 0; i < 1000 * 201; i++) await client.receiveOptionReply(options.NBD_OPT_LIST);
    expect(lists).toBe(1000);
  });
});
