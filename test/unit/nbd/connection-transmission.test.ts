/** Transmission over a real socket: what requests do, in which order, and what happens when they cannot. */
import { afterEach, describe, expect, test } from 'vitest';
import { AssertionError, CorruptStoreError, OverlayError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { orStopped, type StopOptions } from '../../../src/core/stop.ts';
import { MiB } from '../../../src/core/units.ts';
import { commandFlags as c, commands } from '../../../src/nbd/protocol.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { be32, be64, RawClient } from '../../support/nbd-client.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';
import { GatedDevice } from '../../support/nbd-gated-device.ts';
import { StatusDevice } from '../../support/nbd-status-device.ts';

const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_TRIM } = commands;
const { NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS } = commands;
const EIO = 5;
const EINVAL = 22;
const ENOSPC = 28;
const SIZE = 1 * MiB;
const styles = ['simple', 'structured', 'extended'] as const;

let running: TestServer;
afterEach(() => running.close());

async function start(...args: Parameters<typeof startServer>): Promise<TestServer> {
  running = await startServer(...args);
  return running;
}

/** A device whose byte i is i mod 251: no two neighbouring blocks are equal. */
function patterned(sizeBytes = SIZE): StatusDevice {
  return new StatusDevice(Uint8Array.from({ length: sizeBytes }, (_, i) => i % 251));
}

/** toEqual looks at each byte for seconds. */
function expectBytes(got: Uint8Array, expected: Uint8Array): void {
  expect(got.byteLength).toBe(expected.byteLength);
  expect(Buffer.compare(got, expected)).toBe(0);
}

/** WRITE carries its payload flag with extended headers. */
function writeFlags(client: RawClient): number {
  return client.style === 'extended' ? c.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
}

describe.each(styles)('%s replies', (style) => {
  const contexts = style === 'simple' ? [] : ['base:allocation', 'kloset:overlay'];
  const attach = async () => (await running.client()).go('', { style, contexts });

  test('READ at any alignment', async () => {
    const device = patterned();
    await start(device);
    const client = await attach();
    for (const [offset, length] of [
      [0, 1],
      [1, 1],
      [511, 2],
      [4095, 2],
      [1, 65537],
      [SIZE - 1, 1],
      [0, SIZE],
    ] as const) {
      expectBytes(await client.read(offset, length), device.content.subarray(offset, offset + length));
    }
  });

  test('WRITE, WRITE_ZEROES and TRIM change their range and not a byte beside it', async () => {
    const device = patterned();
    const expected = device.content.slice();
    await start(device);
    const client = await attach();
    const payload = Buffer.from('neighbours stay');
    expect((await client.call({ type: NBD_CMD_WRITE, flags: writeFlags(client), offset: 4090, payload })).errno).toBe(
      0,
    );
    expected.set(payload, 4090);
    expect((await client.call({ type: NBD_CMD_WRITE_ZEROES, offset: 8195, length: 9 })).errno).toBe(0);
    expected.fill(0, 8195, 8204);
    expect((await client.call({ type: NBD_CMD_TRIM, offset: 12287, length: 4098 })).errno).toBe(0);
    expected.fill(0, 12288, 16384);
    expectBytes(device.content, expected);
    expectBytes(await client.read(0, SIZE), expected);
  });

  test('FLUSH, CACHE, FUA on every command, nothing at all', async () => {
    const device = patterned();
    await start(device);
    const client = await attach();
    const payload = Buffer.alloc(512);
    const FUA = c.NBD_CMD_FLAG_FUA;
    for (const request of [
      { type: NBD_CMD_FLUSH, flags: FUA },
      { type: NBD_CMD_READ, flags: FUA, length: 512 },
      { type: NBD_CMD_WRITE, flags: FUA | writeFlags(client), payload },
      { type: NBD_CMD_TRIM, flags: FUA, length: 4096 },
      { type: NBD_CMD_WRITE_ZEROES, flags: FUA | c.NBD_CMD_FLAG_NO_HOLE | c.NBD_CMD_FLAG_FAST_ZERO, length: 4096 },
      { type: NBD_CMD_CACHE, offset: 512, length: 1024 },
      { type: NBD_CMD_READ, length: 0 },
      { type: NBD_CMD_WRITE_ZEROES, offset: SIZE, length: 0 },
      { type: NBD_CMD_TRIM, length: 0 },
    ]) {
      expect([request, (await client.call(request)).errno]).toEqual([request, 0]);
    }
    expect(device.flushCount).toBe(1);
    expect(device.cached).toEqual([{ offset: 512, length: 1024 }]);
  });

  test('refused requests: the errno, and the stream stays in step', async () => {
    const device = patterned();
    const before = device.content.slice();
    await start(device);
    const client = await attach();
    // The payload of a refused WRITE looks like requests that would change something.
    const tempting = Buffer.alloc(28 * 100);
    for (let i = 0; i < 100; i++)
      tempting.set(Buffer.from('256095130000000600000000deadbeef000000000000000000001000', 'hex'), i * 28);
    const flags = writeFlags(client);
    for (const [request, errno] of [
      [{ type: NBD_CMD_WRITE, flags, offset: SIZE, payload: tempting }, ENOSPC],
      [{ type: NBD_CMD_WRITE, flags, offset: SIZE - 1, payload: tempting }, ENOSPC],
      [{ type: NBD_CMD_WRITE, flags: flags | 0x8000, payload: tempting }, EINVAL],
      [{ type: NBD_CMD_WRITE, flags, offset: 2n ** 64n - 1n, payload: tempting }, ENOSPC],
      [{ type: NBD_CMD_READ, offset: 2n ** 64n - 512n, length: 512 }, EINVAL],
      [{ type: NBD_CMD_READ, offset: 2n ** 64n - 1n, length: 0xffffffff }, EINVAL],
      [{ type: NBD_CMD_READ, offset: SIZE - 1, length: 2 }, EINVAL],
      [{ type: NBD_CMD_TRIM, offset: SIZE, length: 1 }, EINVAL],
      [{ type: NBD_CMD_WRITE_ZEROES, offset: SIZE, length: 1 }, ENOSPC],
      [{ type: 99, offset: 0, length: 1000 }, EINVAL],
    ] as const) {
      const { errno: got, message, data } = await client.call(request);
      expect([request, got, data.length]).toEqual([request, errno, 0]);
      if (style === 'extended') expect(message).not.toBe('');
    }
    expectBytes(await client.read(0, SIZE), before);
    expect(running.server.counters).toMatchObject({ requestsRefused: 10, errors: 0, bytesRead: SIZE, bytesWritten: 0 });
  });

  test('many in flight, answered as the device finishes them', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go('', { style });
    const cookies = [0, 1, 2, 3].map((i) => client.request({ type: NBD_CMD_READ, offset: i * 512, length: 512 }));
    await gate.arrival(4);
    gate.release(3);
    gate.release(1);
    expect((await client.reply()).cookie).toBe(cookies[3]);
    expect((await client.reply()).cookie).toBe(cookies[1]);
    client.request({ type: NBD_CMD_FLUSH });
    await gate.arrival(3);
    expect(gate.held).toEqual(['read 0+512', 'read 1024+512', 'flush']);
    gate.releaseAll();
    for (let i = 0; i < 3; i++) expect((await client.reply()).errno).toBe(0);
  });

  test('failed requests: the errno for the client, everything for the log', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go('', { style });
    const cause = new CorruptStoreError('chunk 7 of /a is damaged', { details: { packfile: 'abc' } });
    for (const [error, errno] of [
      [cause, EIO],
      [new OverlayError('the overlay is full', { reason: 'full' }), ENOSPC],
      [new OverlayError('fdatasync failed', { reason: 'io', cause }), EIO],
    ] as const) {
      client.request({ type: NBD_CMD_READ, offset: 512, length: 1024 });
      await gate.arrival(1);
      gate.release(0, { error });
      expect(await client.reply()).toMatchObject({ errno, data: Buffer.alloc(0) });
      expect(running.log.at(-1)).toMatchObject({
        level: 'error',
        message: `NBD_CMD_READ failed: ${error.message}`,
        fields: { export: 'disk', offset: 512, length: 1024, errno, error: { code: error.code } },
      });
    }
    expect(running.server.counters.errors).toBe(3);
  });

  test('damage is named once, whoever asks for it and however often', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go('', { style });
    const failing = async (error: Error) => {
      client.request({ type: NBD_CMD_READ, offset: 512, length: 1024 });
      await gate.arrival(1);
      gate.release(0, { error });
      expect(await client.reply()).toMatchObject({ errno: EIO });
      return running.log.at(-1)?.level;
    };
    expect(await failing(new CorruptStoreError('/a is damaged'))).toBe('error');
    expect(await failing(new CorruptStoreError('/a is damaged'))).toBe('debug');
    expect(await failing(new CorruptStoreError('/b is damaged'))).toBe('error');
    // What may pass is told each time.
    expect(await failing(new StoreUnavailableError('the store is away'))).toBe('error');
    expect(await failing(new StoreUnavailableError('the store is away'))).toBe('error');
  });
});

describe('block status', () => {
  const device = () => {
    const content = new Uint8Array(SIZE);
    content.fill(1, 0, 4096);
    content.fill(1, 65536, 65537);
    const made = new StatusDevice(content);
    made.content.fill(9, 8192, 12288);
    return made;
  };

  test.each(['structured', 'extended'] as const)('each context has its own runs (%s)', async (style) => {
    await start(device());
    const contexts = ['base:allocation', 'kloset:overlay'];
    const client = await (await running.client()).go('', { style, contexts });
    const ask = async (offset: number, length: number, flags = 0) => {
      const { errno, status } = await client.call({ type: NBD_CMD_BLOCK_STATUS, offset, length, flags });
      expect(errno).toBe(0);
      return [status.get(1), status.get(2)];
    };
    expect(await ask(0, SIZE)).toEqual([
      [
        [4096, 0],
        [4096, 3],
        [4096, 0],
        [53248, 3],
        [4096, 0],
        [SIZE - 69632, 3],
      ],
      [
        [8192, 0],
        [4096, 1],
        [SIZE - 12288, 0],
      ],
    ]);
    expect(await ask(100, 5000, c.NBD_CMD_FLAG_REQ_ONE)).toEqual([[[3996, 0]], [[5000, 0]]]);
    expect(await ask(SIZE - 1, 1)).toEqual([[[1, 3]], [[1, 0]]]);
    const past = await client.call({ type: NBD_CMD_BLOCK_STATUS, offset: SIZE, length: 1 });
    expect([past.errno, past.status.size]).toEqual([EINVAL, 0]);
  });

  test('a payload asks for some contexts; unknown ones and repeats are refused', async () => {
    await start(device());
    const client = await (await running.client()).go('', {
      style: 'extended',
      contexts: ['base:allocation', 'kloset:overlay'],
    });
    const flags = c.NBD_CMD_FLAG_PAYLOAD_LEN;
    const ask = (length: bigint, ...ids: number[]) =>
      client.call({ type: NBD_CMD_BLOCK_STATUS, flags, payload: Buffer.concat([be64(length), ...ids.map(be32)]) });
    expect([...(await ask(4096n, 2)).status]).toEqual([[2, [[4096, 0]]]]);
    expect((await ask(4096n, 2, 1)).status.size).toBe(2);
    expect((await ask(BigInt(SIZE), 1)).errno).toBe(0);
    expect((await ask(BigInt(SIZE) + 1n, 1)).errno).toBe(EINVAL);
    expect((await ask(2n ** 64n - 1n, 1)).errno).toBe(EINVAL);
    expect((await ask(0n, 1)).errno).toBe(EINVAL);
    for (const ids of [[3], [0], [1, 1], [1, 2, 3], []]) expect((await ask(4096n, ...ids)).errno).toBe(EINVAL);
    expect(await client.read(0, 1)).toHaveLength(1);
  });

  test('long replies end at the limit, and go on where they ended', async () => {
    const content = new Uint8Array(SIZE);
    for (let at = 0; at < SIZE; at += 8192) content[at] = 1;
    await start(new StatusDevice(content), { limits: { statusExtentsMax: 10 } });
    const client = await (await running.client()).go('', { style: 'structured', contexts: ['base:allocation'] });
    const runs = (await client.call({ type: NBD_CMD_BLOCK_STATUS, length: SIZE })).status.get(1)!;
    expect(runs).toHaveLength(10);
    const next = await client.call({ type: NBD_CMD_BLOCK_STATUS, offset: 40960, length: SIZE - 40960 });
    expect(next.status.get(1)![0]).toEqual([4096, 0]);
  });
});

describe('the end of a connection', () => {
  test('DISC with requests in flight: all are answered, nothing behind it is', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go();
    client.request({ type: NBD_CMD_READ, length: 512 });
    client.request({ type: NBD_CMD_WRITE, payload: Buffer.alloc(512) });
    client.request({ type: NBD_CMD_DISC });
    client.request({ type: NBD_CMD_WRITE, payload: Buffer.alloc(100_000) });
    await gate.arrival(2);
    gate.releaseAll();
    expect((await client.reply()).data).toHaveLength(512);
    expect((await client.reply()).errno).toBe(0);
    expect(await client.closed()).toEqual(Buffer.alloc(0));
    await until(() => running.catalog.leases === 0);
    expect(gate.held).toEqual([]);
  });

  test('a client that shut down its sending side gets its replies', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go();
    for (let i = 0; i < 20; i++) client.request({ type: NBD_CMD_READ, offset: i * 4096, length: 4096 });
    client.socket.end();
    await gate.arrival(20);
    gate.releaseAll();
    for (let i = 0; i < 20; i++) expect((await client.reply()).data).toHaveLength(4096);
    expect(await client.closed()).toEqual(Buffer.alloc(0));
    await until(() => running.catalog.leases === 0);
  });

  test.each([0, 1, 27, 28, 29, 500, 539])(
    'a client that vanishes %d bytes into a WRITE leaves nothing of it',
    async (bytes) => {
      const device = patterned();
      const before = device.content.slice();
      await start(device);
      const client = await (await running.client()).go();
      const header = Buffer.from('256095130000000100000000000000010000000000000000' + '00000200', 'hex');
      client.send(Buffer.concat([header, Buffer.alloc(512, 0xaa)]).subarray(0, bytes));
      client.socket.end();
      await client.closed();
      await until(() => running.catalog.leases === 0);
      expectBytes(device.content, before);
      expect(running.server.counters.connectionsOpen).toBe(0);
    },
  );

  test('a connection that breaks with requests in flight holds its lease until the device is done with them', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go();
    client.request({ type: NBD_CMD_WRITE, payload: Buffer.alloc(512) });
    client.request({ type: NBD_CMD_READ, length: 512 });
    await gate.arrival(2);
    client.send(Buffer.alloc(28)); // Out of step: the server closes at once.
    await client.closed();
    expect(running.catalog.leases).toBe(1);
    gate.release(0);
    gate.release(0, { error: new CorruptStoreError('too late to tell') });
    await until(() => running.catalog.leases === 0);
    expect(running.server.counters.connectionsOpen).toBe(0);
  });

  test.each([
    ['a wrong magic', Buffer.alloc(28, 0x12)],
    ['an extended header in a compact session', Buffer.from(`21e41c71${'00'.repeat(28)}`, 'hex')],
    ['a payload too long to throw away', Buffer.from(`2560951300000001${'00'.repeat(16)}08000001`, 'hex')],
  ])('%s ends the connection, and no other', async (_, bytes) => {
    await start(patterned());
    const other = await (await running.client()).go();
    const client = await (await running.client()).go();
    client.send(bytes);
    expect(await client.closed()).toEqual(Buffer.alloc(0));
    expect(running.log.find(({ level }) => level === 'warn')?.fields).toMatchObject({ code: 'PROTOCOL' });
    expect(await other.read(0, 1)).toHaveLength(1);
  });

  test('a payload of 32 MiB is written, one of 128 MiB thrown away, and the stream stays in step', async () => {
    const device = new MemoryDevice(64 * MiB);
    await start(device);
    const client = await (await running.client()).go();
    expect((await client.call({ type: NBD_CMD_WRITE, payload: Buffer.alloc(32 * MiB, 7) })).errno).toBe(0);
    expect([device.content[32 * MiB - 1], device.content[32 * MiB]]).toEqual([7, 0]);
    expect((await client.call({ type: NBD_CMD_WRITE, payload: Buffer.alloc(32 * MiB + 1, 8) })).errno).toBe(EINVAL);
    client.request({ type: NBD_CMD_WRITE, length: 128 * MiB });
    for (let i = 0; i < 128; i++) client.send(Buffer.alloc(MiB, 9));
    expect((await client.reply()).errno).toBe(EINVAL);
    expectBytes(await client.read(0, 32 * MiB), Buffer.alloc(32 * MiB, 7));
    expect((await client.call({ type: NBD_CMD_READ, length: 32 * MiB + 1 })).errno).toBe(EINVAL);
  });

  test('a failed assertion stops serving: no reply, no further connection, told once', async () => {
    const gate = new GatedDevice(patterned());
    await start(gate);
    const client = await (await running.client()).go();
    const bystander = await (await running.client()).go();
    client.request({ type: NBD_CMD_READ, length: 512 });
    client.request({ type: NBD_CMD_READ, length: 512 });
    await gate.arrival(2);
    const bug = new AssertionError('the plan has a hole');
    gate.release(0, { error: bug });
    gate.release(0, { error: bug });
    expect(await client.closed()).toEqual(Buffer.alloc(0));
    expect(await bystander.closed()).toEqual(Buffer.alloc(0));
    expect(running.bugs).toEqual([bug]);
    await expect(RawClient.connect(running.tcp)).rejects.toThrow('ECONNREFUSED');
  });

  test('a device that throws instead of rejecting is no different', async () => {
    const device = patterned();
    device.read = () => {
      throw new TypeError('undefined is not a function');
    };
    await start(device);
    const client = await (await running.client()).go();
    client.request({ type: NBD_CMD_READ, length: 512 });
    await client.closed();
    expect(running.bugs).toEqual([new TypeError('undefined is not a function')]);
  });
});

test('a client whose connection breaks stops what is being read for it, and no error is logged', async () => {
  const signals: AbortSignal[] = [];
  class HeldDevice extends MemoryDevice {
    override read(_offset: number, _target: Uint8Array, { signal }: StopOptions = {}): Promise<void> {
      signals.push(signal!);
      return orStopped(new Promise(() => undefined), signal);
    }
  }
  const server = await start(new HeldDevice(SIZE));
  const client = await (await RawClient.connect(server.tcp)).hello();
  await client.go('', { style: 'structured' });
  client.request({ type: NBD_CMD_READ, offset: 0, length: 4096 });
  client.request({ type: NBD_CMD_READ, offset: 4096, length: 4096 });
  await until(() => signals.length === 2);
  expect(signals.map(({ aborted }) => aborted)).toEqual([false, false]);
  client.socket.resetAndDestroy(); // One that only ends its side may still read the replies.
  await until(() => signals.every(({ aborted }) => aborted) && server.catalog.leases === 0);
  expect(server.log.filter(({ level }) => level === 'error')).toEqual([]);
});
