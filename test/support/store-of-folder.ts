/** A folder as a snapshot in a store on disk, such as a backup of it would make. */
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, type Stats, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { goMode } from '../../src/kloset/format.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { addSnapshot, DIRECTORY, type WrittenEntry } from './snapshot-writer.ts';
import { StoreWriter } from './store-writer.ts';

const CHUNK_BYTES = 512 * 1024;

/** Backs a folder up; its absolute path in the snapshot is `at`. Returns the store's directory. */
export async function storeOfFolder(cleanup: Cleanup, folder: string, at = '/'): Promise<string> {
  const store = new StoreWriter();
  const above = at.split('/').filter((name) => name !== '');
  const entries: WrittenEntry[] = above.map((_, i) => ({ path: `/${above.slice(0, i).join('/')}`, mode: DIRECTORY }));
  collect(entries, folder, at);
  addSnapshot(store, { entries, directory: at, dirpacks: false });
  await store.finish();
  return writeStore(cleanup, store);
}

function collect(entries: WrittenEntry[], folder: string, path: string): void {
  const { mode } = lstatSync(folder);
  const permissions = mode & 0o777;
  entries.push({ path, mode: goMode.directory + permissions });
  for (const name of readdirSync(folder)) {
    const file = join(folder, name);
    const inner = path === '/' ? `/${name}` : `${path}/${name}`;
    const stat = lstatSync(file);
    if (stat.isDirectory()) collect(entries, file, inner);
    else if (stat.isSymbolicLink())
      entries.push({ path: inner, mode: goMode.symlink + 0o777, target: readlinkSync(file) });
    else if (stat.isFIFO()) entries.push({ path: inner, mode: goMode.fifo + permissionsOf(stat) });
    else if (stat.isBlockDevice()) entries.push({ path: inner, mode: goMode.device + permissionsOf(stat) });
    else if (stat.isFile())
      entries.push({ path: inner, mode: stat.mode & 0o777, content: chunksOf(readFileSync(file)) });
  }
}

function permissionsOf({ mode }: Stats): number {
  return mode & 0o777;
}

function chunksOf(bytes: Uint8Array): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.byteLength; at += CHUNK_BYTES) chunks.push(bytes.subarray(at, at + CHUNK_BYTES));
  return chunks;
}

/** A store in memory as a directory, which a command line can be given. */
export function writeStore(cleanup: Cleanup, store: StoreWriter): string {
  const folder = join(temporaryFolder(cleanup), 'store');
  mkdirSync(folder);
  writeFileSync(join(folder, 'CONFIG'), store.config);
  for (const [kind, resources] of [['states', store.states] as const, ['packfiles', store.packfiles] as const]) {
    for (const [id, bytes] of resources) {
      mkdirSync(join(folder, kind, id.slice(0, 2)), { recursive: true });
      writeFileSync(join(folder, kind, id.slice(0, 2), id), bytes);
    }
  }
  return folder;
}
