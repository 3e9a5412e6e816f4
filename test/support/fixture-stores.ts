/** The stores under fixtures/stores, opened whole as the command line opens them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../src/core/units.ts';
import { OpenStore, type StoreOptions } from '../../src/exports/open-store.ts';
import { deriveKey } from '../../src/kloset/codec/key-derivation.ts';
import { projectRoot } from './fixtures.ts';
import { storeAt } from './kloset.ts';

const storesFolder = join(projectRoot, 'fixtures/stores');

/** Their names. */
export function fixtureStores(): string[] {
  return readdirSync(storesFolder).sort();
}

/** Where a fixture's store lies: its directory, or the archive file. */
export function fixtureLocation(name: string): string {
  const folder = join(storesFolder, name);
  return ['store', 'archive.ptar'].map((file) => join(folder, file)).find(existsSync) ?? folder;
}

/** Undefined for a store that is not encrypted. */
export function fixturePassphrase(name: string): string | undefined {
  const manifest = join(storesFolder, name, 'manifest.json');
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, 'utf8')).encryption?.passphrase : undefined;
}

export function openFixture(name: string, options: Partial<StoreOptions> = {}): Promise<OpenStore> {
  return OpenStore.open({
    store: storeAt(fixtureLocation(name)),
    keys: { passphrase: async () => Buffer.from(fixturePassphrase(name) ?? ''), deriveKey },
    cacheBytesMax: 64 * MiB,
    inflightBytesMax: 64 * MiB,
    ...options,
  });
}
