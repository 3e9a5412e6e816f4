/** What the files of a fixture store hold, read without the code under test. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StoreContent } from '../conformance/store-suite.ts';
import { storePath } from './fixtures.ts';

/** A directory store's content. */
export function contentOfDirectory(directory: string): StoreContent {
  return {
    config: readFileSync(join(directory, 'CONFIG')),
    states: readResources(join(directory, 'states')),
    packfiles: readResources(join(directory, 'packfiles')),
    namesPackfiles: true,
  };
}

/** An archive's content, cut by its trailer (kloset-format 2.2). */
export function contentOfArchive(file: string): StoreContent {
  const archive = readFileSync(file);
  const section = (index: number) => {
    const at = archive.length - 48 + 16 * index;
    const offset = Number(archive.readBigInt64LE(at));
    return archive.subarray(offset, offset + Number(archive.readBigInt64LE(at + 8)));
  };
  return {
    config: section(0),
    states: new Map([['0'.repeat(64), section(2)]]),
    packfiles: new Map([['7'.repeat(64), section(1)]]),
    namesPackfiles: false,
  };
}

/** A small store of three packfiles and more, and an archive: what most tests of back-ends read. */
export const sampleDirectory = storePath('manychunks');
export const sampleArchive = storePath('ptar-plain', 'archive.ptar');

function readResources(root: string): Map<string, Buffer> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((entry) => [entry.name, readFileSync(join(entry.parentPath, entry.name))]),
  );
}
