/** What a store's newest snapshot holds, read in this process: sizes and paths of files, and where chunks lie on the disk. */
import type { ChunkRef, ChunkStore, FileRef } from '../../src/core/chunk-store.ts';
import { assert } from '../../src/core/errors.ts';
import { entryPath, entryTypes } from '../../src/core/snapshot-tree.ts';
import { BLOCK_SIZE, KiB } from '../../src/core/units.ts';
import { locate } from '../../src/ext4/locate.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { HttpStore } from '../../src/kloset/http-store.ts';
import { KlosetSource } from '../../src/source/kloset-source.ts';
import { type OpenedStore, openStore, storeAt } from '../../test/support/kloset.ts';
import type { BenchStore } from './bench.ts';

/** Opens it through its location, near or far; the caller closes it. */
export function openContents({
  location,
  passphrase,
}: Pick<BenchStore, 'location' | 'passphrase'>): Promise<OpenedStore> {
  const isDistant = location.startsWith('http:');
  const network = { verifyCertificate: true, connectionsMax: 16, stallTimeoutMs: 30_000 };
  const store = isDistant ? new HttpStore({ url: new URL(location), ...network }) : storeAt(location);
  return openStore(store, passphrase === undefined ? {} : { passphrase });
}

export interface SnapshotContents {
  readonly fileBytes: number;
  readonly entryCount: number;
  /** Of all files that are not empty, as plakar names them. */
  readonly paths: readonly string[];
}

export async function readContents(opened: OpenedStore): Promise<SnapshotContents> {
  const source = await opened.source(opened.snapshots[0]!);
  const { tree } = source;
  const files = Array.from({ length: tree.length }, (_, entry) => entry).filter(
    (entry) => tree.type[entry] === entryTypes.file && tree.sizeBytes[entry]! > 0,
  );
  const fileBytes = files.reduce((sum, entry) => sum + tree.sizeBytes[entry]!, 0);
  const paths = files.map((entry) => entryPath(tree, entry));
  await source.close();
  return { fileBytes, entryCount: tree.length, paths };
}

/** A chunk and a place on the disk whose 8 KiB lie inside it. */
export interface PlacedChunk {
  readonly chunk: ChunkRef;
  readonly offset: number;
}

/** Smaller ones may not hold 8 KiB on a block's boundary wherever they begin. */
const PLACED_CHUNK_BYTES_MIN = 32 * KiB;

/** `placeChunks` of a store, read where it is near. */
export async function placeChunksOf(store: BenchStore): Promise<PlacedChunk[]> {
  const opened = await openContents({ ...store, location: store.directory });
  const chunks = await placeChunks(opened);
  await opened.close();
  return chunks;
}

/** All distinct chunks of the newest snapshot's files above 32 KiB, in the order of the disk that `serve latest` makes. */
async function placeChunks(opened: OpenedStore): Promise<PlacedChunk[]> {
  let asked: FileRef | undefined;
  /** Gives zeroes, and notes what file they belong to. */
  const contentChunks: ChunkStore = {
    async get({ file, lengthBytes }) {
      asked = file;
      return new Uint8Array(lengthBytes);
    },
    close: async () => {},
  };
  const header = opened.snapshots[0]!;
  const { repository, chunks: metadataChunks } = opened;
  const source = await KlosetSource.open({ repository, header, metadataChunks, contentChunks });
  const { tree, createdSeconds, snapshotId } = source;
  const layout = planLayout(tree, {}, { snapshotId, createdSeconds });
  const placed = new Map<string, PlacedChunk>();
  /** By entry and block of the file. */
  const pending = new Map<number, ReadonlyMap<number, ChunkRef>>();
  for (let entry = 0; entry < tree.length; entry++) {
    if (tree.type[entry] !== entryTypes.file || tree.sizeBytes[entry]! < PLACED_CHUNK_BYTES_MIN) continue;
    await source.read(entry, 0, new Uint8Array(1));
    assert(asked !== undefined, 'reading a file asks for a chunk');
    let start = 0;
    const wanted = new Map<number, ChunkRef>();
    for (const chunk of asked.chunks) {
      const middle = Math.floor((start + chunk.lengthBytes / 2) / BLOCK_SIZE);
      if (chunk.lengthBytes >= PLACED_CHUNK_BYTES_MIN) wanted.set(middle, chunk);
      start += chunk.lengthBytes;
    }
    pending.set(entry, wanted);
  }
  for (let block = 0; block < layout.parameters.deviceBlocks; ) {
    const place = locate(layout, block);
    const wanted = place.kind === 'file' ? pending.get(place.entry) : undefined;
    for (const [index, chunk] of wanted ?? []) {
      if (index < place.index || index + 1 >= place.index + place.blocks) continue;
      const key = Buffer.from(chunk.mac).toString('hex');
      if (!placed.has(key)) placed.set(key, { chunk, offset: (block + index - place.index) * BLOCK_SIZE });
    }
    block += place.blocks;
  }
  await source.close();
  return [...placed.values()];
}
