/** Back-pressure, unread replies, and the way down. */
import { afterEach, describe, expect, test } from 'vitest';
import { KiB, MiB } from '../../../src/core/units.ts';
import { commands, optionReplies, options } from '../../../src/nbd/protocol.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { infoData, RawClient } from '../../support/nbd-client.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';
import { GatedDevice } from '../../support/nbd-gated-device.ts';

const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH, NBD_CMD_TRIM } = commands;
const ESHUTDOWN = 108;

let running: TestServer;
afterEach(() => running.close());

async function start(...args: Parameters<typeof startServer>): Promise<TestServer> {
  running = await startServer(...args);
  return running;
}

/** Some turns of the event loop: what would happen without further input has happened. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe('in flight', () => {
  test('requests of a connection: at the limit, and the next one waits unread', async () => {
    const gate = new GatedDevice(new MemoryDevice(MiB));
    await start(gate, { limits: { requestsPerConnectionMax: 8 } });
    const client = await (await running.client()).go();
    for (let i = 0; i < 1000; i++) client.request({ type: NBD_CMD_READ, offset: i * 512, length: 512 });
    await gate.arrival(8);
    await settle();
    expect(gate.held).toHaveLength(8);
    expect(running.server.counters.requests).toBe(9);
    for (let i = 0; i < 1000; i++) {
      await gate.arrival(1);
      expect(gate.held.length).toBeLessThanOrEqual(8);
      gate.release();
      expect((await client.reply()).errno).toBe(0);
    }
  });

  test('bytes of a connection, in both directions; a larger request goes alone', async () => {
    const gate = new GatedDevice(new MemoryDevice(MiB));
    await start(gate, { repliesInFlightBytesMax: 400 * KiB });
    const client = await (await running.client()).go();
    const payload = Buffer.alloc(50 * KiB);
    client.request({ type: NBD_CMD_WRITE, payload });
    client.request({ type: NBD_CMD_READ, length: 50 * KiB });
    client.request({ type: NBD_CMD_READ, length: 1 });
    client.request({ type: NBD_CMD_READ, length: 300 * KiB });
    client.request({ type: NBD_CMD_FLUSH });
    await gate.arrival(2);
    await settle();
    expect(gate.held).toEqual(['write 0+51200', 'read 0+51200']);
    gate.release();
    await gate.arrival(2);
    await settle();
    expect(gate.held).toEqual(['read 0+51200', 'read 0+1']);
    gate.releaseAll();
    await gate.arrival(2);
    expect(gate.held).toEqual(['read 0+307200', 'flush']);
    gate.releaseAll();
    for (let i = 0; i < 5; i++) expect((await client.reply()).errno).toBe(0);
  });

  test('bytes of all: the others wait, but for their guaranteed request', async () => {
    const gate = new GatedDevice(new MemoryDevice(MiB));
    await start(gate, { repliesInFlightBytesMax: 100 * KiB, limits: { guaranteedBytes: 4 * KiB } });
    const [a, b] = [await (await running.client()).go(), await (await running.client()).go()];
    a.request({ type: NBD_CMD_READ, length: 100 * KiB });
    await gate.arrival(1);
    b.request({ type: NBD_CMD_READ, length: 4 * KiB });
    b.request({ type: NBD_CMD_READ, length: 1 });
    await gate.arrival(2);
    await settle();
    expect(gate.held).toEqual(['read 0+102400', 'read 0+4096']);
    gate.release();
    await a.reply();
    await gate.arrival(2);
    expect(gate.held).toEqual(['read 0+4096', 'read 0+1']);
    gate.releaseAll();
    expect([(await b.reply()).errno, (await b.reply()).errno]).toEqual([0, 0]);
  });

  test('a connection lost while it waits for room gives its place away', async () => {
    const gate = new GatedDevice(new MemoryDevice(MiB));
    await start(gate, { repliesInFlightBytesMax: 100 * KiB, limits: { guaranteedBytes: 0 } });
    const [a, b, d] = [
      await (await running.client()).go(),
      await (await running.client()).go(),
      await (await running.client()).go(),
    ];
    a.request({ type: NBD_CMD_READ, length: 100 * KiB });
    await gate.arrival(1);
    b.request({ type: NBD_CMD_READ, length: 1 });
    await until(() => running.server.counters.requests === 2);
    d.request({ type: NBD_CMD_READ, length: 2 });
    await until(() => running.server.counters.requests === 3);
    b.send(Buffer.alloc(28)); // Never parsed: behind a request that waits.
    b.destroy();
    gate.release();
    await a.reply();
    await until(() => {
      gate.releaseAll();
      return running.server.counters.connectionsOpen === 2;
    });
    expect((await d.reply()).data).toHaveLength(2);
  });
});

describe('unread replies', () => {
  test.each([
    ['data', { type: NBD_CMD_READ, length: 64 * KiB }, 16 * MiB],
    ['headers', { type: NBD_CMD_TRIM, length: 4096 }, MiB],
    ['errors', { type: 99, length: 0 }, MiB],
  ])('of %s: memory stays bounded, others are served, and all arrive in the end', async (_, request, boundBytes) => {
    const device = new MemoryDevice(MiB);
    await start(device);
    const client = await (await running.client()).go();
    client.pauseReading();
    const count = 20_000;
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < count; i++) client.request(request);
    const other = await (await running.client()).go();
    for (let i = 0; i < 50; i++) expect(await other.read(i * 512, 512)).toHaveLength(512);
    const { requests } = running.server.counters;
    expect(requests).toBeLessThan(count);
    // The client's own unsent requests, 28 bytes each, are part of this process too.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(boundBytes + 20 * MiB);
    client.resumeReading();
    for (let i = 0; i < count; i++) await client.reply();
  });

  test('a client that reads nothing while others wait for room is let go', async () => {
    const device = new MemoryDevice(16 * MiB);
    await start(device, { repliesInFlightBytesMax: 4 * MiB, limits: { stalledMsMax: 200, guaranteedBytes: 0 } });
    const stalled = await (await running.client()).go();
    stalled.pauseReading();
    stalled.request({ type: NBD_CMD_READ, length: 16 * MiB });
    await until(() => running.server.counters.bytesRead === 16 * MiB);
    const other = await (await running.client()).go();
    expect(await other.read(0, 512)).toHaveLength(512);
    expect(running.log.some(({ message }) => message.includes('it has read no reply for 200 ms'))).toBe(true);
    expect(await other.read(0, 512)).toHaveLength(512);
  });

  test('a client that reads nothing is left alone while nobody waits', async () => {
    await start(new MemoryDevice(16 * MiB), { limits: { stalledMsMax: 50 } });
    const slow = await (await running.client()).go();
    slow.pauseReading();
    slow.request({ type: NBD_CMD_READ, length: 16 * MiB });
    await until(() => running.server.counters.bytesRead === 16 * MiB);
    await new Promise((resolve) => setTimeout(resolve, 300));
    slow.resumeReading();
    expect((await slow.reply()).data).toHaveLength(16 * MiB);
  });
});

describe('idle clients', () => {
  test('stay by default, and go after the time they are given', async () => {
    await start(new MemoryDevice(4096), { limits: { idleMsMax: 100 } });
    const client = await (await running.client()).go();
    expect(await client.closed()).toEqual(Buffer.alloc(0));
    expect(running.log.some(({ message }) => message.includes('nothing was asked or read for 100 ms'))).toBe(true);
  });

  test('are those, too, that read none of their replies; those whose request the device works on are not', async () => {
    const gate = new GatedDevice(new MemoryDevice(16 * MiB));
    await start(gate, { limits: { idleMsMax: 100 } });
    const waiting = await (await running.client()).go();
    const cookie = waiting.request({ type: NBD_CMD_READ, length: 512 });
    await gate.arrival(1);
    const unread = await (await running.client()).go();
    unread.pauseReading();
    unread.request({ type: NBD_CMD_READ, length: 16 * MiB });
    await gate.arrival(2);
    gate.release(1);
    await until(() => running.server.counters.connectionsOpen === 1);
    gate.release();
    expect(await waiting.reply()).toMatchObject({ cookie, errno: 0 });
  });
});

describe('close', () => {
  test('finishes what is in flight, refuses what comes, lets go of those who haggle', async () => {
    const gate = new GatedDevice(new MemoryDevice(MiB));
    await start(gate);
    const haggling = await running.client();
    await haggling.ask(999);
    const idle = await (await running.client()).go();
    const busy = await (await running.client()).go();
    const inFlight = busy.request({ type: NBD_CMD_WRITE, payload: Buffer.alloc(512, 5) });
    await gate.arrival(1);
    const closed = running.server.close();
    expect(running.server.close()).toBe(closed);
    expect(await haggling.closed()).toEqual(Buffer.alloc(0));
    expect(await idle.closed()).toEqual(Buffer.alloc(0));
    const late = busy.request({ type: NBD_CMD_WRITE, payload: Buffer.alloc(512, 6) });
    expect(await busy.reply()).toMatchObject({ cookie: late, errno: ESHUTDOWN });
    await expect(RawClient.connect(running.tcp)).rejects.toThrow('ECONNREFUSED');
    gate.release();
    expect(await busy.reply()).toMatchObject({ cookie: inFlight, errno: 0 });
    expect(await busy.closed()).toEqual(Buffer.alloc(0));
    await closed;
    expect(running.catalog.leases).toBe(0);
  });

  test('a WRITE that was admitted is finished though its payload comes late', async () => {
    const device = new MemoryDevice(MiB);
    await start(device);
    const client = await (await running.client()).go();
    client.request({ type: NBD_CMD_WRITE, length: 512 });
    client.send(Buffer.alloc(100, 7));
    await until(() => running.server.counters.requests === 1);
    const closed = running.server.close();
    client.send(Buffer.alloc(412, 7));
    expect((await client.reply()).errno).toBe(0);
    await client.closed();
    await closed;
    expect(device.content[511]).toBe(7);
  });

  test('requests that waited for room are refused', async () => {
    const gate = new GatedDevice(new MemoryDevice(MiB));
    await start(gate, { limits: { requestsPerConnectionMax: 1 } });
    const client = await (await running.client()).go();
    client.request({ type: NBD_CMD_READ, length: 512 });
    client.request({ type: NBD_CMD_READ, length: 512 });
    await gate.arrival(1);
    const closed = running.server.close();
    gate.release();
    expect((await client.reply()).errno).toBe(0);
    expect((await client.reply()).errno).toBe(ESHUTDOWN);
    await closed;
    expect(gate.held).toEqual([]);
  });

  test('a client whose export was being opened is told', async () => {
    await start(new MemoryDevice(4096));
    const open = running.catalog.acquire.bind(running.catalog);
    let proceed: (() => void) | undefined;
    running.catalog.acquire = async (name) => {
      await new Promise<void>((resolve) => {
        proceed = resolve;
      });
      return open(name);
    };
    const client = await running.client();
    client.sendOption(options.NBD_OPT_GO, infoData(''));
    await until(() => proceed !== undefined);
    const closed = running.server.close();
    proceed!();
    expect(await client.receiveOptionReply(options.NBD_OPT_GO)).toMatchObject({
      reply: optionReplies.NBD_REP_ERR_SHUTDOWN,
    });
    await client.closed();
    await closed;
    expect(running.catalog).toMatchObject({ acquired: 1, leases: 0 });
  });

  test('clients that read nothing get so much time and no more', async () => {
    await start(new MemoryDevice(16 * MiB), { limits: { drainMsMax: 100 } });
    const client = await (await running.client()).go();
    client.pauseReading();
    client.request({ type: NBD_CMD_READ, length: 16 * MiB });
    await until(() => running.server.counters.bytesRead === 16 * MiB);
    await running.server.close();
    expect(running.catalog.leases).toBe(0);
  });
});
