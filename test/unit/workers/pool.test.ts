/** The pool of decoding threads: right bytes, errors of every kind, and threads that die. */
import { spawnSync } from 'node:child_process';
import { createSecretKey } from 'node:crypto';
import type { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  AssertionError,
  CorruptStoreError,
  StoreUnavailableError,
  UnsupportedError,
  UserError,
} from '../../../src/core/errors.ts';
import { outcomeOf, resultOf } from '../../../src/core/outcome.ts';
import { type Codec, createCodec } from '../../../src/kloset/codec/codec.ts';
import { PooledDecoder } from '../../../src/workers/pool.ts';

const parameters = {
  hashing: 'BLAKE3',
  macKey: createSecretKey(Buffer.alloc(32, 1)),
  compression: undefined,
  encryption: undefined,
} as const;
const workers: Worker[] = [];
const noteWorker = (worker: Worker) => void workers.push(worker);
let decoder: PooledDecoder;
let codec: Codec;

beforeAll(async () => {
  process.on('worker', noteWorker);
  codec = await createCodec(parameters);
  decoder = await PooledDecoder.start(parameters, { threads: 1, inlineBytesMax: 100 });
});
afterAll(async () => {
  process.off('worker', noteWorker);
  await decoder.close();
});

function value(length: number): { stored: Uint8Array; mac: Uint8Array; plainBytes: number } {
  const stored = new Uint8Array(new SharedArrayBuffer(length)).fill(7);
  return { stored, mac: codec.mac(stored), plainBytes: length };
}

describe.each([
  ['inline', 100],
  ['in a thread', 101],
])('a value decoded %s', (_, length) => {
  it('is given when all is well', async () => {
    const { stored, ...expected } = value(length);
    expect(Buffer.from(await decoder.decode(stored, expected))).toEqual(Buffer.alloc(length, 7));
    await decoder.verify(stored, expected.mac);
  });

  it('is refused as damaged with another MAC or length', async () => {
    const { stored, mac, plainBytes } = value(length);
    const other = Uint8Array.from(mac, (byte) => byte ^ 1);
    await expect(decoder.decode(stored, { mac: other, plainBytes })).rejects.toBeInstanceOf(CorruptStoreError);
    await expect(decoder.verify(stored, other)).rejects.toBeInstanceOf(CorruptStoreError);
    await expect(decoder.decode(stored.subarray(1), { mac, plainBytes })).rejects.toBeInstanceOf(CorruptStoreError);
  });
});

it('a thread that dies fails what it had, and the pool goes on', async () => {
  const large = value(32 << 20);
  await decoder.verify(large.stored, large.mac); // The thread is there.
  const dying = decoder.decode(large.stored, large);
  const { length } = workers;
  await Promise.all([workers.at(-1)!.terminate(), expect(dying).rejects.toBeInstanceOf(StoreUnavailableError)]);
  const { stored, ...expected } = value(1000);
  expect(await decoder.decode(stored, expected)).toHaveLength(1000);
  expect(workers.length).toBeGreaterThan(length);
});

it('errors keep their kind from thread to thread, and a bug stays a bug', async () => {
  for (const error of [
    new CorruptStoreError('a'),
    new UnsupportedError('b'),
    new StoreUnavailableError('c'),
    new UserError('d', { exitCode: 77 }),
    new AssertionError('e'),
  ]) {
    const outcome = await outcomeOf(() => {
      throw error;
    });
    expect(() => resultOf(structuredClone(outcome))).toThrow(error);
    try {
      resultOf(structuredClone(outcome));
    } catch (rebuilt) {
      expect(rebuilt).toBeInstanceOf(error.constructor);
      if (error instanceof UserError) expect((rebuilt as UserError).exitCode).toBe(77);
    }
  }
  expect(resultOf(await outcomeOf(() => 5))).toBe(5);
  await expect(
    outcomeOf(() => {
      throw new TypeError('x');
    }),
  ).rejects.toBeInstanceOf(TypeError);
});

it('closed at once, it ends no thread that is still importing its code: Node.js 20 can die of that', async () => {
  const child = spawnSync(process.execPath, ['--input-type=module', '--eval', openAndCloseAtOnce], {
    encoding: 'utf8',
  });
  expect(child).toMatchObject({ status: 0, stdout: '50 threads, 0 ended while loading', stderr: '' });
});

/** Ten times five pools at once; a thread of Piscina's says first of all that it is ready. */
const openAndCloseAtOnce = `
  import { createSecretKey } from 'node:crypto';
  import { PooledDecoder } from ${JSON.stringify(new URL('../../../dist/workers/pool.js', import.meta.url).href)};
  let threads = 0;
  let endedLoading = 0;
  process.on('worker', (thread) => {
    threads++;
    let isLoaded = false;
    thread.once('message', () => { isLoaded = true; });
    thread.once('exit', () => { if (!isLoaded) endedLoading++; });
  });
  const macKey = createSecretKey(Buffer.alloc(32, 1));
  const parameters = { hashing: 'BLAKE3', macKey, compression: undefined, encryption: undefined };
  const openAndClose = async () => (await PooledDecoder.start(parameters, { threads: 1 })).close();
  for (let round = 0; round < 10; round++) await Promise.all(Array.from({ length: 5 }, openAndClose));
  process.stdout.write(threads + ' threads, ' + endedLoading + ' ended while loading');
`;
