/**
 * How fast chunks are decoded (decrypted, decompressed, MAC checked), in MB per second of processor time: each
 * combination of algorithms on generated data, with both sets of kernels; and, where plakar is on PATH, chunks that it
 * wrote, against its own `cat` of the same file.
 *
 *   npm run bench:decode -- [--mib 256] [--seed 1] [--store DIRECTORY]          --store: files of a store of yours, too,
 *                                                                               its passphrase in PLAKAR_PASSPHRASE
 */
import { createSecretKey } from 'node:crypto';
import os from 'node:os';
import { parseArgs } from 'node:util';
import zlib from 'node:zlib';
import { MiB } from '../src/core/units.ts';
import { type Codec, type CodecParameters, createCodec } from '../src/kloset/codec/codec.ts';
import type { KernelChoice } from '../src/kloset/codec/kernels.ts';
import { encryptValue, randomBytesOf, writeLz4Frame } from '../test/unit/kloset/codec/store-writer.ts';
import { pgbenchBytes } from './decode-data.ts';
import { comparePlakar, compareStore } from './decode-plakar.ts';

/** Plain bytes of a generated chunk: near the median of a PostgreSQL table's. */
const CHUNK_BYTES = 2 * MiB;
const SEGMENT_BYTES = 65536;
const MEASURED_MS_MIN = 1000;

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256' },
    seed: { type: 'string', default: '1' },
    store: { type: 'string', multiple: true, default: [] },
  },
});
const seed = Number(values.seed);
const key = randomBytesOf(seed, 32);

type Compression = CodecParameters['compression'];
type Compressor = (plain: Uint8Array) => Uint8Array;
/** Node 20 has no compressor for Zstandard: the line is left out there. */
const zstd = (zlib as { readonly zstdCompressSync?: Compressor }).zstdCompressSync;
const compressors: readonly [Compression, Compressor | undefined][] = [
  [undefined, (plain) => plain],
  ['LZ4', (plain) => writeLz4Frame(plain)],
  ['GZIP', (plain) => zlib.gzipSync(plain)],
  ['ZSTD', zstd],
];

console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}, ${os.platform()} ${os.arch()}`);
console.log(
  `node ${process.version}, seed ${seed}, chunks of ${CHUNK_BYTES / MiB} MiB; MB are 10^6 bytes of plain data`,
);
await benchGenerated();
await comparePlakar({ fileBytes: Number(values.mib) * MiB, seed });
for (const store of values.store) await compareStore(store, Number(values.mib) * MiB);

async function benchGenerated(): Promise<void> {
  const contents = [
    { name: 'pgbench-like', plain: pgbenchBytes(seed, CHUNK_BYTES) },
    { name: 'incompressible', plain: randomBytesOf(seed + 1, CHUNK_BYTES) },
  ];
  console.log('\ndata            hashing  compression  encrypted  stored %   WebAssembly MB/s   TypeScript MB/s');
  for (const { name, plain } of contents) {
    for (const [compression, compress] of compressors) {
      if (compress === undefined) continue;
      const compressed = compress(plain);
      for (const encrypted of [false, true]) {
        const stored = encrypted
          ? encryptValue(compressed, { key, subKeyAlgorithm: 'AES256-KW', segmentBytes: SEGMENT_BYTES, seed })
          : compressed;
        for (const hashing of ['BLAKE3', 'SHA256'] as const) {
          const rates: string[] = [];
          for (const kernels of ['webassembly', 'typescript'] as const) {
            const codec = await openCodec({ hashing, compression, encrypted, kernels });
            rates.push(rateOf(codec, stored, plain).toFixed(0));
          }
          const share = ((100 * stored.byteLength) / plain.byteLength).toFixed(1);
          const columns = [name.padEnd(15), hashing.padEnd(8), (compression ?? 'none').padEnd(12)];
          columns.push((encrypted ? 'yes' : 'no').padEnd(9), share.padStart(9), rates[0]!.padStart(18));
          console.log(`${columns.join(' ')} ${rates[1]!.padStart(17)}`);
        }
      }
    }
  }
}

function openCodec(options: {
  hashing: CodecParameters['hashing'];
  compression: Compression;
  encrypted: boolean;
  kernels: KernelChoice;
}): Promise<Codec> {
  const { hashing, compression, encrypted, kernels } = options;
  const keyObject = createSecretKey(key);
  const encryption = {
    subKeyAlgorithm: 'AES256-KW',
    dataAlgorithm: 'AES256-GCM-SIV',
    segmentBytes: SEGMENT_BYTES,
    key: keyObject,
  } as const;
  const parameters = { hashing, macKey: keyObject, compression, encryption: encrypted ? encryption : undefined };
  return createCodec(parameters, { kernels });
}

/** Decodes one chunk again and again; MB of plain bytes per second of processor time, both user and system. */
function rateOf(codec: Codec, stored: Uint8Array, plain: Uint8Array): number {
  const target = new Uint8Array(new SharedArrayBuffer(plain.byteLength));
  const mac = codec.mac(plain);
  const decode = () => codec.decodeChecked(stored, target, mac);
  for (let warmUp = 0; warmUp < 5; warmUp++) decode();
  const start = process.cpuUsage();
  let [decoded, spentUs] = [0, 0];
  while (spentUs < MEASURED_MS_MIN * 1000) {
    decode();
    decoded += plain.byteLength;
    const { user, system } = process.cpuUsage(start);
    spentUs = user + system;
  }
  return decoded / spentUs;
}
