/** Exports that cannot be had: they do not open, or somebody else writes them. */
import { afterEach, describe, expect, test } from 'vitest';
import { AssertionError, CorruptStoreError, UserError } from '../../../src/core/errors.ts';
import { options, optionReplies as rep } from '../../../src/nbd/protocol.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { infoData, RawClient } from '../../support/nbd-client.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';

let running: TestServer;
afterEach(() => running.close());

async function start(...args: Parameters<typeof startServer>): Promise<TestServer> {
  running = await startServer(...args);
  return running;
}

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
