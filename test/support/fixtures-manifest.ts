/** What fixtures say a snapshot holds, and the comparison of a mounted tree with it. */
import { createHash } from 'node:crypto';
import { type BigIntStats, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun } from './cli.ts';
import { type AlbumSnapshot, readAlbumManifest, storePath } from './fixtures.ts';
import { commandPath } from './requires.ts';

export type ManifestType = 'file' | 'dir' | 'symlink' | 'fifo' | 'socket' | 'chardev' | 'blockdev';

/** What a tree must have at one path; what is undefined is not compared. */
export interface ExpectedEntry {
  /** Below the root, beginning with `/`: bytes as a latin1 string, since names need not be UTF-8. */
  readonly path: string;
  readonly type: ManifestType;
  /** 07777. */
  readonly mode: number;
  /** Files only. */
  readonly size?: number;
  readonly sha256?: string;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeNs?: bigint;
  /** Symlinks only: bytes as latin1. */
  readonly linkTarget?: string;
  /** The lowest path of the same inode. */
  readonly sameInodeAs?: string;
  /** Name to hex of the value, all of them. */
  readonly attributes?: Readonly<Record<string, string>>;
  /** Names of the inode. */
  readonly links?: number;
}

export function expectedOfAlbum(snapshot: AlbumSnapshot): readonly ExpectedEntry[] {
  return readAlbumManifest(snapshot).map(({ path, mode, ...rest }) => ({ ...rest, path, mode: Number(mode) }));
}

/** An entry of manifest.json as far as it is compared. */
interface ManifestEntry {
  readonly path: string | null;
  readonly pathHex?: string;
  readonly type: ManifestType;
  readonly goMode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: string;
  readonly size: number;
  readonly sha256?: string;
  readonly linkTarget?: string | null;
  readonly linkTargetHex?: string;
  readonly hardlinkGroup?: number;
  readonly xattrs?: Readonly<Record<string, string>>;
}

interface ManifestSnapshot {
  readonly id: string;
  readonly tags: readonly string[];
  readonly importer: { readonly type: string };
  readonly entries: readonly ManifestEntry[];
}

/** The snapshots of one of the small stores, as its manifest.json has them. */
export function readManifest(store: string): readonly ManifestSnapshot[] {
  return JSON.parse(readFileSync(join(storePath(store), '../manifest.json'), 'utf8')).snapshots;
}

/** What a snapshot of a small store must look like, with the corrections of what the tar importer records. */
export function expectedOfSnapshot({ importer, entries }: ManifestSnapshot): readonly ExpectedEntry[] {
  const plain = entries.map(toExpected);
  const named = importer.type === 'tar' ? plain.map((entry, index) => correctTar(entry, entries[index]!)) : plain;
  const byPath = new Map(named.map((entry) => [entry.path, entry]));
  const firstOfGroup = new Map<number, string>();
  return named.map((entry, index) => {
    // A tar's hard link names the file it is another name of: all but the path is that file's.
    const target = importer.type === 'tar' && entry.sameInodeAs ? byPath.get(entry.sameInodeAs) : undefined;
    if (target !== undefined) return { ...target, path: entry.path, sameInodeAs: target.path };
    const group = entries[index]!.hardlinkGroup;
    if (group === undefined) return entry;
    if (!firstOfGroup.has(group)) firstOfGroup.set(group, entry.path);
    return { ...entry, sameInodeAs: firstOfGroup.get(group)! };
  });
}

function toExpected(entry: ManifestEntry): ExpectedEntry {
  return {
    path: bytesOf(entry.path, entry.pathHex),
    type: entry.type,
    mode: unixMode(entry.goMode),
    uid: entry.uid,
    gid: entry.gid,
    mtimeNs: BigInt(entry.mtimeNs),
    attributes: entry.xattrs ?? {},
    ...(entry.type === 'file' ? { size: entry.size, sha256: entry.sha256! } : {}),
    ...(entry.type === 'symlink' ? { linkTarget: bytesOf(entry.linkTarget ?? null, entry.linkTargetHex) } : {}),
  };
}

/** That importer records symlinks as files with a target, hard links as symlinks, and set-uid as the raw Unix bit. */
function correctTar(entry: ExpectedEntry, { goMode, linkTarget }: ManifestEntry): ExpectedEntry {
  const corrected = { ...entry, mode: entry.mode | (goMode & 0o7000) };
  if (entry.type === 'symlink') return { ...corrected, sameInodeAs: `/${entry.linkTarget}` };
  if (entry.type !== 'file' || !linkTarget) return corrected;
  const { size: _, sha256: __, ...withoutContent } = corrected;
  return { ...withoutContent, type: 'symlink', linkTarget: bytesOf(linkTarget) };
}

function unixMode(goMode: number): number {
  const bit = (index: number, value: number) => ((goMode >>> index) & 1) * value;
  return (goMode & 0o777) | bit(23, 0o4000) | bit(22, 0o2000) | bit(20, 0o1000);
}

function bytesOf(text: string | null, hex = ''): string {
  return (text === null ? Buffer.from(hex, 'hex') : Buffer.from(text)).toString('latin1');
}

/**
 * One line for each way in which the tree below `folder` is not what is expected: entries missing, entries too many
 * (`lost+found` is ext4's own), and every field that differs. Empty if all is well.
 */
export async function differences(folder: string, expected: readonly ExpectedEntry[]): Promise<readonly string[]> {
  const withAttributes = expected.some(({ attributes }) => attributes !== undefined);
  const attributes = withAttributes ? await readAttributes(folder) : new Map<string, Record<string, string>>();
  const wanted = new Map(expected.map((entry) => [entry.path, entry]));
  const lines: string[] = [];
  const inodes = new Map<string, bigint>();
  for (const path of walk(folder)) {
    const entry = wanted.get(path);
    if (entry === undefined) {
      lines.push(`${path} should not be there`);
      continue;
    }
    wanted.delete(path);
    const stats = lstatSync(toDisk(folder, path), { bigint: true });
    inodes.set(path, stats.ino);
    const found = describe(folder, entry, stats, attributes.get(path) ?? {});
    for (const [field, [want, have]] of Object.entries(found)) {
      if (want !== undefined && want !== have) lines.push(`${path}: ${field} is ${have}, should be ${want}`);
    }
  }
  for (const path of wanted.keys()) lines.push(`${path} is missing`);
  for (const { path, sameInodeAs } of expected) {
    if (sameInodeAs !== undefined && inodes.get(path) !== inodes.get(sameInodeAs)) {
      lines.push(`${path} should be the same file as ${sameInodeAs}`);
    }
  }
  return lines;
}

/** A directory on disk as a snapshot of it must look: everything below it, each field that a snapshot records. */
export async function expectedOfFolder(folder: string): Promise<readonly ExpectedEntry[]> {
  const attributes = await readAttributes(folder);
  const firstOfInode = new Map<bigint, string>();
  const expected: ExpectedEntry[] = [];
  for (const path of [...walk(folder), ...lostFoundFile(folder)]) {
    const at = toDisk(folder, path);
    const stats = lstatSync(at, { bigint: true });
    const type = typeOf(stats);
    // ext4 needs the name for itself.
    const shown = path === '/lost+found' ? '/lost+found~2' : path;
    const first = type === 'dir' ? shown : (firstOfInode.get(stats.ino) ?? shown);
    firstOfInode.set(stats.ino, first);
    expected.push({
      path: shown,
      type,
      mode: Number(stats.mode & 0o7777n),
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      mtimeNs: stats.mtimeNs,
      links: Number(stats.nlink),
      sameInodeAs: first,
      attributes: attributes.get(path) ?? {},
      ...(type === 'file' ? { size: Number(stats.size), sha256: sha256OfFile(at) } : {}),
      ...(type === 'symlink' ? { linkTarget: readlinkSync(at, 'buffer').toString('latin1') } : {}),
    });
  }
  return expected;
}

/** A `lost+found` that is no directory, which `walk` leaves out. */
function lostFoundFile(folder: string): string[] {
  const stats = lstatSync(join(folder, 'lost+found'), { throwIfNoEntry: false });
  return stats === undefined || stats.isDirectory() ? [] : ['/lost+found'];
}

/** For each field what is wanted and what is there. */
function describe(
  folder: string,
  entry: ExpectedEntry,
  stats: BigIntStats,
  attributes: Record<string, string>,
): Record<string, readonly [unknown, unknown]> {
  const type = typeOf(stats);
  const isFile = type === 'file' && entry.type === 'file';
  const path = toDisk(folder, entry.path);
  return {
    type: [entry.type, type],
    mode: [entry.mode.toString(8), (stats.mode & 0o7777n).toString(8)],
    uid: [entry.uid, Number(stats.uid)],
    gid: [entry.gid, Number(stats.gid)],
    mtimeNs: [entry.mtimeNs, stats.mtimeNs],
    size: [entry.size, isFile ? Number(stats.size) : undefined],
    sha256: [entry.sha256, isFile && entry.sha256 !== undefined ? sha256OfFile(path) : undefined],
    linkTarget: [entry.linkTarget, type === 'symlink' ? readlinkSync(path, 'buffer').toString('latin1') : undefined],
    links: [entry.links, Number(stats.nlink)],
    attributes: [entry.attributes && sortedJson(entry.attributes), sortedJson(attributes)],
  };
}

function sortedJson(record: Readonly<Record<string, string>>): string {
  return JSON.stringify(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function sha256OfFile(path: Buffer): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function typeOf(stats: BigIntStats): ManifestType {
  if (stats.isDirectory()) return 'dir';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isFIFO()) return 'fifo';
  if (stats.isSocket()) return 'socket';
  if (stats.isCharacterDevice()) return 'chardev';
  return stats.isBlockDevice() ? 'blockdev' : 'file';
}

function toDisk(folder: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(folder), Buffer.from(path, 'latin1')]);
}

/** Every path below `folder`, parents first, without the root's own and ext4's lost+found. */
function* walk(folder: string, below = ''): Generator<string> {
  for (const entry of readdirSync(toDisk(folder, below), { withFileTypes: true, encoding: 'buffer' })) {
    const path = `${below}/${entry.name.toString('latin1')}`;
    if (path === '/lost+found') continue;
    yield path;
    if (entry.isDirectory()) yield* walk(folder, path);
  }
}

/** All extended attributes below `folder`, by path, read by getfattr(1): Node has no call for them. */
async function readAttributes(folder: string): Promise<Map<string, Record<string, string>>> {
  const args = ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '--absolute-names', folder];
  const result = new Map<string, Record<string, string>>();
  let current: Record<string, string> = {};
  for (const line of (await mustRun(commandPath('getfattr'), args)).split('\n')) {
    const file = /^# file: (.*)$/.exec(line)?.[1];
    const [, name, value] = /^(.*?)=0x(.*)$/.exec(line) ?? /^(.+)$/.exec(line) ?? [];
    if (file !== undefined) {
      current = {};
      result.set(decodeOctal(file).slice(folder.length), current);
    } else if (name !== undefined) {
      current[Buffer.from(decodeOctal(name), 'latin1').toString()] = value ?? '';
    }
  }
  return result;
}

/** getfattr writes unusual bytes as a backslash and three octal digits; the rest comes as UTF-8. */
function decodeOctal(text: string): string {
  const bytes = Buffer.from(text).toString('latin1');
  return bytes.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
