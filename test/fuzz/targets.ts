/** Every parser of bytes from outside, and what is well-formed for each. */
import { createSecretKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { MiB } from '../../src/core/units.ts';
import { BTree, pathOrder } from '../../src/kloset/btree.ts';
import { type CodecParameters, createCodec } from '../../src/kloset/codec/codec.ts';
import { parseConfig } from '../../src/kloset/config.ts';
import { resourceTypes, stateRecords, versions } from '../../src/kloset/format.ts';
import { parseListing } from '../../src/kloset/http-store.ts';
import { LocationIndex } from '../../src/kloset/location-index.ts';
import { decodeMsgpack } from '../../src/kloset/msgpack.ts';
import { readPlakarStores } from '../../src/kloset/plakar-config.ts';
import { parsePtarLayout, ptarHeader, ptarTrailer, requirePtarSize } from '../../src/kloset/ptar-layout.ts';
import type { BlobId, Repository } from '../../src/kloset/repository.ts';
import { listSnapshots, readTrees } from '../../src/kloset/snapshot.ts';
import { parseState } from '../../src/kloset/state.ts';
import { parseDirpack, parseVfsEntry, parseXattrEntry, readChunkTable } from '../../src/kloset/vfs.ts';
import { parseContextQuery, parseInfoQuery, parseString } from '../../src/nbd/option-data.ts';
import { fixtureConfigs } from '../support/fixture-configs.ts';
import { encodeMsgpack, Str } from '../support/msgpack-writer.ts';
import { addSnapshot, DIRECTORY, dirpackRecord } from '../support/snapshot-writer.ts';
import { idOf, StoreWriter, stateBytes, stateRecord } from '../support/store-writer.ts';
import { encryptValue, randomBytesOf, writeLz4Frame, writeZstdFrame } from '../unit/kloset/codec/store-writer.ts';
import type { FuzzTarget } from './fuzz.ts';
import { hostileStore } from './hostile-store.ts';

/** Plain bytes that a decoder may give in these runs: beyond, an input asks for more than it may have. */
const PLAIN_BYTES_MAX = 1 * MiB;

/** Every blob of a written store, by its type: what the real parsers are given. */
const written = new Map<number, Uint8Array[]>();
{
  const store = new StoreWriter();
  const blob = store.blob.bind(store);
  store.blob = (type, plain, options) => {
    written.set(type, [...(written.get(type) ?? []), plain]);
    return blob(type, plain, options);
  };
  const content = [Buffer.from('one'), Buffer.from('two')];
  addSnapshot(store, {
    tags: ['a', 'b'],
    entries: [
      { path: '/', mode: DIRECTORY },
      { path: '/d', mode: DIRECTORY },
      ...['f', 'g', 'h', 'i', 'j'].map((name) => ({ path: `/d/${name}`, content, attributes: { 'user.x': 'y' } })),
      { path: '/link', target: '/d/f', inode: 5, links: 2 },
    ],
  });
}
const blobsOf = (type: number): Uint8Array[] => written.get(type)!;

/** A repository that has one blob, whatever it is asked for; trees get their descriptor. */
function repositoryOf(input: Uint8Array): Repository {
  const descriptor = blobsOf(resourceTypes.vfsTree)[0]!;
  const parts: Pick<Repository, 'readBlob' | 'requireMac' | 'snapshots' | 'cache'> & {
    config: { chunkBytesMax: number };
  } = {
    readBlob: async ({ type }: BlobId) => (type === resourceTypes.vfsTree ? descriptor : input),
    requireMac: () => {},
    snapshots: () => [idOf(1)],
    cache: undefined,
    config: { chunkBytesMax: 8 * MiB },
  };
  return parts as Repository;
}

async function scanTree(input: Uint8Array): Promise<void> {
  const types = { tree: resourceTypes.vfsTree, node: resourceTypes.vfsNode };
  const tree = await BTree.open(repositoryOf(input), new Uint8Array(32), types, pathOrder);
  await tree.get(Buffer.from('/d/f'));
  for await (const _ of tree.items(Buffer.from('/d'))) {
    // What it gives is its own business: here it has to end.
  }
}

async function readHeader(input: Uint8Array): Promise<void> {
  const { snapshots, damaged } = await listSnapshots(repositoryOf(input));
  for (const { error } of damaged) throw error;
  await readTrees(repositoryOf(input), snapshots[0]!);
}

const key = randomBytesOf(42, 32);
const words = Buffer.from('the same words, the same words, the same words again. '.repeat(30));
const random = randomBytesOf(3, 2000);

function codecTarget(
  name: string,
  parameters: Pick<CodecParameters, 'compression' | 'encryption'>,
  samples: readonly Uint8Array[],
): FuzzTarget {
  const codec = createCodec({ hashing: 'BLAKE3', macKey: createSecretKey(key), ...parameters });
  return {
    name,
    samples,
    async run(input) {
      const { decode, decodeChecked, mac } = await codec;
      // Both ways: with the length that an object records, and without.
      if (input.byteLength % 2 === 0) decode(input, PLAIN_BYTES_MAX);
      else decodeChecked(input, new Uint8Array(words.byteLength), mac(words));
    },
  };
}

function encryptedTarget(subKeyAlgorithm: 'AES256-KW' | 'AES256-GCM', segmentBytes: number): FuzzTarget {
  const options = { subKeyAlgorithm, segmentBytes, key, seed: 1 };
  const encryption = {
    subKeyAlgorithm,
    segmentBytes,
    dataAlgorithm: 'AES256-GCM-SIV' as const,
    key: createSecretKey(key),
  };
  const samples = [words, random, new Uint8Array(0)].map((plain) => encryptValue(plain, options));
  return codecTarget(`gcm-siv-${subKeyAlgorithm.toLowerCase()}`, { compression: undefined, encryption }, samples);
}

const states = [
  stateBytes({}),
  stateBytes({
    parent: idOf(1),
    records: [
      stateRecord(stateRecords.location, randomBytesOf(1, 85)),
      stateRecord(stateRecords.packfile, randomBytesOf(2, 72)),
      stateRecord(stateRecords.coloured, randomBytesOf(3, 41)),
      stateRecord(stateRecords.remove, Buffer.concat([Buffer.from([2, 9]), randomBytesOf(4, 64)])),
      stateRecord(99, randomBytesOf(5, 7)),
    ],
  }),
];

const configurations = [
  'version: v1.0.0\ndefault: a\nstores:\n  a:\n    location: /srv/a\n    passphrase: x\n  b: {location: "s3://h/b"}\n',
  'a:\n  location: /x\n  .isDefault: yes\n',
  'a: &a {location: /x}\nb: *a\nc: [*a, *a]\n',
].map((text) => Buffer.from(text));

export const targets: readonly FuzzTarget[] = [
  {
    name: 'msgpack',
    samples: [
      encodeMsgpack({ version: 1, keys: [new Str('a'), new Str('b')], time: { seconds: 5, nanoseconds: 6 } }),
      encodeMsgpack([1, -1, 2n ** 63n, 0.5, true, null, [[[]]], { a: { b: new Uint8Array(40) } }]),
    ],
    run: decodeMsgpack,
  },
  { name: 'config', samples: fixtureConfigs(), run: parseConfig },
  {
    name: 'state',
    samples: states,
    run: (input) => LocationIndex.merge([parseState('5'.repeat(64), versions.v1_1_0, input)]),
  },
  { name: 'ptar-layout', samples: [ptarSample()], run: parsePtar },
  {
    name: 'listing',
    samples: [Buffer.from(JSON.stringify(['0'.repeat(64), 'f'.repeat(64)])), Buffer.from('null')],
    run: (input) => parseListing(input, 'states'),
  },
  { name: 'vfs-entry', samples: blobsOf(resourceTypes.vfsEntry), run: parseVfsEntry },
  { name: 'xattr-entry', samples: blobsOf(resourceTypes.xattrEntry), run: parseXattrEntry },
  {
    name: 'dirpack',
    samples: [Buffer.concat(blobsOf(resourceTypes.vfsEntry).map(dirpackRecord)), new Uint8Array(0)],
    run: (input) => parseDirpack(input, { requireMac: () => {} }),
  },
  { name: 'btree', samples: [...blobsOf(resourceTypes.vfsNode), ...blobsOf(resourceTypes.indexNode)], run: scanTree },
  {
    name: 'object',
    samples: blobsOf(resourceTypes.object),
    run: (input) => readChunkTable(repositoryOf(input), idOf(1)),
  },
  {
    name: 'snapshot-header',
    samples: blobsOf(resourceTypes.snapshot),
    run: readHeader,
  },
  codecTarget('lz4', { compression: 'LZ4', encryption: undefined }, [
    writeLz4Frame(words),
    writeLz4Frame(random),
    writeLz4Frame(new Uint8Array(0)),
  ]),
  codecTarget('gzip', { compression: 'GZIP', encryption: undefined }, [
    gzipSync(words),
    gzipSync(random),
    gzipSync(new Uint8Array(8 * MiB)),
  ]),
  codecTarget('zstd', { compression: 'ZSTD', encryption: undefined }, [
    writeZstdFrame(words, { contentSize: true, blockBytes: 300 }),
    writeZstdFrame(random, { contentSize: false, blockBytes: 3000 }),
  ]),
  encryptedTarget('AES256-KW', 65536),
  encryptedTarget('AES256-GCM', 100),
  { name: 'plakar-configuration', samples: configurations, run: readConfiguration },
  {
    name: 'nbd-options',
    samples: [
      Buffer.from([0, 0, 0, 4, 0x64, 0x69, 0x73, 0x6b, 0, 1, 0, 3]),
      Buffer.from([0, 0, 0, 1, 0x61, 0, 0, 0, 1, 0, 0, 0, 1, 0x62]),
    ],
    run: (input) =>
      [parseString(input), parseInfoQuery(input), parseContextQuery(input)].some((query) => query !== undefined),
  },
  hostileStore,
];

function ptarSample(): Buffer {
  const head = ptarHeader.encode({ magic: Buffer.from('_PLATAR_'), version: versions.v1_0_0 });
  const sections = {
    configOffset: 12,
    configLength: 100,
    packfileOffset: 112,
    packfileLength: 50,
    stateOffset: 162,
    stateLength: 60,
  };
  return Buffer.concat([head, Buffer.alloc(210), ptarTrailer.encode(sections)]);
}

function parsePtar(input: Uint8Array): unknown {
  requirePtarSize(input.byteLength, 'archive');
  const [head, tail] = [input.subarray(0, ptarHeader.sizeBytes), input.subarray(-ptarTrailer.sizeBytes)];
  return parsePtarLayout({ head, tail, sizeBytes: input.byteLength }, 'archive');
}

function readConfiguration(input: Uint8Array): void {
  const directory = mkdtempSync(join(tmpdir(), 'kloset-nbd-fuzz-'));
  try {
    writeFileSync(join(directory, 'stores.yml'), input);
    readPlakarStores(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
