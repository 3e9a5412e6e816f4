/**
 * From which size on a chunk is better decoded in the pool: time of the main thread (what other requests wait for) and
 * time until the chunk is there, in this thread and in a worker. It is where INLINE_DECODE_BYTES_MAX comes from.
 *
 *   npm run bench:inline [-- --seed 1]
 */
import { createSecretKey } from 'node:crypto';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { INLINE_DECODE_BYTES_MAX } from '../src/core/limits.ts';
import { KiB, MiB } from '../src/core/units.ts';
import { createCodec } from '../src/kloset/codec/codec.ts';
import { PooledDecoder } from '../src/workers/pool.ts';
import { randomBytesOf, writeLz4Frame } from '../test/unit/kloset/codec/store-writer.ts';
import { pgbenchBytes } from './decode-data.ts';

const SIZES = [4 * KiB, 16 * KiB, 64 * KiB, 128 * KiB, 256 * KiB, 512 * KiB, 1 * MiB, 4 * MiB];
const ROUNDS = 200;

const { values } = parseArgs({ options: { seed: { type: 'string', default: '1' } } });
const seed = Number(values.seed);
const parameters = {
  hashing: 'BLAKE3',
  macKey: createSecretKey(randomBytesOf(seed, 32)),
  compression: 'LZ4',
  encryption: undefined,
} as const;
const codec = await createCodec(parameters);

console.log(
  `machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}; seed ${seed}; ${ROUNDS} rounds`,
);
console.log('plain KiB   main thread us: inline    pool   ratio      latency us: inline    pool   (medians)');
const inline = await PooledDecoder.start(parameters, { threads: 1, inlineBytesMax: Number.POSITIVE_INFINITY });
const pooled = await PooledDecoder.start(parameters, { threads: 1, inlineBytesMax: 0 });
for (const size of SIZES) {
  const plain = pgbenchBytes(seed, size);
  const here = await measure(inline, plain);
  const there = await measure(pooled, plain);
  const columns = [
    (size / KiB).toFixed(0).padStart(9),
    here.mainUs.toFixed(0).padStart(25),
    there.mainUs.toFixed(0).padStart(7),
    (there.mainUs / here.mainUs).toFixed(2).padStart(7),
    here.latencyUs.toFixed(0).padStart(23),
    there.latencyUs.toFixed(0).padStart(7),
  ];
  console.log(columns.join(' '));
}
console.log(`in use: inline up to ${INLINE_DECODE_BYTES_MAX / KiB} KiB`);
await inline.close();
await pooled.close();

/** Medians over the rounds: how long the main thread was busy, and how long the chunk took. */
async function measure(decoder: PooledDecoder, plain: Uint8Array): Promise<{ mainUs: number; latencyUs: number }> {
  const frame = writeLz4Frame(plain);
  const stored = new Uint8Array(new SharedArrayBuffer(frame.byteLength));
  stored.set(frame);
  const expected = { mac: codec.mac(plain), plainBytes: plain.byteLength };
  const main: number[] = [];
  const latency: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const idleBefore = performance.eventLoopUtilization();
    const start = performance.now();
    await decoder.decode(stored, expected);
    latency.push((performance.now() - start) * 1000);
    main.push(performance.eventLoopUtilization(idleBefore).active * 1000);
    await new Promise(setImmediate);
  }
  return { mainUs: median(main), latencyUs: median(latency) };
}

function median(numbers: number[]): number {
  return numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}
