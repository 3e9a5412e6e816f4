/**
 * One byte of a store is changed, anywhere: whatever is read afterwards is the right thing or an error, never a wrong
 * byte. Places are drawn by seed; KLOSET_NBD_FLIPS asks for more of them.
 */
import { createHash } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CorruptStoreError, UnsupportedError } from '../../src/core/errors.ts';
import { entryTypes } from '../../src/core/snapshot-tree.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { albumStore, storePath } from '../support/fixtures.ts';
import { type Flip, FlippedStore } from '../support/flips.ts';
import { openStore, pathsOf } from '../support/kloset.ts';

const FLIPS = Number(process.env.KLOSET_NBD_FLIPS ?? 30);
const SEED = Number(process.env.KLOSET_NBD_SEED ?? 20_261_122);

/** What one look at a store gave: a digest of every file and of each entry's metadata, or the error. */
interface Reading {
  readonly values: ReadonlyMap<string, string>;
  readonly errors: readonly unknown[];
}

async function readEverything(store: LocalStore | FlippedStore): Promise<Reading> {
  const values = new Map<string, string>();
  const errors: unknown[] = [];
  let opened: Awaited<ReturnType<typeof openStore>>;
  try {
    opened = await openStore(store, { inlineBytesMax: Number.POSITIVE_INFINITY });
  } catch (error) {
    await store.close();
    return { values, errors: [error] };
  }
  try {
    for (const header of opened.snapshots) {
      const source = await opened.source(header);
      const { tree } = source;
      for (const [path, entry] of pathsOf(tree)) {
        const key = `${header.id}:${path}`;
        const { [entry]: mtime } = tree.mtimeSeconds;
        values.set(
          `${key} metadata`,
          [tree.type[entry], tree.mode[entry], tree.uid[entry], tree.sizeBytes[entry], mtime].join(),
        );
        if (tree.type[entry] !== entryTypes.file) continue;
        const content = new Uint8Array(tree.sizeBytes[entry]!);
        try {
          await source.read(entry, 0, content);
          values.set(key, createHash('sha256').update(content).digest('hex'));
        } catch (error) {
          errors.push(error);
        }
      }
    }
  } catch (error) {
    errors.push(error);
  } finally {
    await opened.close();
  }
  return { values, errors };
}

/** Every file of a directory store, by the name a Flip has for it. */
function resourcesOf(directory: string): { resource: Flip['resource']; bytes: number }[] {
  const files = readdirSync(directory, { recursive: true }).map(String);
  return files
    .filter((file) => /^CONFIG$|^(states|packfiles)\/..\/[0-9a-f]{64}$/.test(file))
    .map((file) => ({
      resource: file.replace(/\/..\//, '/') as Flip['resource'],
      bytes: statSync(join(directory, file)).size,
    }));
}

/** A linear congruential generator (Numerical Recipes): numbers from 0 to below `limit`. */
function randomFrom(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

describe.each([
  ['album', albumStore],
  ['plain', storePath('plain')],
  ['multi-maintained', storePath('multi-maintained')],
])(`%s with one byte changed, seed ${SEED}`, (_, directory) => {
  it(`never gives a wrong byte in ${FLIPS} places`, { timeout: 600_000 }, async () => {
    const resources = resourcesOf(directory);
    const sound = await readEverything(new LocalStore(directory));
    expect(sound.errors).toEqual([]);
    const random = randomFrom(SEED);
    let noticed = 0;
    for (let i = 0; i < FLIPS; i++) {
      const { resource, bytes } = resources[i % resources.length]!; // Every file has its turn, however small.
      const flip: Flip = { resource, at: random(bytes), mask: 1 << random(8) };
      const place = JSON.stringify(flip);
      const store = new FlippedStore(new LocalStore(directory), flip);
      const { values, errors } = await readEverything(store);
      for (const [key, value] of values) expect(value, `${key} after ${place}`).toBe(sound.values.get(key));
      for (const error of errors) {
        expect(error instanceof CorruptStoreError || error instanceof UnsupportedError, `${place}: ${error}`).toBe(
          true,
        );
      }
      // What nobody reads (padding, packfiles' own indexes) or the MAC covers anyway (an LZ4 frame's checksum) may pass.
      if (errors.length === 0) expect(values.size, `${place} made something disappear`).toBe(sound.values.size);
      else noticed++;
    }
    expect(noticed).toBeGreaterThan(FLIPS / 4);
  });
});
