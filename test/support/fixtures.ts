/** The stores under fixtures/, folders to work in, and a way to undo what a test set up. */
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach } from 'vitest';

/** Top of the checkout. */
export const projectRoot = fileURLToPath(new URL('../..', import.meta.url));

/** A backed-up PostgreSQL 15 cluster, as a directory store; fixtures/README.md says what is in it. */
export const albumStore = join(projectRoot, 'fixtures/stores/album');

export interface AlbumSnapshot {
  readonly id: string;
  readonly tag: string;
  /** `select count(*) from photo`, and of those in album 7. */
  readonly photos: number;
  readonly photosInAlbum7: number;
  readonly hasViewRecent: boolean;
}

/** Oldest first. */
export const albumSnapshots = [
  {
    id: '6300a0a8dabe2e4209ee33ee032ebd09bd977eb2a18b26e202bfae06decd775f',
    tag: 'before',
    photos: 4000,
    photosInAlbum7: 80,
    hasViewRecent: true,
  },
  {
    id: '8e457cf5bbfca669fa866b86502dd13d9b06142d3ded337bb6991644d564989f',
    tag: 'after',
    photos: 3920,
    photosInAlbum7: 0,
    hasViewRecent: false,
  },
] as const satisfies readonly AlbumSnapshot[];

/** The name under which a snapshot is exported and listed. */
export function shortId(snapshot: { readonly id: string }): string {
  return snapshot.id.slice(0, 8);
}

/** What `plakar restore` gives for one entry of an album snapshot. */
export interface AlbumEntry {
  readonly path: string;
  readonly type: 'file' | 'dir';
  /** Permission bits as `0o600`. */
  readonly mode: string;
  readonly size?: number;
  readonly sha256?: string;
}

export function readAlbumManifest(snapshot: AlbumSnapshot): readonly AlbumEntry[] {
  return JSON.parse(readFileSync(join(albumStore, `${shortId(snapshot)}.json`), 'utf8'));
}

/** One of the small stores: its directory, or the archive file. */
export function storePath(name: string, kind: 'store' | 'archive.ptar' = 'store'): string {
  return join(projectRoot, 'fixtures/stores', name, kind);
}

/** What has to be undone, last first; all of it, also where a test failed half way or one step of it fails. */
export class Cleanup {
  readonly #steps: (() => unknown)[] = [];

  add(undo: () => unknown): void {
    this.#steps.push(undo);
  }

  async run(): Promise<void> {
    const errors: unknown[] = [];
    for (let undo = this.#steps.pop(); undo !== undefined; undo = this.#steps.pop()) {
      try {
        await undo();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors.length === 1 ? errors[0] : new AggregateError(errors, 'cleaning up failed');
  }
}

/** A Cleanup that runs after each test of the file or suite it is made in. */
export function cleanupAfterEach(): Cleanup {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());
  return cleanup;
}

/** A Cleanup that runs when all tests of the file or suite it is made in are done. */
export function cleanupAfterAll(): Cleanup {
  const cleanup = new Cleanup();
  afterAll(() => cleanup.run());
  return cleanup;
}

/** A new, empty folder that every user may enter: PostgreSQL runs as one of its own. The path is short enough for sockets. */
export function temporaryFolder(cleanup: Cleanup): string {
  const folder = mkdtempSync(join(tmpdir(), 'kloset-nbd-'));
  chmodSync(folder, 0o755);
  cleanup.add(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A copy of a store that a test may damage. */
export function copyOfStore(cleanup: Cleanup, store: string): string {
  const copy = join(temporaryFolder(cleanup), 'store');
  cpSync(store, copy, { recursive: true });
  return copy;
}
