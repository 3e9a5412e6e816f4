/**
 * Our own reader and `plakar cat` must give the same bytes for every file of every store: each is the other's oracle.
 * Reads are of random ranges, many at once, so that streams, batches and the spool all have their part; then every file
 * is compared whole.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { mapConcurrently } from '../../src/core/concurrency.ts';
import { silentLog } from '../../src/core/log.ts';
import { type ContentReader, entryPath, entryTypes } from '../../src/core/snapshot-tree.ts';
import { MiB } from '../../src/core/units.ts';
import { ChunkCache } from '../../src/source/chunk-cache.ts';
import { KlosetSource } from '../../src/source/kloset-source.ts';
import { PlakarCatChunkStore } from '../../src/source/plakar-cat-chunk-store.ts';
import { albumStore, Cleanup, copyOfStore, projectRoot, storePath, temporaryFolder } from '../support/fixtures.ts';
import { openStore, storeAt } from '../support/kloset.ts';
import { requires } from '../support/requires.ts';

/** All that differs for the two readers: odd names, tar's links, many chunks a file, ciphers, an archive. */
const stores = ['album', 'plain', 'tar', 'manychunks', 'encrypted', 'sha256-nocompress', 'multi-deleted', 'ptar-plain'];

const READS_IN_FLIGHT = 16;
const RANGES_A_SNAPSHOT = 200;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

async function openBoth(name: string) {
  const passphrase = name === 'album' ? undefined : passphraseOf(name);
  const opened = await openStore(storeAt(locationOf(name)), passphrase === undefined ? {} : { passphrase });
  cleanup.add(() => opened.close());
  const { repository, decoder, chunks: metadataChunks } = opened;
  const plakar = await PlakarCatChunkStore.open({
    plakar: { command: 'plakar', location: repository.location, passphrase, cacheDir: temporaryFolder(cleanup) },
    decoder,
    log: silentLog,
    spool: { directory: temporaryFolder(cleanup) },
  });
  // Too small for any chunk: the spool answers what is read twice.
  const contentChunks = new ChunkCache(plakar, { bytesMax: 1 });
  cleanup.add(() => contentChunks.close());
  return {
    opened,
    plakar,
    openPlakar: (header: (typeof opened.snapshots)[number]) =>
      KlosetSource.open({ repository, header, metadataChunks, contentChunks }),
  };
}

function locationOf(name: string): string {
  if (name.startsWith('ptar')) return storePath(name, 'archive.ptar');
  // A copy: plakar may write locks into a directory store.
  return copyOfStore(cleanup, name === 'album' ? albumStore : storePath(name));
}

function passphraseOf(name: string): string | undefined {
  const manifest = JSON.parse(readFileSync(join(projectRoot, 'fixtures/stores', name, 'manifest.json'), 'utf8'));
  return manifest.encryption?.passphrase ?? manifest.passphrase;
}

function filesOf({ tree }: KlosetSource): number[] {
  return [...tree.type.keys()].filter((entry) => tree.type[entry] === entryTypes.file);
}

function sizeOf({ tree }: KlosetSource, entry: number): number {
  return tree.sizeBytes[entry]!;
}

/** A fixed sequence of numbers in [0, 1): the same ranges in each run. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

async function readRange(source: ContentReader, entry: number, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length);
  await source.read(entry, offset, target);
  return target;
}

async function compare(native: KlosetSource, plakar: ContentReader, entry: number, offset: number, length: number) {
  const [expected, actual] = await Promise.all([native, plakar].map((from) => readRange(from, entry, offset, length)));
  // A differing megabyte printed byte by byte helps nobody.
  const same = expected!.equals(actual!);
  expect(same, `${entryPath(native.tree, entry)}: ${length} bytes from ${offset}`).toBe(true);
}

const need = requires('plakar');
describe.skipIf(need.missing)(need.title('our reader and plakar cat'), () => {
  test.each(stores)('give the same bytes: %s', async (name) => {
    const { opened, plakar, openPlakar } = await openBoth(name);
    for (const header of opened.snapshots) {
      const native = await opened.source(header);
      const other = await openPlakar(header);
      const files = filesOf(native);
      expect(files.length).toBeGreaterThan(0);
      const random = numbers(files.length);
      const ranges = Array.from({ length: RANGES_A_SNAPSHOT }, () => {
        const entry = files[Math.floor(random() * files.length)]!;
        const sizeBytes = sizeOf(native, entry);
        const offset = Math.floor(random() * sizeBytes);
        return { entry, offset, length: Math.floor(random() * Math.min(sizeBytes - offset, MiB)) };
      });
      await mapConcurrently(ranges, READS_IN_FLIGHT, ({ entry, offset, length }) =>
        compare(native, other, entry, offset, length),
      );
      const compareAll = () =>
        mapConcurrently(files, READS_IN_FLIGHT, (entry) => compare(native, other, entry, 0, sizeOf(native, entry)));
      await compareAll();
      // All of it has passed: from here on the spool answers.
      const { storeRequests } = plakar.counters;
      await compareAll();
      expect(plakar.counters.storeRequests).toBe(storeRequests);
    }
    expect(plakar.counters.storeRequests).toBeGreaterThan(0);
  });

  test('are compared by something that can fail', async () => {
    const { opened, openPlakar } = await openBoth('manychunks');
    const native = await opened.source(opened.snapshots[0]!);
    const other = await openPlakar(opened.snapshots[0]!);
    const flipped: ContentReader = {
      async read(entry, offset, target) {
        await other.read(entry, offset, target);
        target[target.byteLength - 1]! ^= 1;
      },
    };
    const entry = filesOf(native).find((each) => sizeOf(native, each) > 0)!;
    await compare(native, other, entry, 0, sizeOf(native, entry));
    await expect(compare(native, flipped, entry, 0, sizeOf(native, entry))).rejects.toThrow(/bytes from 0/);
  });
});
