/**
 * Random frames against a server: handshakes that are nearly right, requests that are nearly right, garbage. Whatever
 * comes, the server stays up, serves others, keeps nothing, and its device differs from a model by no byte.
 */
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'vitest';
import {
  IHAVEOPT,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_MAGIC,
  nbdClientFlags,
  nbdExtendedRequest,
  nbdOption,
  nbdRequest,
} from '../../src/nbd/protocol.ts';
import { contextData, infoData, RawClient } from './nbd-client.ts';
import { startServer, type TestServer, until } from './nbd-fixture.ts';
import { StatusDevice } from './nbd-status-device.ts';

/** Bytes of the device. */
const SIZE = 256 * 1024;

/** mulberry32: small, seeded, good enough to be surprising. */
export function randomFrom(start: number) {
  let state = start >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  const below = (limit: number) => next() % limit;
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => next() & 0xff));
  const pick = <T>(values: readonly T[]): T => values[below(values.length)]!;
  return { below, bytes, pick };
}
type Random = ReturnType<typeof randomFrom>;

/** One option: known or not, its data right, cut, or noise. */
function randomOption(random: Random): Buffer {
  const option = random.pick([0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 10, 11, 12, random.below(2 ** 32)]);
  const good = random.pick([
    Buffer.alloc(0),
    infoData(random.pick(['', 'disk', 'nothing']), [0, 1, 2, 3].slice(random.below(4))),
    contextData(random.pick(['', 'disk']), random.pick([[], ['base:allocation'], ['base:', 'kloset:overlay']])),
  ]);
  const data = random.pick([
    good,
    good,
    good.subarray(0, random.below(good.length + 1)),
    random.bytes(random.below(40)),
  ]);
  const length = random.below(30) === 0 ? random.below(2 ** 32) : data.length;
  const magic = random.below(40) === 0 ? 0n : IHAVEOPT;
  return Buffer.concat([nbdOption.encode({ magic, option, length }), data]);
}

/** One request: any type, flags and range, near and beyond every edge; payloads that match or do not. */
function randomRequest(random: Random, extended: boolean): Buffer {
  const edge = random.pick([
    0n,
    1n,
    511n,
    4096n,
    BigInt(SIZE) - 512n,
    BigInt(SIZE),
    2n ** 32n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 1n,
  ]);
  const length = random.pick([0, 1, 512, 4095, 4096, 65536, SIZE, random.below(70_000)]);
  const type = random.pick([0, 0, 1, 1, 3, 4, 5, 6, 7, 7, 8, 2, random.below(65536)]);
  const plausible = extended && type === 1 ? 32 : 0;
  const flags = random.below(4) === 0 ? random.below(65536) : plausible | random.pick([0, 0, 1, 2, 4, 8, 16]);
  const payload = (extended ? (flags & 32) !== 0 : type === 1) ? random.bytes(Math.min(length, 2000)) : Buffer.alloc(0);
  const fields = { flags, type, cookie: random.bytes(8), offset: edge };
  const wrong = random.below(200) === 0 ? 1 : 0;
  // Long payloads are zeroes behind the random start: what matters is where they end.
  const rest = Buffer.alloc(payload.length > 0 ? length - payload.length : 0);
  const header = extended
    ? nbdExtendedRequest.encode({ ...fields, magic: NBD_EXTENDED_REQUEST_MAGIC + wrong, length: BigInt(length) })
    : nbdRequest.encode({ ...fields, magic: NBD_REQUEST_MAGIC + wrong, length });
  return Buffer.concat([header, payload, rest]);
}

/** Sends frames until they are used up or the server has had enough; then leaves, tidily or not. */
async function oneConnection(running: TestServer, random: Random, framesLeft: number): Promise<number> {
  const client = await RawClient.connect(random.pick([running.tcp, running.unix]));
  const discard = client.closed();
  let frames = 1;
  client.send(random.below(20) === 0 ? random.bytes(4) : nbdClientFlags.encode({ flags: random.below(4) }));
  const optionCount = random.below(6);
  for (let i = 0; i < optionCount && frames < framesLeft; i++, frames++) client.send(randomOption(random));
  if (random.below(3) > 0) {
    const style = random.below(3);
    const go = infoData('disk');
    if (style > 0) client.send(nbdOption.encode({ magic: IHAVEOPT, option: style === 1 ? 8 : 11, length: 0 }));
    const contexts = contextData('disk', ['base:allocation', 'kloset:overlay']);
    client.send(nbdOption.encode({ magic: IHAVEOPT, option: 10, length: contexts.length }), contexts);
    client.send(nbdOption.encode({ magic: IHAVEOPT, option: 7, length: go.length }), go);
    const requestCount = random.below(60);
    for (let i = 0; i < requestCount && frames < framesLeft; i++, frames++) {
      const frame = randomRequest(random, style === 2);
      client.send(random.below(50) === 0 ? frame.subarray(0, random.below(frame.length)) : frame);
    }
  }
  if (random.below(3) === 0) client.destroy();
  else client.socket.end();
  await discard;
  client.destroy();
  return frames;
}

/** What the process holds on to: descriptors, and bytes that a collection of garbage leaves, in the heap and beside it. */
async function holdings(running: TestServer): Promise<{ descriptors: number; bytes: number }> {
  await until(() => running.server.counters.connectionsOpen === 0);
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    // What was closed is let go of in a later turn.
    await new Promise((resolve) => setImmediate(resolve));
    collect();
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { descriptors: readdirSync('/proc/self/fd').length, bytes: heapUsed + arrayBuffers };
}

/** What a run may leave behind whatever its length: code that was compiled late, the pool of reply buffers. */
const KEPT_BYTES_MAX = 8 * 1024 * 1024;

/** Sends so many frames to a server of its own, in four connections at a time, and expects all of the above. */
export async function fuzzServer({ frameCount, seed }: { frameCount: number; seed: number }): Promise<void> {
  const device = new StatusDevice(SIZE);
  const running = await startServer(device, { shared: true, limits: { lingerMsMax: 50 } });
  try {
    const random = randomFrom(seed);
    let early: Awaited<ReturnType<typeof holdings>> | undefined;
    for (let frames = 0; frames < frameCount; ) {
      if (frames > frameCount / 10) early ??= await holdings(running);
      const rounds = await Promise.all(Array.from({ length: 4 }, () => oneConnection(running, random, frameCount)));
      frames += rounds.reduce((sum, count) => sum + count, 0);
      (running.log as unknown[]).length = 0;
    }
    const late = await holdings(running);
    console.log(
      `${frameCount} frames, seed ${seed}: held early ${JSON.stringify(early)}, at the end ${JSON.stringify(late)}`,
    );
    expect(late.descriptors).toBe(early!.descriptors);
    expect(late.bytes - early!.bytes).toBeLessThan(KEPT_BYTES_MAX);
    expect(running.bugs).toEqual([]);
    expect(running.catalog.leases).toBe(0);
    const { counters } = running.server;
    expect(counters.errors).toBe(0);
    // The frames reach every part: requests are carried out, refused, and connections cut off.
    for (const count of [
      counters.bytesRead,
      counters.bytesWritten,
      counters.requestsRefused,
      counters.connectionsRefused,
    ]) {
      expect(count).toBeGreaterThan(0);
    }
    const client = await (await running.client()).go();
    expect(Buffer.compare(await client.read(0, SIZE), device.content)).toBe(0);
  } finally {
    await running.close();
  }
}
