/** READs and WRITEs that are carried out in the turn they came in. */
import { afterEach, describe, expect, test } from 'vitest';
import type { Reach } from '../../../src/core/device.ts';
import { AssertionError } from '../../../src/core/errors.ts';
import { KiB } from '../../../src/core/units.ts';
import { commandFlags, commands } from '../../../src/nbd/protocol.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';

let running: TestServer;
afterEach(() => running.close());

/** Has its first half in memory. */
class HalfWarmDevice extends MemoryDevice {
  reads = 0;
  readsNow = 0;
  readonly reaches: (Reach | undefined)[] = [];
  failure: unknown;

  constructor() {
    super(Uint8Array.from({ length: 256 * KiB }, (_, i) => i % 251));
  }

  override async read(offset: number, target: Uint8Array): Promise<void> {
    this.reads++;
    await super.read(offset, target);
  }

  readNow(offset: number, target: Uint8Array, reach?: Reach): boolean {
    this.readsNow++;
    this.reaches.push(reach);
    if (this.failure !== undefined) throw this.failure;
    target.fill(0xee);
    if (offset + target.length > this.sizeBytes / 2) return false;
    target.set(this.content.subarray(offset, offset + target.length));
    return true;
  }
}

describe('a device that may have the bytes in memory', () => {
  test.each(['simple', 'structured', 'extended'] as const)('gives the same bytes either way, %s', async (style) => {
    const device = new HalfWarmDevice();
    running = await startServer(device);
    const client = await (await running.client()).go('', { style });
    for (const [offset, length] of [
      [0, 1],
      [511, 4096],
      [0, 128 * KiB],
      [1, 128 * KiB],
      [128 * KiB - 1, 2],
      [200 * KiB, 5000],
    ] as const) {
      const got = await client.read(offset, length);
      expect(Buffer.compare(got, device.content.subarray(offset, offset + length))).toBe(0);
    }
    expect([device.readsNow, device.reads]).toEqual([6, 3]);
    expect(running.server.counters.bytesRead).toBe(1 + 4096 + 128 * KiB + 128 * KiB + 2 + 5000);
  });

  test('is not asked at once for more than the limit', async () => {
    const device = new HalfWarmDevice();
    running = await startServer(device, { limits: { readNowBytesMax: 4096 } });
    const client = await (await running.client()).go();
    await client.read(0, 4096);
    await client.read(0, 4097);
    expect([device.readsNow, device.reads]).toEqual([1, 1]);
  });

  test('is asked to wait for a disk for short reads only', async () => {
    const device = new HalfWarmDevice();
    running = await startServer(device);
    const client = await (await running.client()).go();
    for (const length of [4096, 32 * KiB, 32 * KiB + 1]) await client.read(0, length);
    expect(device.reaches).toEqual(['disk', 'disk', 'memory']);
  });

  test('answers a whole row of requests of one wake-up, warm and cold ones mixed', async () => {
    const device = new HalfWarmDevice();
    running = await startServer(device);
    const client = await (await running.client()).go();
    const offsets = Array.from({ length: 60 }, (_, i) => (i % 2 === 0 ? i * 512 : 128 * KiB + i * 512));
    const cookies = offsets.map((offset) => client.request({ type: commands.NBD_CMD_READ, offset, length: 512 }));
    for (const _ of offsets) {
      const { cookie, data } = await client.reply();
      const offset = offsets[cookies.indexOf(cookie)]!;
      expect(Buffer.compare(data, device.content.subarray(offset, offset + 512))).toBe(0);
      cookies[cookies.indexOf(cookie)] = -1n;
    }
    expect(new Set(cookies)).toEqual(new Set([-1n]));
  });

  test('whose assertion fails stops the server', async () => {
    const device = new HalfWarmDevice();
    device.failure = new AssertionError('it lies');
    running = await startServer(device);
    const client = await (await running.client()).go();
    client.request({ type: commands.NBD_CMD_READ, offset: 0, length: 512 });
    await client.closed();
    await until(() => running.bugs.length > 0);
    expect(running.bugs).toEqual([device.failure]);
  });
});

/** Takes what lies in its first half at once. */
class HalfReadyDevice extends MemoryDevice {
  readonly asked: [how: 'now' | 'later', offset: number, length: number][] = [];

  constructor() {
    super(new Uint8Array(256 * KiB));
  }

  writeNow(offset: number, source: Uint8Array): boolean {
    this.asked.push(['now', offset, source.length]);
    if (offset + source.length > this.sizeBytes / 2) return false;
    this.content.set(source, offset);
    return true;
  }

  override async write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void> {
    this.asked.push(['later', offset, source.length]);
    await super.write(offset, source, options);
  }
}

describe('a device that may take a WRITE at once', () => {
  test.each(['simple', 'structured', 'extended'] as const)('has the same bytes either way, %s', async (style) => {
    const device = new HalfReadyDevice();
    running = await startServer(device, { limits: { writeNowBytesMax: 64 * KiB } });
    const client = await (await running.client()).go('', { style });
    const payloadFlag = style === 'extended' ? commandFlags.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
    const write = async (offset: number, length: number, more = 0) => {
      const flags = payloadFlag | more;
      const payload = Buffer.alloc(length, 1 + (offset % 250));
      const { errno } = await client.call({ type: commands.NBD_CMD_WRITE, flags, offset, payload });
      expect(errno).toBe(0);
      expect(Buffer.compare(device.content.subarray(offset, offset + length), payload)).toBe(0);
    };
    await write(512, 8 * KiB);
    await write(200 * KiB, 8 * KiB);
    await write(0, 64 * KiB);
    await write(0, 64 * KiB + 512);
    await write(4096, 4096, commandFlags.NBD_CMD_FLAG_FUA);
    expect(device.asked).toEqual([
      ['now', 512, 8 * KiB],
      ['now', 200 * KiB, 8 * KiB],
      ['later', 200 * KiB, 8 * KiB],
      ['now', 0, 64 * KiB],
      ['later', 0, 64 * KiB + 512],
      ['later', 4096, 4096],
    ]);
    expect(running.server.counters.bytesWritten).toBe(16 * KiB + 128 * KiB + 512 + 4096);
  });
});
