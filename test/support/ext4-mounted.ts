/** An image mounted by the kernel, and compared with what is expected, entry by entry. */
import { execFile } from 'node:child_process';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Expected } from './ext4-expect.ts';
import { contentByte } from './ext4-tree.ts';
import { commandPath } from './requires.ts';

const run = promisify(execFile);

/** Mounts an image through a loop device for as long as `work` runs. */
export async function withMount<T>(
  { image, folder, options }: { image: string; folder: string; options: string },
  work: () => Promise<T>,
): Promise<T> {
  await run(commandPath('mount'), ['-t', 'ext4', '-o', `loop,${options}`, image, folder]);
  try {
    return await work();
  } finally {
    await run(commandPath('umount'), [folder]);
    await untilReleased(image);
  }
}

/**
 * Waits until no loop device has the image: a mount namespace that others made meanwhile keeps the filesystem mounted until
 * it is gone, and the kernel tells nobody when that is.
 */
async function untilReleased(image: string): Promise<void> {
  const deadlineMs = Date.now() + 30_000;
  while ((await run(commandPath('losetup'), ['--associated', image])).stdout !== '') {
    if (Date.now() > deadlineMs) throw new Error(`${image} is still mounted somewhere`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Differences between a mounted tree and what is expected, `touched` paths left out. Paths are latin1, so that any byte survives. */
export async function compareMounted(
  folder: string,
  expected: ReadonlyMap<string, Expected>,
  touched: ReadonlySet<string> = new Set(),
): Promise<string[]> {
  const differences: string[] = [];
  const inodes = new Map<string, bigint>();
  const attributes = await attributesBelow(folder);
  for (const [path, want] of expected) {
    if (touched.has(path)) continue;
    const at = Buffer.concat([Buffer.from(folder), Buffer.from(path === '' ? '' : `/${path}`, 'latin1')]);
    const have = await lstat(at, { bigint: true });
    inodes.set(path, have.ino);
    const nanoseconds = BigInt(want.seconds) * 1_000_000_000n + BigInt(want.nanoseconds);
    const pairs: [string, unknown, unknown][] = [
      ['mode', want.mode, Number(have.mode)],
      ['uid', want.uid, Number(have.uid)],
      ['gid', want.gid, Number(have.gid)],
      ['links', want.links, Number(have.nlink)],
      ['time', nanoseconds, have.mtimeNs],
      ['inode', inodes.get(want.firstPath), have.ino],
      ['attributes', listed(visible(want)), listed(attributes.get(path) ?? new Map())],
    ];
    if (want.size !== undefined) pairs.push(['size', BigInt(want.size), have.size]);
    if (want.target !== undefined) {
      const target = await readlink(at, { encoding: 'buffer' });
      pairs.push(['target', want.target.toString('latin1'), target.toString('latin1')]);
    }
    for (const [what, wanted, had] of pairs) {
      if (wanted !== had) differences.push(`${path}: ${what} is ${had}, not ${wanted}`);
    }
    if (have.isFile()) differences.push(...(await compareContent(at, path, want)));
    if (have.isDirectory()) differences.push(...(await compareNames(at, path, expected)));
  }
  return differences;
}

/** Linux shows user attributes of files and directories only, and no access control list of a symlink. */
function visible({ mode, attributes }: Expected): Map<string, Uint8Array> {
  const type = mode >> 12;
  return new Map(
    [...attributes].filter(([name]) =>
      name.startsWith('user.') ? type === 8 || type === 4 : type !== 10 || !name.startsWith('system.'),
    ),
  );
}

function listed(attributes: ReadonlyMap<string, Uint8Array>): string {
  const lines = [...attributes].map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`);
  return lines.sort().join(' ');
}

async function compareContent(at: Buffer, path: string, want: Expected): Promise<string[]> {
  const input = await open(at);
  try {
    const bytes = await input.readFile();
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] !== contentByte(want.entry, i)) return [`${path}: byte ${i} is ${bytes[i]}`];
    }
    return [];
  } finally {
    await input.close();
  }
}

async function compareNames(at: Buffer, path: string, expected: ReadonlyMap<string, Expected>): Promise<string[]> {
  const names = (await readdir(at, { encoding: 'buffer' })).map((name) => name.toString('latin1'));
  return names
    .map((name) => (path === '' ? name : `${path}/${name}`))
    .filter((child) => !expected.has(child) && child !== 'lost+found')
    .map((child) => `${child}: not in the tree`);
}

/** All extended attributes, by path. */
async function attributesBelow(folder: string): Promise<Map<string, Map<string, Buffer>>> {
  const parameters = ['-R', '-P', '-h', '--absolute-names', '-d', '-m', '-', '-e', 'hex', folder];
  const { stdout } = await run(commandPath('getfattr'), parameters, { maxBuffer: 2 ** 30, encoding: 'latin1' });
  const found = new Map<string, Map<string, Buffer>>();
  for (const block of stdout.split('\n\n')) {
    const [header, ...lines] = block.split('\n').filter((line) => line !== '');
    if (header === undefined) continue;
    const path = withoutEscapes(header.slice('# file: '.length)).slice(folder.length + 1);
    found.set(path, new Map(lines.map(attributeOf)));
  }
  return found;
}

function attributeOf(line: string): [string, Buffer] {
  const equals = line.indexOf('=0x');
  if (equals === -1) return [withoutEscapes(line), Buffer.alloc(0)];
  return [withoutEscapes(line.slice(0, equals)), Buffer.from(line.slice(equals + 3), 'hex')];
}

/** getfattr writes odd bytes as \ooo. */
function withoutEscapes(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8)));
}
