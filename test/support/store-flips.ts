/**
 * One byte of a store is changed: whatever is read afterwards is the right thing or an error that names what is damaged,
 * never a wrong byte. Places are drawn by seed, from every kind of resource in turn.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { newReadCounters } from '../../src/core/counters.ts';
import { CorruptStoreError, type KlosetNbdError, UnsupportedError, UserError } from '../../src/core/errors.ts';
import { MAC_BYTES, toHex } from '../../src/core/mac.ts';
import { entryTypes } from '../../src/core/snapshot-tree.ts';
import { createCodec } from '../../src/kloset/codec/codec.ts';
import { resourceTypeName } from '../../src/kloset/format.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { readStates } from '../../src/kloset/state-reader.ts';
import { scanState } from '../../src/kloset/state-scan.ts';
import { storePath } from './fixtures.ts';
import { type Flip, FlippedStore } from './flips.ts';
import { openStore, pathsOf } from './kloset.ts';
import { type Random, seededRandom } from './overlay-random.ts';

/** What one look at a store gave: a digest of every file and of each entry's metadata, and the errors. */
interface Reading {
  readonly values: ReadonlyMap<string, string>;
  readonly errors: readonly { readonly error: unknown; readonly asked: readonly string[] }[];
}

export interface FlipReport {
  readonly flips: number;
  /** Kind of resource -> flips in it, and those among them that led to an error. */
  readonly kinds: ReadonlyMap<string, { flips: number; noticed: number }>;
}

/** A run of bytes whose flips are counted together. */
interface Region {
  readonly kind: string;
  readonly resource: Flip['resource'];
  readonly from: number;
  readonly bytes: number;
}

/** Envelope header: blobs' offsets do not count it. */
const HEADER_BYTES = 16;

async function readEverything(store: LocalStore | FlippedStore, passphrase: string): Promise<Reading> {
  const values = new Map<string, string>();
  const errors: { error: unknown; asked: readonly string[] }[] = [];
  let opened: Awaited<ReturnType<typeof openStore>>;
  try {
    opened = await openStore(store, { passphrase, inThread: true });
  } catch (error) {
    await store.close();
    return { values, errors: [{ error, asked: [] }] };
  }
  try {
    for (const { error } of opened.damaged) errors.push({ error, asked: [] });
    for (const header of opened.snapshots) {
      const { seconds, nanoseconds } = header.timestamp;
      const { type, origin, directory } = header.importer;
      const described = [seconds, nanoseconds, header.name, header.tags, type, origin, directory, header.totalBytes];
      values.set(`${header.id} header`, described.join());
      try {
        await readSnapshot(await opened.source(header), { values, errors });
      } catch (error) {
        errors.push({ error, asked: [] });
      }
    }
  } finally {
    await opened.close();
  }
  return { values, errors };
}

async function readSnapshot(
  source: Awaited<ReturnType<Awaited<ReturnType<typeof openStore>>['source']>>,
  { values, errors }: { values: Map<string, string>; errors: { error: unknown; asked: readonly string[] }[] },
): Promise<void> {
  const { tree, snapshotId } = source;
  const names = new Map<number, string[]>();
  for (const [path, entry] of pathsOf(tree)) {
    const inode = tree.sameInodeAs.get(entry) ?? entry;
    names.set(inode, [...(names.get(inode) ?? []), path]);
  }
  for (const [path, entry] of pathsOf(tree)) {
    const key = `${snapshotId}:${path}`;
    const { [entry]: mtime } = tree.mtimeSeconds;
    const target = Buffer.from(tree.linkTarget.get(entry) ?? []).toString('hex');
    const attributes = (tree.attributes.get(entry) ?? []).map(({ name, value }) => [toHex(name), toHex(value)]);
    const columns = [
      tree.type[entry],
      tree.mode[entry],
      tree.uid[entry],
      tree.gid[entry],
      tree.sizeBytes[entry],
      mtime,
    ];
    values.set(`${key} metadata`, [...columns, target, ...attributes].join());
    if (tree.type[entry] !== entryTypes.file) continue;
    const content = new Uint8Array(tree.sizeBytes[entry]!);
    try {
      await source.read(entry, 0, content);
      values.set(key, createHash('sha256').update(content).digest('hex'));
    } catch (error) {
      // A file of several names may be named by any.
      errors.push({ error, asked: names.get(tree.sameInodeAs.get(entry) ?? entry)! });
    }
  }
}

/** CONFIG, states, and of packfiles each blob by its type; what is left of them are their indexes and envelopes. */
async function regionsOf(directory: string, passphrase: string): Promise<Region[]> {
  const store = new LocalStore(directory);
  const opened = await openStore(store, { passphrase, inThread: true });
  try {
    const codec = await createCodec(opened.repository.codecParameters);
    const reader = { store, codec, counters: newReadCounters() };
    const { states } = await readStates(reader, await store.list('states'));
    const files = readdirSync(directory, { recursive: true }).map(String);
    const regions = files
      .filter((file) => /^CONFIG$|^(states|packfiles)\/..\/[0-9a-f]{64}$/.test(file))
      .map((file) => ({
        kind: file.startsWith('packfiles') ? 'anywhere in a packfile' : file.replace(/\/.*/, ''),
        resource: file.replace(/\/..\//, '/') as Flip['resource'],
        from: 0,
        bytes: statSync(join(directory, file)).size,
      }));
    const held = new Set(regions.map(({ resource }) => resource));
    for (const state of states) {
      scanState(state, {
        location(records, { type, packfileAt, offset, length }) {
          const resource = `packfiles/${toHex(records.subarray(packfileAt, packfileAt + MAC_BYTES))}` as const;
          if (length === 0 || !held.has(resource)) return;
          regions.push({ kind: resourceTypeName(type), resource, from: HEADER_BYTES + offset, bytes: length });
        },
        other() {},
      });
    }
    return regions;
  } finally {
    await opened.close();
  }
}

function passphraseOf(name: string): string {
  const manifest = JSON.parse(readFileSync(join(storePath(name), '../manifest.json'), 'utf8'));
  return manifest.encryption?.passphrase ?? '';
}

/** Flips `flips` bytes of a fixture store, one after the other, and compares what is read each time. */
export async function flipStore(name: string, { flips, seed }: { flips: number; seed: number }): Promise<FlipReport> {
  const directory = storePath(name);
  const passphrase = passphraseOf(name);
  const byKind = groupByKind(await regionsOf(directory, passphrase));
  const sound = await readEverything(new LocalStore(directory), passphrase);
  expect(sound.errors).toEqual([]);
  const random = seededRandom(seed);
  const kinds = new Map([...byKind.keys()].map((kind) => [kind, { flips: 0, noticed: 0 }]));
  for (let i = 0; i < flips; i++) {
    const kind = [...byKind.keys()][i % byKind.size]!;
    const flip = flipIn(byKind.get(kind)!, random);
    const reading = await readEverything(new FlippedStore(new LocalStore(directory), flip), passphrase);
    compare(reading, sound, flip);
    const count = kinds.get(kind)!;
    count.flips++;
    if (reading.errors.length > 0) count.noticed++;
  }
  return { flips, kinds };
}

function groupByKind(regions: readonly Region[]): Map<string, Region[]> {
  const groups = new Map<string, Region[]>();
  for (const region of regions) groups.set(region.kind, [...(groups.get(region.kind) ?? []), region]);
  return groups;
}

function flipIn(regions: readonly Region[], random: Random): Flip {
  const { resource, from, bytes } = regions[random.below(regions.length)]!;
  return { resource, at: from + random.below(bytes), mask: 1 << random.below(8) };
}

function compare({ values, errors }: Reading, sound: Reading, flip: Flip): void {
  const place = JSON.stringify(flip);
  for (const [key, value] of values) expect(value, `${key} after ${place}`).toBe(sound.values.get(key));
  for (const { error, asked } of errors) requireNamed(error, { asked, flip });
  // What nobody reads (padding, packfiles' own indexes) or can be had elsewhere (a list of a directory) may pass.
  if (errors.length === 0) expect(values.size, `${place} made something disappear`).toBe(sound.values.size);
}

/** The error is of the kind that damage makes, and names the resource that was damaged and the file that was asked for. */
function requireNamed(error: unknown, { asked, flip }: { asked: readonly string[]; flip: Flip }): void {
  const context = `${JSON.stringify(flip)}, asked for ${asked}: ${error}`;
  const [kind, id] = flip.resource.split('/');
  if (kind === 'CONFIG') {
    // A changed salt or canary is a wrong passphrase to whoever looks.
    const isKnown =
      error instanceof CorruptStoreError || error instanceof UnsupportedError || error instanceof UserError;
    expect(isKnown, context).toBe(true);
    return;
  }
  expect(error, context).toBeInstanceOf(CorruptStoreError);
  const { message, details } = error as KlosetNbdError;
  expect(message, context).toContain(id);
  if (kind === 'states') expect(details.state, context).toBe(id);
  else expect(details.packfile, context).toBe(id);
  if (asked.length === 0) return;
  expect(
    asked.map((path) => Buffer.from(path, 'latin1').toString()),
    context,
  ).toContain(details.file);
}

/** The report as a table, for whoever runs many. */
export function describeFlips(name: string, { flips, kinds }: FlipReport): string {
  const rows = [...kinds].map(
    ([kind, count]) => `  ${kind.padEnd(24)} ${count.flips} flips, ${count.noticed} led to an error`,
  );
  return [`${name}: ${flips} flips, no wrong byte`, ...rows].join('\n');
}
