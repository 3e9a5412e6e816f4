/**
 * Filesystems of a million files and of 16 TiB, served, attached and mounted: a clean check, entries and contents as they
 * must be, a random write load, and both again. The server runs in this process: whatever waits for it must not block.
 */
import { lstat, open, readdir } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { WRITABLE_DEVICE_BYTES_MAX } from '../../src/core/limits.ts';
import { entryPath, entryTypes, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import { GiB } from '../../src/core/units.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import { ReadOnlyDevice } from '../../src/device/read-only-device.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { FILES_PER_DIRECTORY, generateTree } from '../support/ext4-generated.ts';
import { Random } from '../support/ext4-random.ts';
import { contentByte, PatternContent } from '../support/ext4-tree.ts';
import { writeLoad } from '../support/ext4-write-load.ts';
import { cleanupAfterEach } from '../support/fixtures.ts';
import { attachDevice, fsckRemarks, mountDevice, mountNeeds } from '../support/mount.ts';
import { startServer } from '../support/nbd-fixture.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const identity = { snapshotId: '51'.repeat(32), createdSeconds: 1_750_000_000 };
const FILES_COMPARED = 2000;
const WINDOW_BYTES = 5000;

/** Attaches a tree as a device; one that is not too large takes writes. */
async function attachTree(tree: SnapshotTree) {
  const image = new Ext4Image(planLayout(tree, {}, identity), new PatternContent(tree));
  const readOnly = image.sizeBytes > WRITABLE_DEVICE_BYTES_MAX;
  const device = readOnly ? new ReadOnlyDevice(image) : await openMemoryOverlay(image);
  cleanup.add(() => device.close());
  const server = await startServer({ disk: { device, readOnly } });
  cleanup.add(() => server.close());
  return { device: await attachDevice(cleanup, server.tcp, { readOnly }), readOnly };
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

const million = () =>
  generateTree({ seed: 1, entries: 1_000_000, directories: 1_000_000 / FILES_PER_DIRECTORY, sizeOf: (i) => i % 9000 });
const terabytes = (count: number) => () =>
  generateTree({
    seed: 2,
    entries: 10_011,
    directories: 10,
    sizeOf: (i) => Math.floor((count * 1024 * GiB) / 10_000) - i,
  });

const need = requires(...mountNeeds);
describe.skipIf(need.missing)(need.title('a filesystem of'), () => {
  test.each([
    ['a million files', million],
    ['15.9 TiB', terabytes(15.9)],
    ['16 TiB, which is one that takes no writes', terabytes(16)],
  ])('%s', async (_, make) => {
    const tree = make();
    const random = new Random(3);
    const sample = [...new Set(Array.from({ length: FILES_COMPARED }, () => random.integer(1, tree.length - 1)))];
    const { device, readOnly } = await attachTree(tree);
    expect(await fsckRemarks(device.path)).toEqual([]);
    const mounted = await mountDevice(cleanup, device.path, { options: readOnly ? 'ro' : 'rw' });
    const directories = (await readdir(mounted.folder)).length;
    expect(directories).toBe(tree.childCount[0]! + 1); // And lost+found.
    expect(await wrongEntries(mounted.folder, tree, sample)).toEqual([]);
    if (readOnly) return;
    const touched = await writeLoad(mounted.folder, someOf(tree, [1, 2, 3, ...sample]), random);
    await mounted.unmount();
    expect(await fsckRemarks(device.path)).toEqual([]);
    const again = await mountDevice(cleanup, device.path);
    const untouched = sample.filter((entry) => !touched.has(entryPath(tree, entry).slice(1)));
    expect(untouched.length).toBeGreaterThan(FILES_COMPARED / 2);
    expect(await wrongEntries(again.folder, tree, untouched)).toEqual([]);
    await again.unmount();
    await device.detach();
  });
});
