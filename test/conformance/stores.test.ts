/** Every store that the real plakar wrote, entry by entry and byte by byte against its manifest. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { entryTypes, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import type { KlosetSource } from '../../src/source/kloset-source.ts';
import { projectRoot } from '../support/fixtures.ts';
import { type OpenedStore, openStore, pathsOf, storeAt } from '../support/kloset.ts';

interface ManifestEntry {
  readonly path: string | null;
  readonly pathHex?: string;
  readonly type: string;
  readonly mode: string;
  /** As it is recorded. */
  readonly goMode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly mtimeNs: string;
  readonly size: number;
  readonly linkTarget?: string | null;
  readonly linkTargetHex?: string;
  readonly hardlinkGroup?: string | number;
  readonly sha256?: string;
  readonly xattrs?: Readonly<Record<string, string>>;
  readonly xattrsWithoutValue?: readonly string[];
}
interface Manifest {
  readonly location: string;
  readonly encryption: { readonly passphrase: string } | null;
  readonly passphrase?: string;
  readonly snapshots: readonly {
    readonly id: string;
    readonly tags: readonly string[];
    readonly importer: { readonly type: string };
    readonly entries: readonly ManifestEntry[];
  }[];
}

const TYPES: Readonly<Record<string, number>> = {
  dir: entryTypes.directory,
  file: entryTypes.file,
  symlink: entryTypes.symlink,
  fifo: entryTypes.fifo,
  socket: entryTypes.socket,
  chardev: entryTypes.characterDevice,
  blockdev: entryTypes.blockDevice,
};

const STORES = [
  'plain',
  'encrypted',
  'encrypted-scrypt',
  'encrypted-pbkdf2-sha256',
  'encrypted-gcmkey-segments',
  'sha256-nocompress',
  'gzip',
  'zstd',
  'manychunks',
  'wide',
  'multi-deleted',
  'multi-maintained',
  'xattr-only-change',
  'tar',
  'ptar-plain',
  'ptar-encrypted',
  'ptar-sha256-nocompress',
];

function manifestOf(name: string): Manifest {
  return JSON.parse(readFileSync(join(projectRoot, 'fixtures/stores', name, 'manifest.json'), 'utf8'));
}

async function contentHash(source: KlosetSource, entry: number): Promise<string> {
  const content = new Uint8Array(source.tree.sizeBytes[entry]!);
  await source.read(entry, 0, content);
  return createHash('sha256').update(content).digest('hex');
}

function latin1(text: string | null | undefined, hex: string | undefined): string {
  return text === null || text === undefined
    ? Buffer.from(hex ?? '', 'hex').toString('latin1')
    : Buffer.from(text).toString('latin1');
}

/** What the tree says of an entry, in the manifest's terms. */
async function describeEntry(source: KlosetSource, entry: number): Promise<object> {
  const { tree } = source;
  const target = tree.linkTarget.get(entry);
  const isFile = tree.type[entry] === entryTypes.file;
  return {
    type: tree.type[entry],
    mode: tree.mode[entry],
    uid: tree.uid[entry],
    gid: tree.gid[entry],
    mtimeNs: String(BigInt(tree.mtimeSeconds[entry]!) * 1_000_000_000n + BigInt(tree.mtimeNanoseconds[entry]!)),
    size: isFile ? tree.sizeBytes[entry] : undefined,
    target: target === undefined ? undefined : Buffer.from(target).toString('latin1'),
    sha256: isFile ? await contentHash(source, entry) : undefined,
    xattrs: Object.fromEntries(
      (tree.attributes.get(entry) ?? []).map(({ name, value }) => [
        Buffer.from(name).toString(),
        Buffer.from(value).toString('hex'),
      ]),
    ),
  };
}

function expectedEntry(entry: ManifestEntry): object {
  const isFile = entry.type === 'file';
  return {
    type: TYPES[entry.type],
    mode: Number.parseInt(entry.mode, 8),
    uid: entry.uid,
    gid: entry.gid,
    mtimeNs: entry.mtimeNs,
    size: isFile ? entry.size : undefined,
    target: entry.type === 'symlink' ? latin1(entry.linkTarget, entry.linkTargetHex) : undefined,
    sha256: isFile ? entry.sha256 : undefined,
    xattrs: entry.xattrs ?? {},
  };
}

describe.each(STORES)('the store %s', (name) => {
  const manifest = manifestOf(name);
  const opened = openStore(storeAt(join(projectRoot, 'fixtures/stores', name, manifest.location)), {
    passphrase: manifest.encryption?.passphrase ?? manifest.passphrase ?? '',
    inlineBytesMax: 4096, // Small chunks too go through the worker thread.
  });
  afterAll(async () => (await opened).close());

  it('has the snapshots of its manifest', async () => {
    const { snapshots } = await opened;
    const listed = snapshots.map(({ id, tags }) => ({ id, tags })).sort((a, b) => (a.id < b.id ? -1 : 1));
    expect(listed).toEqual(
      manifest.snapshots.map(({ id, tags }) => ({ id, tags })).sort((a, b) => (a.id < b.id ? -1 : 1)),
    );
  });

  it.each(manifest.snapshots.map((snapshot) => [snapshot.id.slice(0, 8), snapshot] as const))(
    'gives every entry and byte of snapshot %s',
    async (_, snapshot) => {
      const store: OpenedStore = await opened;
      const source = await store.source(store.snapshots.find(({ id }) => id === snapshot.id)!);
      const paths = pathsOf(source.tree);
      const entries = snapshot.importer.type === 'tar' ? asArchived(snapshot.entries) : snapshot.entries;
      expect(paths.size).toBe(entries.length + 1); // The manifest leaves the root out.
      for (const entry of entries) {
        const path = latin1(entry.path, entry.pathHex);
        const index = paths.get(path);
        expect(index, path).toBeDefined();
        expect({ path, ...(await describeEntry(source, index!)) }).toEqual({ path, ...expectedEntry(entry) });
      }
      expect(linkGroups(source.tree, paths)).toEqual(expectedGroups(entries));
    },
  );
});

/** What an archive held, from what the tar importer recorded of it: the manifest has that (kloset-format 11.7). */
function asArchived(recorded: readonly ManifestEntry[]): ManifestEntry[] {
  const archived = new Map<string | null, ManifestEntry>();
  for (const entry of recorded) {
    const isSymlink = entry.type === 'file' && (entry.linkTarget ?? '') !== '';
    const type = isSymlink ? 'symlink' : entry.type;
    const hardlinkGroup = type === 'file' ? { hardlinkGroup: entry.path! } : {};
    archived.set(entry.path, { ...entry, type, mode: (entry.goMode & 0o7777).toString(8), ...hardlinkGroup });
  }
  return recorded.map(({ type, path, linkTarget }) => ({
    ...archived.get(type === 'symlink' ? `/${linkTarget}` : path)!,
    path,
  }));
}

/** Groups of paths that are one inode, each sorted, in sorted order. */
function linkGroups(tree: SnapshotTree, paths: ReadonlyMap<string, number>): string[][] {
  const byFirst = new Map<number, string[]>();
  for (const [path, entry] of paths) {
    const first = tree.sameInodeAs.get(entry) ?? entry;
    byFirst.set(first, [...(byFirst.get(first) ?? []), path]);
  }
  return sorted([...byFirst.values()].filter((group) => group.length > 1));
}

function expectedGroups(entries: readonly ManifestEntry[]): string[][] {
  const groups = new Map<string, string[]>();
  for (const entry of entries) {
    if (entry.hardlinkGroup === undefined || entry.hardlinkGroup === null) continue;
    const key = String(entry.hardlinkGroup);
    groups.set(key, [...(groups.get(key) ?? []), latin1(entry.path, entry.pathHex)]);
  }
  return sorted([...groups.values()].filter((group) => group.length > 1));
}

function sorted(groups: string[][]): string[][] {
  return groups.map((group) => group.sort()).sort((a, b) => (a[0]! < b[0]! ? -1 : 1));
}
