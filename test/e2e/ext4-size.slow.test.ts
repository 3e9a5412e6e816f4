/**
 * Filesystems of a million files and of 16 TiB, served, attached and mounted: a clean check, entries and contents as they
 * must be, a random write load, and both again.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, test } from 'vitest';
import { entryPath, entryTypes, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import { millionFiles, terabytesOfFiles } from '../support/ext4-generated.ts';
import { Random } from '../support/ext4-random.ts';
import { contentByte } from '../support/ext4-tree.ts';
import { writeLoad } from '../support/ext4-write-load.ts';
import { cleanupAfterEach, projectRoot } from '../support/fixtures.ts';
import { attachDevice, fsckRemarks, mountDevice, mountNeeds } from '../support/mount.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const FILES_COMPARED = 2000;
const WINDOW_BYTES = 5000;

/** Serves what `ext4-size-server.ts` calls `what`, and attaches it. */
async function attach(what: string, readOnly: boolean) {
  const script = join(projectRoot, 'test/support/ext4-size-server.ts');
  const server = spawn(process.execPath, ['--import', 'tsx', script, what], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(server, 'exit');
  cleanup.add(async () => {
    server.stdin.end();
    await ended;
  });
  for await (const uri of createInterface({ input: server.stdout })) return attachDevice(cleanup, uri, { readOnly });
  throw new Error('the server ended');
}

/** Lines about entries that are not as they must be, among `entries`. */
async function wrongEntries(folder: string, tree: SnapshotTree, entries: readonly number[]): Promise<string[]> {
  const lines: string[] = [];
  for (const entry of entries) {
    const path = folder + entryPath(tree, entry);
    const stats = await lstat(path);
    const isDirectory = tree.type[entry] === entryTypes.directory;
    const [want, have] = [
      [tree.uid[entry], tree.gid[entry], tree.mtimeSeconds[entry]! * 1000],
      [stats.uid, stats.gid, stats.mtimeMs],
    ];
    if (stats.isDirectory() !== isDirectory || JSON.stringify(want) !== JSON.stringify(have))
      lines.push(`${path}: ${have}`);
    if (isDirectory) {
      const names = (await readdir(path)).length;
      if (names !== tree.childCount[entry]) lines.push(`${path}: ${names} names`);
    } else if (stats.size !== tree.sizeBytes[entry]) lines.push(`${path}: ${stats.size} bytes`);
    else lines.push(...(await wrongBytes(path, entry, stats.size)));
  }
  return lines;
}

/** The beginning, a place in the middle and the end of a file. */
async function wrongBytes(path: string, entry: number, size: number): Promise<string[]> {
  const input = await open(path);
  try {
    for (const offset of [0, Math.floor(size / 2), Math.max(0, size - WINDOW_BYTES)]) {
      const { buffer, bytesRead } = await input.read(Buffer.alloc(WINDOW_BYTES), 0, WINDOW_BYTES, offset);
      if (bytesRead !== Math.min(WINDOW_BYTES, size - offset)) return [`${path}: ${bytesRead} bytes from ${offset} on`];
      for (let i = 0; i < bytesRead; i++) {
        if (buffer[i] !== contentByte(entry, offset + i)) return [`${path}: byte ${offset + i}`];
      }
    }
    return [];
  } finally {
    await input.close();
  }
}

/** Fit for the write load: paths of directories and some files. */
function someOf(tree: SnapshotTree, entries: readonly number[]) {
  return new Map(
    entries.map((entry) => {
      const path = entryPath(tree, entry).slice(1);
      return [path, { mode: (tree.type[entry] === entryTypes.directory ? 4 : 8) * 4096, firstPath: path }] as const;
    }),
  );
}

const need = requires(...mountNeeds);
describe.skipIf(need.missing)(need.title('a filesystem of'), () => {
  test.each([
    { name: 'a million files', what: 'files', readOnly: false },
    { name: '15.9 TiB', what: '15.9', readOnly: false },
    { name: '16 TiB, which with its metadata is too large to take writes', what: '16', readOnly: true },
  ])('$name', async ({ what, readOnly }) => {
    const tree = what === 'files' ? millionFiles() : terabytesOfFiles(Number(what));
    const random = new Random(3);
    const sample = [...new Set(Array.from({ length: FILES_COMPARED }, () => random.integer(1, tree.length - 1)))];
    const device = await attach(what, readOnly);
    expect(await fsckRemarks(device.path)).toEqual([]);
    const mounted = await mountDevice(cleanup, device.path, { options: readOnly ? 'ro' : 'rw' });
    const directories = (await readdir(mounted.folder)).length;
    expect(directories).toBe(tree.childCount[0]! + 1); // And lost+found.
    expect(await wrongEntries(mounted.folder, tree, sample)).toEqual([]);
    if (readOnly) return;
    const touched = await writeLoad(mounted.folder, someOf(tree, [1, 2, 3, ...sample]), random);
    await mounted.unmount();
    // Files that the kernel truncated keep a deeper tree of extents than they need: e2fsck says so, and that it did not change it.
    const ofKernel = /^Inode \d+ extent tree \(at level \d\) could be shorter|^e2fsck ended with 4$/;
    expect((await fsckRemarks(device.path)).filter((line) => !ofKernel.test(line))).toEqual([]);
    const again = await mountDevice(cleanup, device.path);
    const untouched = sample.filter((entry) => !touched.has(entryPath(tree, entry).slice(1)));
    expect(untouched.length).toBeGreaterThan(FILES_COMPARED / 2);
    expect(await wrongEntries(again.folder, tree, untouched)).toEqual([]);
    await again.unmount();
    await device.detach();
  });
});
