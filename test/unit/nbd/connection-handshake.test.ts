/** The handshake over a real socket: what each option answers in each state. */
import { afterEach, describe, expect, test } from 'vitest';
import { MiB } from '../../../src/core/units.ts';
import {
  IHAVEOPT,
  infos,
  nbdClientFlags,
  nbdExportNameReply,
  nbdGreeting,
  nbdOption,
  nbdOptionReply,
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

  test('options that come together are answered one by one, and so is what comes after them', async () => {
    await start({ disk: { device: new MemoryDevice(4096) } });
    const client = await RawClient.connect(running.tcp);
    await client.receive(nbdGreeting.sizeBytes);
    const info = infoData('disk');
    const option = Buffer.concat([
      nbdOption.encode({ magic: IHAVEOPT, option: options.NBD_OPT_INFO, length: info.length }),
      info,
    ]);
    const answered = async () => {
      let reply: number;
      do {
        const header = nbdOptionReply.read(await client.receive(nbdOptionReply.sizeBytes));
        await client.receive(header.length);
        reply = header.reply;
      } while (reply !== rep.NBD_REP_ACK);
    };
    client.send(nbdClientFlags.encode({ flags: 3 }), option, option);
    await answered();
    await answered();
    client.send(option);
    await answered();
    client.socket.end();
    await until(() => running.server.counters.connectionsOpen === 0);
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
