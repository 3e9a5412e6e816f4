/** Opens fixture stores the way the command line does, piece by piece, for tests of the reader. */
import { ByteBudget } from '../../src/core/concurrency.ts';
import { newReadCounters, type ReadCounters } from '../../src/core/counters.ts';
import type { Decoder } from '../../src/core/decoder.ts';
import { entryName, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import { MiB } from '../../src/core/units.ts';
import { createCodec, requireMac } from '../../src/kloset/codec/codec.ts';
import { deriveKey } from '../../src/kloset/codec/key-derivation.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { PtarStore } from '../../src/kloset/ptar-store.ts';
import { Repository } from '../../src/kloset/repository.ts';
import { listSnapshots, type SnapshotHeader, type SnapshotListing } from '../../src/kloset/snapshot.ts';
import type { KlosetStore } from '../../src/kloset/store.ts';
import { ChunkCache } from '../../src/source/chunk-cache.ts';
import { KlosetChunkStore } from '../../src/source/kloset-chunk-store.ts';
import { KlosetSource } from '../../src/source/kloset-source.ts';
import type { WalkOptions } from '../../src/source/snapshot-walk.ts';
import { PooledDecoder } from '../../src/workers/pool.ts';

export interface OpenedStore extends SnapshotListing {
  readonly repository: Repository;
  readonly counters: ReadCounters;
  readonly decoder: Decoder;
  readonly chunks: ChunkCache;
  source(header: SnapshotHeader, path?: string, options?: WalkOptions): Promise<KlosetSource>;
  close(): Promise<void>;
}

export function storeAt(location: string): KlosetStore {
  return location.endsWith('.ptar') ? new PtarStore(location) : new LocalStore(location);
}

/** Everything below an opened snapshot, with one worker thread that takes values above `inlineBytesMax`; none if `inThread`. */
export async function openStore(
  store: KlosetStore,
  {
    passphrase = '',
    inlineBytesMax,
    inThread = false,
  }: { passphrase?: string; inlineBytesMax?: number; inThread?: boolean } = {},
): Promise<OpenedStore> {
  const counters = newReadCounters();
  const keys = { passphrase: async () => Buffer.from(passphrase), deriveKey };
  const repository = await Repository.open(store, { counters, keys });
  const limits = inlineBytesMax === undefined ? {} : { inlineBytesMax };
  const decoder = inThread
    ? await decoderInThread(repository)
    : await PooledDecoder.start(repository.codecParameters, { threads: 1, ...limits });
  const native = new KlosetChunkStore({ repository, decoder, counters, budget: new ByteBudget(64 * MiB) });
  const chunks = new ChunkCache(native, { bytesMax: 64 * MiB });
  return {
    repository,
    counters,
    ...(await listSnapshots(repository)),
    decoder,
    chunks,
    source: (header, path, options) =>
      KlosetSource.open({ repository, header, metadataChunks: chunks, contentChunks: chunks }, path, options),
    close: async () => {
      await chunks.close();
      await decoder.close();
      await store.close();
    },
  };
}

/** Starts nothing: for tests that open stores by the thousand. */
async function decoderInThread({ codecParameters }: Repository): Promise<Decoder> {
  const codec = await createCodec(codecParameters);
  return {
    async decode(stored, { mac, plainBytes }) {
      const target = new Uint8Array(plainBytes);
      codec.decodeChecked(stored, target, mac);
      return target;
    },
    verify: async (plain, mac) => requireMac(codec, plain, mac),
    close: async () => {},
  };
}

/** Path -> index, as latin1 so that no byte is lost. */
export function pathsOf(tree: SnapshotTree): Map<string, number> {
  const paths = [''];
  for (let i = 1; i < tree.length; i++) {
    paths.push(`${paths[tree.parent[i]!]}/${Buffer.from(entryName(tree, i)).toString('latin1')}`);
  }
  return new Map(paths.map((path, i) => [path, i]));
}
