/** The handshake over a real socket: states, refusals, limits on both sides. */
import { afterEach, describe, expect, test } from 'vitest';
import { AssertionError, CorruptStoreError, UserError } from '../../../src/core/errors.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import {
  IHAVEOPT,
  infos,
  nbdClientFlags,
  nbdExportNameReply,
  nbdOption,
  options,
  optionReplies as rep,
  transmissionFlags,
} from '../../../src/nbd/protocol.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { contextData, infoData, RawClient } from '../../support/nbd-client.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';
import { StatusDevice } from '../../support/nbd-status-device.ts';

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

describe('options', () => {
  test('LIST names every export, and opens none', async () => {
    const device = new MemoryDevice(4096);
    await start({ first: { device, description: 'the first' }, 'zweiter/é': { device } });
    const client = await running.client();
    const replies = await client.ask(options.NBD_OPT_LIST);
    expect(replies.map(({ reply }) => reply)).toEqual([rep.NBD_REP_SERVER, rep.NBD_REP_SERVER, rep.NBD_REP_ACK]);
    const nameBytes = replies[1]!.data.readUInt32BE(0);
    expect(replies[1]!.data.subarray(4, 4 + nameBytes).toString()).toBe('zweiter/é');
    expect(replies[0]!.data.subarray(4 + 5).toString()).toBe('the first');
    expect(running.catalog.acquired).toBe(0);
    expect(await client.askFinal(options.NBD_OPT_LIST, Buffer.from('x'))).toMatchObject({
      reply: rep.NBD_REP_ERR_INVALID,
    });
  });

  test('INFO tells size, flags, name, description and block sizes, and keeps nothing open', async () => {
    await start({ disk: { device: new MemoryDevice(8 * MiB), description: 'a disk' } });
    const client = await running.client();
    const asked = [infos.NBD_INFO_NAME, infos.NBD_INFO_DESCRIPTION, infos.NBD_INFO_BLOCK_SIZE, 0x7777];
    const replies = await client.ask(options.NBD_OPT_INFO, infoData('', asked));
    expect(replies.map(({ data }) => data.toString('latin1'))).toEqual([
      '\0\0' + '\0\0\0\0\0\x80\0\0' + '\x01\x6d',
      '\0\x01disk',
      '\0\x02a disk',
      '\0\x03' + '\0\0\0\x01' + '\0\0\x10\0' + '\x02\0\0\0',
      '',
    ]);
    expect(running.catalog).toMatchObject({ acquired: 1, leases: 0 });
    await client.go('disk');
    expect(running.catalog.leases).toBe(1);
    client.destroy();
    await until(() => running.catalog.leases === 0);
  });

  test('flags promise only what the device means', async () => {
    const f = transmissionFlags;
    const plain = { fua: false, trim: false, multiConn: false };
    await start({
      all: { device: new StatusDevice(4096) },
      little: { device: new MemoryDevice(4096, plain) },
      readOnly: { device: new MemoryDevice(4096, plain), readOnly: true },
    });
    const always = f.NBD_FLAG_HAS_FLAGS | f.NBD_FLAG_SEND_FLUSH;
    const flagsOf = async (name: string, options = {}) => {
      const client = await (await running.client()).go(name, options);
      client.destroy();
      await until(() => running.catalog.leases === 0);
      return client.transmissionFlags;
    };
    expect(await flagsOf('little')).toBe(always | f.NBD_FLAG_SEND_WRITE_ZEROES);
    expect(await flagsOf('readOnly')).toBe(always | f.NBD_FLAG_READ_ONLY | f.NBD_FLAG_CAN_MULTI_CONN);
    const everything = Object.values(f).reduce((sum, flag) => sum | flag, 0) & ~f.NBD_FLAG_READ_ONLY;
    const contexts = ['base:allocation'];
    expect(await flagsOf('all', { style: 'extended', contexts })).toBe(everything);
    expect(await flagsOf('all', { style: 'extended' })).toBe(everything & ~f.NBD_FLAG_BLOCK_STATUS_PAYLOAD);
    expect(await flagsOf('all', { style: 'structured', contexts })).toBe(everything & ~f.NBD_FLAG_BLOCK_STATUS_PAYLOAD);
    expect(await flagsOf('all')).toBe(everything & ~f.NBD_FLAG_BLOCK_STATUS_PAYLOAD & ~f.NBD_FLAG_SEND_DF);
  });

  test('EXPORT_NAME answers 10 bytes, and 124 more to those who did not decline them', async () => {
    await start(new MemoryDevice(4096));
    for (const [flags, padding] of [
      [3, 0],
      [1, 124],
      [0, 124],
      [2, 0],
    ] as const) {
      const client = await (await RawClient.connect(running.tcp)).hello(flags);
      client.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.from('disk'));
      const reply = await client.receive(nbdExportNameReply.sizeBytes + padding);
      expect(nbdExportNameReply.read(reply).size).toBe(4096n);
      expect(reply.subarray(10).every((byte) => byte === 0)).toBe(true);
      expect(await client.read(0, 512)).toEqual(Buffer.alloc(512));
      client.destroy();
    }
  });

  test('unknown names: GO and INFO say so and haggling goes on, EXPORT_NAME closes', async () => {
    await start(new MemoryDevice(4096));
    const client = await running.client();
    for (const option of [options.NBD_OPT_INFO, options.NBD_OPT_GO]) {
      const { reply, text } = await client.askFinal(option, infoData('nothing'));
      expect({ reply, text }).toEqual({
        reply: rep.NBD_REP_ERR_UNKNOWN,
        text: 'there is no export "nothing": NBD_OPT_LIST names them all',
      });
    }
    await client.go('disk');
    const other = await running.client();
    other.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.from('nothing'));
    expect(await other.closed()).toEqual(Buffer.alloc(0));
  });

  test('unknown options are refused and the stream stays in step', async () => {
    await start(new MemoryDevice(4096));
    const client = await running.client();
    for (const option of [0, 4, 12, 0x7fffffff, 0xffffffff]) {
      expect(await client.ask(option, Buffer.from('payload'))).toMatchObject([{ reply: rep.NBD_REP_ERR_UNSUP }]);
    }
    await client.go();
    expect(await client.read(0, 512)).toHaveLength(512);
  });

  test('ABORT is acknowledged, whatever it carries, and ends the connection', async () => {
    await start(new MemoryDevice(4096));
    for (const data of [Buffer.alloc(0), Buffer.from('ignored')]) {
      const client = await running.client();
      expect(await client.ask(options.NBD_OPT_ABORT, data)).toEqual([
        { reply: rep.NBD_REP_ACK, data: Buffer.alloc(0) },
      ]);
      expect(await client.closed()).toEqual(Buffer.alloc(0));
      client.destroy();
    }
  });

  test('malformed data is invalid, and haggling goes on', async () => {
    await start(new StatusDevice(4096));
    const client = await running.client();
    const good = infoData('disk');
    const malformed = [
      Buffer.alloc(0),
      Buffer.alloc(2),
      Buffer.from('000001f4', 'hex'),
      good.subarray(0, -1),
      Buffer.concat([good, Buffer.alloc(1)]),
      infoData('disk', [1, 2]).subarray(0, -2),
      Buffer.from('ffffffff0000', 'hex'),
      infoData('a\0b'),
      Buffer.from('00000002c3280000', 'hex'), // Not UTF-8.
      infoData('n'.repeat(4097)),
    ];
    for (const data of malformed) {
      for (const option of [options.NBD_OPT_INFO, options.NBD_OPT_GO]) {
        expect(await client.askFinal(option, data)).toMatchObject({ reply: rep.NBD_REP_ERR_INVALID });
      }
    }
    expect(await client.askFinal(options.NBD_OPT_INFO, infoData('n'.repeat(4096)))).toMatchObject({
      reply: rep.NBD_REP_ERR_UNKNOWN,
    });
    await client.ask(options.NBD_OPT_STRUCTURED_REPLY);
    const query = contextData('disk', ['base:allocation']);
    const badQueries = [
      query.subarray(0, -1),
      Buffer.concat([query, Buffer.alloc(1)]),
      Buffer.from('00000000ffffffff', 'hex'),
    ];
    for (const data of badQueries) {
      for (const option of [options.NBD_OPT_LIST_META_CONTEXT, options.NBD_OPT_SET_META_CONTEXT]) {
        expect(await client.askFinal(option, data)).toMatchObject({ reply: rep.NBD_REP_ERR_INVALID });
      }
    }
    await client.go('disk', { style: 'structured' });
  });

  test('STRUCTURED_REPLY and EXTENDED_HEADERS: no data, twice is fine, never back', async () => {
    await start(new MemoryDevice(4096));
    const client = await running.client();
    const { NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS } = options;
    const final = async (option: number, data?: Buffer) => (await client.askFinal(option, data)).reply;
    expect(await final(NBD_OPT_STRUCTURED_REPLY, Buffer.from('x'))).toBe(rep.NBD_REP_ERR_INVALID);
    expect(await final(NBD_OPT_STRUCTURED_REPLY)).toBe(rep.NBD_REP_ACK);
    expect(await final(NBD_OPT_STRUCTURED_REPLY)).toBe(rep.NBD_REP_ACK);
    expect(await final(NBD_OPT_EXTENDED_HEADERS, Buffer.from('x'))).toBe(rep.NBD_REP_ERR_INVALID);
    expect(await final(NBD_OPT_EXTENDED_HEADERS)).toBe(rep.NBD_REP_ACK);
    expect(await final(NBD_OPT_STRUCTURED_REPLY)).toBe(rep.NBD_REP_ERR_EXT_HEADER_REQD);
    expect(await final(NBD_OPT_EXTENDED_HEADERS)).toBe(rep.NBD_REP_ACK);
    client.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.from('disk'));
    expect(await client.closed()).toEqual(Buffer.alloc(0));
  });

  test('metadata contexts: listed, selected, and gone with the next attempt', async () => {
    await start({ disk: { device: new StatusDevice(4096) }, plain: { device: new MemoryDevice(4096) } });
    const { NBD_OPT_LIST_META_CONTEXT: LIST, NBD_OPT_SET_META_CONTEXT: SET } = options;
    const client = await running.client();
    expect(await client.askFinal(SET, contextData('disk', []))).toMatchObject({ reply: rep.NBD_REP_ERR_INVALID });
    expect(await client.askFinal(LIST, contextData('disk', []))).toMatchObject({ reply: rep.NBD_REP_ERR_INVALID });
    await client.ask(options.NBD_OPT_STRUCTURED_REPLY);
    const names = async (option: number, ...args: Parameters<typeof contextData>) =>
      (await client.ask(option, contextData(...args))).slice(0, -1).map(({ data }) => data.toString('latin1'));
    expect(await names(LIST, 'disk', [])).toEqual(['\0\0\0\0base:allocation', '\0\0\0\0kloset:overlay']);
    expect(await names(LIST, 'plain', [])).toEqual([]);
    expect(await names(SET, 'disk', ['kloset:overlay', 'base:'])).toEqual(['\0\0\0\x01kloset:overlay']);
    expect(await client.askFinal(SET, contextData('none', []))).toMatchObject({ reply: rep.NBD_REP_ERR_UNKNOWN });
    await client.go('disk', { style: 'structured' });
    expect((await client.call({ type: 7, length: 4096 })).errno).toBe(22);
  });

  test('contexts selected for one name do not hold for another', async () => {
    await start({ disk: { device: new StatusDevice(4096) } });
    const client = await running.client();
    await client.ask(options.NBD_OPT_STRUCTURED_REPLY);
    await client.ask(options.NBD_OPT_SET_META_CONTEXT, contextData('disk', ['base:allocation']));
    await client.go('', { style: 'structured' });
    expect((await client.call({ type: 7, length: 4096 })).errno).toBe(22);
  });
});

describe('exports that do not open', () => {
  test.each([
    ['damaged', new CorruptStoreError('chunk 12 is damaged'), rep.NBD_REP_ERR_UNKNOWN, 'chunk 12 is damaged'],
    ['a mistake', new UserError('the overlay is locked'), rep.NBD_REP_ERR_POLICY, 'the overlay is locked'],
    ['else', new Error('EMFILE'), rep.NBD_REP_ERR_UNKNOWN, 'the export could not be opened: see the log of the server'],
  ])('%s: the client gets a text, the log the whole error, and haggling goes on', async (_, error, reply, text) => {
    await start(new MemoryDevice(4096));
    const { acquire } = running.catalog;
    running.catalog.acquire = () => Promise.reject(error);
    const client = await running.client();
    expect(await client.askFinal(options.NBD_OPT_GO, infoData('disk'))).toEqual({ reply, text });
    expect(running.log.find(({ level }) => level === 'error')?.fields).toMatchObject({
      error: { message: error.message },
    });
    running.catalog.acquire = acquire;
    await client.go('disk');
  });

  test('a list that fails is refused', async () => {
    await start(new MemoryDevice(4096));
    running.catalog.list = () => Promise.reject(new UserError('the store moved'));
    const client = await running.client();
    expect(await client.askFinal(options.NBD_OPT_LIST)).toEqual({
      reply: rep.NBD_REP_ERR_POLICY,
      text: 'the store moved',
    });
  });

  test('a bug in the catalog stops serving', async () => {
    await start(new MemoryDevice(4096));
    const bug = new AssertionError('impossible');
    running.catalog.acquire = () => Promise.reject(bug);
    const client = await running.client();
    client.sendOption(options.NBD_OPT_GO, infoData('disk'));
    await client.closed();
    expect(running.bugs).toEqual([bug]);
    await expect(RawClient.connect(running.tcp)).rejects.toThrow('ECONNREFUSED');
  });

  test('a client that leaves while its export opens leaves nothing behind', async () => {
    await start(new MemoryDevice(4096));
    const open = running.catalog.acquire.bind(running.catalog);
    const nothing = () => {};
    let opened = nothing;
    running.catalog.acquire = async (name) => {
      await new Promise<void>((resolve) => {
        opened = resolve;
      });
      return open(name);
    };
    const client = await running.client();
    client.sendOption(options.NBD_OPT_GO, infoData('disk'));
    await until(() => opened !== nothing);
    client.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    opened();
    await until(() => running.server.counters.connectionsOpen === 0);
    expect(running.catalog).toMatchObject({ acquired: 1, leases: 0 });
  });
});

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

describe('one writer', () => {
  /** Two clients: all of TCP is one, since this machine has one address here, and all of Unix is another. */
  async function startBoth(options: Parameters<typeof startServer>[1] = {}) {
    const device = new MemoryDevice(4096);
    await start(
      {
        disk: { device, deviceId: 'd' },
        alias: { device, deviceId: 'd' },
        base: { device, deviceId: 'd@base', readOnly: true },
      },
      { now: () => new Date(0), ...options },
    );
    const tcp = async () => (await RawClient.connect(running.tcp)).hello();
    return { tcp, unix: () => running.client() };
  }

  test('another client is told who holds the export; LIST, INFO and read-only exports are for everyone', async () => {
    const { tcp, unix } = await startBoth();
    const holder = await (await tcp()).go('disk');
    const port = holder.socket.localPort;
    const other = await unix();
    const { reply, text } = await other.askFinal(options.NBD_OPT_GO, infoData('alias'));
    expect(reply).toBe(rep.NBD_REP_ERR_POLICY);
    expect(text).toContain(`"alias" is in use by 127.0.0.1:${port} since 1970-01-01T00:00:00.000Z`);
    expect((await other.ask(options.NBD_OPT_INFO, infoData('disk'))).at(-1)!.reply).toBe(rep.NBD_REP_ACK);
    expect(await other.ask(options.NBD_OPT_LIST)).toHaveLength(4);
    const named = await unix();
    named.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.from('disk'));
    expect(await named.closed()).toEqual(Buffer.alloc(0));
    const warnings = running.log.filter(({ level, message }) => level === 'warn' && message.includes('is in use by'));
    expect(warnings).toHaveLength(2);
    await other.go('base');
    const again = await (await tcp()).go('alias');
    holder.destroy();
    again.destroy();
    await until(() => running.catalog.leases === 1);
    await (await unix()).go('disk');
  });

  test('the last write of one writer is over before the next may come', async () => {
    const { tcp, unix } = await startBoth();
    const writes: (() => void)[] = [];
    const { device } = running.catalog.exports.get('disk')!;
    device.write = () => new Promise((resolve) => writes.push(resolve));
    const holder = await (await unix()).go('disk');
    holder.request({ type: 1, payload: Buffer.alloc(512) });
    await until(() => writes.length === 1);
    holder.destroy();
    const next = await tcp();
    expect(await next.askFinal(options.NBD_OPT_GO, infoData('disk'))).toMatchObject({ reply: rep.NBD_REP_ERR_POLICY });
    writes[0]!();
    await until(() => running.catalog.leases === 0);
    await next.go('disk');
    next.destroy();
  });

  test('shared lifts it', async () => {
    const { tcp, unix } = await startBoth({ shared: true });
    const one = await (await tcp()).go('disk');
    await (await unix()).go('disk');
    one.destroy();
  });
});
