/** The comparison with plakar itself: it backs a generated file up, `cat`s it, and its chunks are decoded here. */
import { execFileSync } from 'node:child_process';
import { createSecretKey } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { MiB } from '../src/core/units.ts';
import { type Codec, createCodec, plainHash } from '../src/kloset/codec/codec.ts';
import { deriveKey } from '../src/kloset/codec/key-derivation.ts';
import { parseConfig } from '../src/kloset/config.ts';
import { randomBytesOf } from '../test/unit/kloset/codec/store-writer.ts';
import { pgbenchBytes } from './decode-data.ts';

const PASSPHRASE = 'a passphrase for a benchmark';
/** Best of so many: other programs on the machine only ever make it slower. */
const ROUNDS = 3;
const CHUNK_TYPE = 9;

export async function comparePlakar({ fileBytes, seed }: { fileBytes: number; seed: number }): Promise<void> {
  try {
    execFileSync('plakar', ['-disable-security-check'], { stdio: 'pipe' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    console.log('\nplakar is not on PATH: no comparison with its cat');
    return;
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), 'decode-bench-'));
  try {
    console.log(
      `\nagainst plakar: files of ${fileBytes / MiB} MiB; processor time of the whole chunk decode, and of cat`,
    );
    console.log('less that of cat of a file of one byte, which leaves start and key derivation out; best of 3');
    console.log('data            encrypted   ours MB/s   plakar MB/s   ratio   plakar cat in all, s');
    for (const data of ['pgbench-like', 'incompressible'] as const) {
      const plain = data === 'pgbench-like' ? pgbenchBytes(seed, fileBytes) : randomBytesOf(seed, fileBytes);
      for (const encrypted of [false, true]) {
        const run = new PlakarRun(path.join(folder, `${data}-${encrypted}`), encrypted);
        run.backUp(plain);
        const small = best(() => run.catSeconds('small'));
        const whole = best(() => run.catSeconds('file'));
        const codec = await run.openCodec();
        const chunks = run.storedChunks(codec);
        const theirs = fileBytes / 1e6 / (whole - small);
        const ours = fileBytes / 1e6 / best(() => decodeSeconds(codec, chunks, fileBytes));
        const columns = [data.padEnd(15), (encrypted ? 'yes' : 'no').padEnd(9), ours.toFixed(0).padStart(11)];
        columns.push(theirs.toFixed(0).padStart(13), (ours / theirs).toFixed(2).padStart(7));
        console.log(`${columns.join(' ')} ${whole.toFixed(2).padStart(22)}`);
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

interface StoredChunk {
  readonly stored: Uint8Array;
  readonly plainBytes: number;
  readonly mac: Uint8Array;
}

/** One store with one snapshot of two files. */
class PlakarRun {
  readonly #folder: string;
  readonly #store: string;
  readonly #encrypted: boolean;

  constructor(folder: string, encrypted: boolean) {
    this.#folder = folder;
    this.#store = path.join(folder, 'store');
    this.#encrypted = encrypted;
    mkdirSync(path.join(folder, 'data'), { recursive: true });
  }

  backUp(plain: Uint8Array): void {
    writeFileSync(path.join(this.#folder, 'data/file'), plain);
    writeFileSync(path.join(this.#folder, 'data/small'), 'x');
    this.#plakar('create', ...(this.#encrypted ? [] : ['-plaintext']));
    this.#plakar('backup', path.join(this.#folder, 'data'));
  }

  /** Processor time of `plakar cat` of one of the files, in seconds, user and system: what a shell's `times` counts. */
  catSeconds(name: 'file' | 'small'): number {
    const snapshot = this.#plakar('ls').trim().split(/\s+/)[1]!;
    const operand = `${snapshot}:${path.join(this.#folder, 'data', name)}`;
    const script = 'plakar at "$1" cat "$2" > /dev/null && times';
    const out = execFileSync('sh', ['-c', script, 'sh', this.#store, operand], this.#options()).toString();
    const children = out.trim().split('\n').at(-1)!;
    const seconds = [...children.matchAll(/(\d+)m([\d.]+)s/g)].map(([, m, s]) => 60 * Number(m) + Number(s));
    return seconds.reduce((sum, value) => sum + value, 0);
  }

  async openCodec(): Promise<Codec> {
    const config = parseConfig(readFileSync(path.join(this.#store, 'CONFIG')));
    const { hashing, compression, encryption } = config;
    const key = encryption && (await deriveKey(Buffer.from(PASSPHRASE), encryption.kdf));
    return createCodec({
      hashing,
      compression,
      macKey: key ?? createSecretKey(await plainHash(hashing, config.repositoryId)),
      encryption: encryption && key && { ...encryption, key },
    });
  }

  /** Every file chunk of the store, found through packfile footers (kloset-format.md 8.1). */
  storedChunks(codec: Codec): StoredChunk[] {
    return readdirSync(path.join(this.#store, 'packfiles'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .flatMap((entry) => chunksOfPackfile(codec, readFileSync(path.join(entry.parentPath, entry.name))));
  }

  #plakar(...parameters: string[]): string {
    return execFileSync('plakar', ['at', this.#store, ...parameters], this.#options()).toString();
  }

  #options() {
    const env = { ...process.env, XDG_CACHE_HOME: path.join(this.#folder, 'cache') };
    const passphrase = this.#encrypted ? { PLAKAR_PASSPHRASE: PASSPHRASE } : {};
    return { env: { ...env, ...passphrase }, stdio: ['ignore', 'pipe', 'inherit'] as ['ignore', 'pipe', 'inherit'] };
  }
}

function chunksOfPackfile(codec: Codec, file: Buffer): StoredChunk[] {
  const payload = file.subarray(16, -32);
  const footerEnd = payload.byteLength - 4;
  const footerAt = footerEnd - payload.readUInt32LE(footerEnd);
  const footer = Buffer.from(codec.decode(payload.subarray(footerAt, footerEnd), 56));
  const indexAt = Number(footer.readBigUInt64LE(12));
  const index = Buffer.from(codec.decode(payload.subarray(indexAt, footerAt), 64 * MiB));
  const chunks: StoredChunk[] = [];
  for (let at = 0; at < index.byteLength; at += 56) {
    if (index.readUInt32LE(at) !== CHUNK_TYPE) continue;
    const offset = Number(index.readBigUInt64LE(at + 40));
    const stored = payload.subarray(offset, offset + index.readUInt32LE(at + 48));
    const plainBytes = codec.decode(stored, 64 * MiB).byteLength;
    chunks.push({ stored, plainBytes, mac: index.subarray(at + 8, at + 40) });
  }
  return chunks;
}

/** Processor time to decode and check each chunk once, scaled to `fileBytes`: repeated chunks are stored once. */
function decodeSeconds(codec: Codec, chunks: readonly StoredChunk[], fileBytes: number): number {
  const target = new Uint8Array(new SharedArrayBuffer(Math.max(...chunks.map(({ plainBytes }) => plainBytes))));
  const start = process.cpuUsage();
  let decodedBytes = 0;
  for (const { stored, plainBytes, mac } of chunks) {
    const plain = target.subarray(0, plainBytes);
    codec.decodeInto(stored, plain);
    if (Buffer.compare(codec.mac(plain), mac) !== 0) throw new Error('a chunk decoded to something else');
    decodedBytes += plainBytes;
  }
  const { user, system } = process.cpuUsage(start);
  return ((user + system) / 1e6) * (fileBytes / decodedBytes);
}

function best(measure: () => number): number {
  return Math.min(...Array.from({ length: ROUNDS }, measure));
}
