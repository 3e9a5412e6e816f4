/** The comparison with plakar itself: it `cat`s a file that it has backed up, and the file's chunks are decoded here. */
import { execFileSync } from 'node:child_process';
import { createSecretKey } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { ChunkStore } from '../src/core/chunk-store.ts';
import { toHex } from '../src/core/mac.ts';
import { entryTypes } from '../src/core/snapshot-tree.ts';
import { MiB } from '../src/core/units.ts';
import { type Codec, createCodec, plainHash } from '../src/kloset/codec/codec.ts';
import { deriveKey } from '../src/kloset/codec/key-derivation.ts';
import { parseConfig } from '../src/kloset/config.ts';
import { KlosetSource } from '../src/source/kloset-source.ts';
import { openStore, pathsOf, storeAt } from '../test/support/kloset.ts';
import { randomBytesOf } from '../test/unit/kloset/codec/store-writer.ts';
import { pgbenchBytes } from './decode-data.ts';

const PASSPHRASE = 'a passphrase for a benchmark';
/** Best of so many: other programs on the machine only ever make it slower. */
const ROUNDS = 3;
const CHUNK_TYPE = 9;
const HEADING = 'data            encrypted   ours MB/s   plakar MB/s   ratio   plakar cat in all, s';

/** Generated files, backed up here. */
export async function comparePlakar({ fileBytes, seed }: { fileBytes: number; seed: number }): Promise<void> {
  await withPlakar(async (folder) => {
    console.log(
      `\nagainst plakar: files of ${fileBytes / MiB} MiB; processor time of the whole chunk decode, and of cat`,
    );
    console.log('less that of cat of a file of one byte, which leaves start and key derivation out; best of 3');
    console.log(HEADING);
    for (const data of ['pgbench-like', 'incompressible'] as const) {
      const plain = data === 'pgbench-like' ? pgbenchBytes(seed, fileBytes) : randomBytesOf(seed, fileBytes);
      for (const encrypted of [false, true]) {
        const made = path.join(folder, `${data}-${encrypted}`);
        const backedUp = path.join(made, 'data');
        mkdirSync(backedUp, { recursive: true });
        writeFileSync(path.join(backedUp, 'file'), plain);
        writeFileSync(path.join(backedUp, 'small'), 'x');
        const run = new PlakarRun(path.join(made, 'store'), made, encrypted ? PASSPHRASE : undefined);
        run.plakar('create', ...(encrypted ? [] : ['-plaintext']));
        run.plakar('backup', backedUp);
        const files = [path.join(backedUp, 'file')];
        await compare(run, { name: data, files, fileBytes, small: path.join(backedUp, 'small') });
      }
    }
  });
}

/** The largest files of the newest snapshot of a store, of `bytesMin` together; its passphrase is in PLAKAR_PASSPHRASE. */
export async function compareStore(location: string, bytesMin: number): Promise<void> {
  await withPlakar(async (folder) => {
    const passphrase = process.env.PLAKAR_PASSPHRASE;
    const largest = await largestFiles(location, passphrase, bytesMin);
    const { files, fileBytes, macs } = largest;
    const stored = `${macs!.length} chunks, ${new Set(macs).size} of them different`;
    const size = `the ${files.length} largest, ${(fileBytes / MiB).toFixed(0)} MiB in ${stored}`;
    console.log(`\nagainst plakar: files of ${location}, ${size}`);
    console.log(HEADING);
    const run = new PlakarRun(path.resolve(location), folder, passphrase);
    await compare(run, { name: 'the store', ...largest });
  });
}

async function withPlakar(work: (folder: string) => Promise<void>): Promise<void> {
  try {
    execFileSync('plakar', ['-disable-security-check'], { stdio: 'pipe' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    console.log('\nplakar is not on PATH: no comparison with its cat');
    return;
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), 'decode-bench-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

interface Compared {
  readonly name: string;
  /** Paths in the newest snapshot, and their bytes together. */
  readonly files: readonly string[];
  readonly fileBytes: number;
  /** A file next to nothing, for what `cat` takes without its bytes. */
  readonly small: string;
  /** MACs of the files' chunks in order, hexadecimal; undefined: all chunks of the store. */
  readonly macs?: readonly string[];
}

async function compare(run: PlakarRun, { name, files, fileBytes, small, macs }: Compared): Promise<void> {
  const without = best(() => run.catSeconds([small]));
  const whole = best(() => run.catSeconds(files));
  const codec = await run.openCodec();
  const stored = run.storedChunks(codec);
  const byMac = new Map(stored.map((chunk) => [toHex(chunk.mac), chunk]));
  const chunks = macs?.map((mac) => byMac.get(mac)!) ?? stored;
  const theirs = fileBytes / 1e6 / (whole - without);
  const ours = fileBytes / 1e6 / best(() => decodeSeconds(codec, chunks, fileBytes));
  const encrypted = run.isEncrypted ? 'yes' : 'no';
  const columns = [name.padEnd(15), encrypted.padEnd(9), ours.toFixed(0).padStart(11)];
  columns.push(theirs.toFixed(0).padStart(13), (ours / theirs).toFixed(2).padStart(7));
  console.log(`${columns.join(' ')} ${whole.toFixed(2).padStart(22)}`);
}

async function largestFiles(
  location: string,
  passphrase: string | undefined,
  bytesMin: number,
): Promise<Omit<Compared, 'name'>> {
  const opened = await openStore(storeAt(location), passphrase === undefined ? {} : { passphrase });
  try {
    const macs: string[] = [];
    /** Gives zeroes, and notes what the file consists of. */
    const contentChunks: ChunkStore = {
      async get({ file, lengthBytes }) {
        macs.push(...file.chunks.map(({ mac }) => toHex(mac)));
        return new Uint8Array(lengthBytes);
      },
      close: async () => {},
    };
    const { repository, chunks: metadataChunks } = opened;
    const source = await KlosetSource.open({ repository, header: opened.snapshots[0]!, metadataChunks, contentChunks });
    const { tree } = source;
    const sized = [...pathsOf(tree)]
      .filter(([, entry]) => tree.type[entry] === entryTypes.file && tree.sizeBytes[entry]! > 0)
      .sort(([, a], [, b]) => tree.sizeBytes[b]! - tree.sizeBytes[a]!);
    const files: string[] = [];
    let fileBytes = 0;
    for (const [name, entry] of sized) {
      if (fileBytes >= bytesMin) break;
      files.push(Buffer.from(name, 'latin1').toString());
      fileBytes += tree.sizeBytes[entry]!;
      await source.read(entry, 0, new Uint8Array(1));
    }
    return { files, fileBytes, small: Buffer.from(sized.at(-1)![0], 'latin1').toString(), macs };
  } finally {
    await opened.close();
  }
}

interface StoredChunk {
  readonly stored: Uint8Array;
  readonly plainBytes: number;
  readonly mac: Uint8Array;
}

/** A store that plakar reads, with caches of its own in `folder`. */
class PlakarRun {
  readonly #folder: string;
  readonly #store: string;
  readonly #passphrase: string | undefined;

  constructor(store: string, folder: string, passphrase: string | undefined) {
    this.#store = store;
    this.#folder = folder;
    this.#passphrase = passphrase;
  }

  get isEncrypted(): boolean {
    return this.#passphrase !== undefined;
  }

  /** Processor time of `plakar cat` of files, in seconds, user and system: what a shell's `times` counts. */
  catSeconds(files: readonly string[]): number {
    // The first run prints a welcome before it.
    const snapshot = /^\d{4}-\S+\s+([0-9a-f]{8})\s/m.exec(this.plakar('ls'))![1];
    const operands = files.map((file) => `${snapshot}:${file}`);
    const script = 'store=$1; shift; plakar at "$store" cat "$@" > /dev/null && times';
    const out = execFileSync('sh', ['-c', script, 'sh', this.#store, ...operands], this.#options()).toString();
    const children = out.trim().split('\n').at(-1)!;
    const seconds = [...children.matchAll(/(\d+)m([\d.]+)s/g)].map(([, m, s]) => 60 * Number(m) + Number(s));
    return seconds.reduce((sum, value) => sum + value, 0);
  }

  async openCodec(): Promise<Codec> {
    const config = parseConfig(readFileSync(path.join(this.#store, 'CONFIG')));
    const { hashing, compression, encryption } = config;
    const key = encryption && (await deriveKey(Buffer.from(this.#passphrase ?? ''), encryption.kdf));
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

  plakar(...parameters: string[]): string {
    return execFileSync('plakar', ['at', this.#store, ...parameters], this.#options()).toString();
  }

  #options() {
    const env = { ...process.env, XDG_CACHE_HOME: path.join(this.#folder, 'cache') };
    const passphrase = this.isEncrypted ? { PLAKAR_PASSPHRASE: this.#passphrase } : {};
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
    codec.decodeChecked(stored, target.subarray(0, plainBytes), mac);
    decodedBytes += plainBytes;
  }
  const { user, system } = process.cpuUsage(start);
  return ((user + system) / 1e6) * (fileBytes / decodedBytes);
}

function best(measure: () => number): number {
  return Math.min(...Array.from({ length: ROUNDS }, measure));
}
