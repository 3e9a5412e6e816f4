/** Chunks on disk: what is not as it was written is missing and gone, and what there is stays below its bound. */
import { spawn } from 'node:child_process';
import { createSecretKey } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { ChunkDisk } from '../../../src/cache/chunk-disk.ts';
import { listChunkFiles } from '../../../src/cache/chunk-files.ts';
import type { ChunkFileSettings, ChunkId } from '../../../src/cache/chunk-names.ts';
import { CHUNK_SEGMENT_BYTES, CHUNK_WRITE_DELAY_MS } from '../../../src/cache/limits.ts';
import { sealedLength } from '../../../src/cache/sealed-buffer.ts';
import { sealHeader } from '../../../src/cache/sealed-format.ts';
import { newCacheCounters } from '../../../src/core/counters.ts';
import { liesElsewhere } from '../../../src/core/file-system-type.ts';
import { PromptDisk } from '../../../src/core/prompt-disk.ts';
import { SharedArena } from '../../../src/core/shared-arena.ts';
import { MiB, roundUp } from '../../../src/core/units.ts';
import { cachedFiles, LogLines, writerHere } from '../../support/cache.ts';
import { mustRun } from '../../support/cli.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { seededRandom } from '../../support/overlay-random.ts';
import { commandPath, requires } from '../../support/requires.ts';
import { idOf } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();
const LENGTH = 2 * CHUNK_SEGMENT_BYTES + 77;
const contentOf = (seed: number, length = LENGTH) => Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 31) % 251);
const id = (seed: number, lengthBytes = LENGTH): ChunkId => ({ mac: idOf(seed), lengthBytes });

/** A disk tier that writes in this thread; `fail`: what writing throws. */
async function openDisk(
  directory: string,
  options: { bytesMax?: number; isEncrypted?: boolean; key?: number; log?: LogLines; fail?: Error } = {},
) {
  const settings: ChunkFileSettings = {
    directory: join(directory, 'chunks'),
    bytesMax: options.bytesMax ?? 100 * MiB,
    key: createSecretKey(Buffer.alloc(32, options.key ?? 1)),
    isEncrypted: options.isEncrypted ?? false,
  };
  const { fail } = options;
  const counters = newCacheCounters();
  const writer = { ...writerHere(settings), ...(fail && { write: () => Promise.reject(fail) }) };
  const prompt = new PromptDisk({ nowMs: () => 0 }); // However busy the machine's disk is.
  const disk = await ChunkDisk.open({ settings, writer, counters, log: options.log ?? new LogLines(), prompt });
  cleanup.add(() => disk!.close());
  return { disk: disk!, counters };
}

it('writes when the next stored bytes have come, or a little later; gives the bytes from memory till then', async () => {
  const folder = temporaryFolder(cleanup);
  const { disk } = await openDisk(folder);
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  cleanup.add(() => void vi.useRealTimers());
  const written = () => listChunkFiles(join(folder, 'chunks')).paths.length;
  const target = new Uint8Array(LENGTH);

  const first = disk.offer(id(1), contentOf(1));
  expect([written(), disk.pending(id(1)), disk.isMissing(id(1))]).toEqual([0, contentOf(1), false]);
  disk.fetched();
  await first;
  expect([written(), disk.pending(id(1))]).toEqual([1, undefined]);
  expect(await disk.readChunk(id(1), target)).toBe(true);
  expect(target).toEqual(contentOf(1));

  const second = disk.offer(id(2), contentOf(2));
  vi.advanceTimersByTime(CHUNK_WRITE_DELAY_MS - 1);
  await setImmediate();
  expect(written()).toBe(1);
  vi.advanceTimersByTime(1);
  await second;
  expect(written()).toBe(2);
});

const need = requires('root', 'nbdfuse', 'fuse', 'mount', 'nbdkit');
it.skipIf(need.missing)(need.title('what lies behind a program’s file system is told from a disk'), async () => {
  const folder = temporaryFolder(cleanup);
  expect(await liesElsewhere(folder)).toBe(false);
  const nbdkit = [commandPath('nbdkit'), '-s', '--exit-with-parent', 'memory', '1M'];
  const nbdfuse = spawn(commandPath('nbdfuse'), [folder, '--command', ...nbdkit]);
  const ended = new Promise<void>((resolve) => nbdfuse.once('close', () => resolve()));
  try {
    while (!existsSync(join(folder, 'nbd'))) await setImmediate();
    expect(await liesElsewhere(folder)).toBe(true);
  } finally {
    await mustRun(commandPath('umount'), [folder]);
    await ended;
  }
});

/** The whole chunk; undefined if it is not there. */
async function readWhole(disk: ChunkDisk, chunk: ChunkId): Promise<Uint8Array | undefined> {
  const plain = new Uint8Array(chunk.lengthBytes);
  return (await disk.readChunk(chunk, plain)) ? plain : undefined;
}

describe.each([false, true])('a chunk on disk (encrypted: %s)', (isEncrypted) => {
  it('is given back whole and by segments, to whoever opens the directory later', async () => {
    const directory = temporaryFolder(cleanup);
    const { disk } = await openDisk(directory, { isEncrypted });
    for (const length of [1, CHUNK_SEGMENT_BYTES, LENGTH]) await disk.offer(id(length, length), contentOf(1, length));
    // Whole blocks, where the file system takes what goes past the kernel's cache.
    const sizes = cachedFiles(directory).map((path) => roundUp(statSync(path).size, 4096));
    const expected = [1, CHUNK_SEGMENT_BYTES, LENGTH].map((length) => sealedLength(length, CHUNK_SEGMENT_BYTES));
    expect(sizes.sort((a, b) => a - b)).toEqual(expected.map((length) => roundUp(length, 4096)));
    const later = await openDisk(directory, { isEncrypted });
    for (const length of [1, CHUNK_SEGMENT_BYTES, LENGTH]) {
      expect(Buffer.compare((await readWhole(later.disk, id(length, length)))!, contentOf(1, length))).toBe(0);
    }
    const tail = new Uint8Array(77);
    expect(await later.disk.readSegment(id(LENGTH), 2, tail)).toBe(true);
    expect(tail).toEqual(contentOf(1).subarray(2 * CHUNK_SEGMENT_BYTES));
    // In this turn, too: of a file that is open, and of one that is not.
    for (const disk of [later.disk, (await openDisk(directory, { isEncrypted })).disk]) {
      const middle = new Uint8Array(CHUNK_SEGMENT_BYTES);
      expect(disk.readSegmentNow(id(LENGTH), 1, middle)).toBe(true);
      expect(Buffer.compare(middle, contentOf(1).subarray(CHUNK_SEGMENT_BYTES, 2 * CHUNK_SEGMENT_BYTES))).toBe(0);
      expect(disk.readSegmentNow(id(LENGTH), 2, tail.fill(0))).toBe(true);
      expect(tail).toEqual(contentOf(1).subarray(2 * CHUNK_SEGMENT_BYTES));
      expect([disk.isMissing(id(LENGTH)), disk.isMissing(id(LENGTH + 1))]).toEqual([false, true]);
      expect(disk.readSegmentNow(id(LENGTH + 1), 0, tail)).toBe(false);
    }
    // Another length, another chunk, another store: not there.
    expect(await readWhole(later.disk, id(LENGTH, LENGTH - 1))).toBeUndefined();
    expect(await later.disk.has(id(LENGTH + 1))).toBe(false);
    expect(await readWhole((await openDisk(directory, { isEncrypted, key: 2 })).disk, id(LENGTH))).toBeUndefined();
  });

  it('is missing and removed wherever one of its bytes is another, and the log says so once', async () => {
    const directory = temporaryFolder(cleanup);
    const log = new LogLines();
    const random = seededRandom(3);
    for (let round = 0; round < 30; round++) {
      // Opened anew: files that are open already are not looked at from the beginning again.
      const { disk, counters } = await openDisk(directory, { isEncrypted, log });
      await disk.offer(id(1), contentOf(1));
      const [path] = cachedFiles(directory);
      const bytes = readFileSync(path!);
      // What the header says is known without it.
      const at = sealHeader.sizeBytes + random.below(sealedLength(LENGTH, CHUNK_SEGMENT_BYTES) - sealHeader.sizeBytes);
      bytes[at]! ^= 1 << random.below(8);
      writeFileSync(path!, bytes);
      if (round % 2 === 0) expect(await readWhole(disk, id(1)), `byte ${at}`).toBeUndefined();
      else {
        const lengths = [CHUNK_SEGMENT_BYTES, CHUNK_SEGMENT_BYTES, 77];
        const found = lengths.map((length, index) => disk.readSegmentNow(id(1), index, new Uint8Array(length)));
        expect(found, `byte ${at}`).toContain(false);
        // Gone for all from that moment on.
        expect([disk.isMissing(id(1)), await disk.has(id(1)), await readWhole(disk, id(1))]).toEqual([
          true,
          false,
          undefined,
        ]);
        while (existsSync(path!)) await setImmediate();
      }
      expect([existsSync(path!), counters.diskDamaged]).toEqual([false, 1]);
    }
    expect(log.warnings.length).toBe(30); // One for each server.
  });

  it('is missing where it is cut off, longer, or another chunk’s', async () => {
    const directory = temporaryFolder(cleanup);
    const { disk } = await openDisk(directory, { isEncrypted });
    for (const length of [0, 10, 64, 70_000, LENGTH + 3 * 16 + 63]) {
      await disk.offer(id(1), contentOf(1));
      truncateSync(cachedFiles(directory)[0]!, length);
      expect(await readWhole(disk, id(1)), `cut at ${length}`).toBeUndefined();
    }
    await disk.offer(id(1), contentOf(1));
    const [one] = cachedFiles(directory);
    await disk.offer(id(2), contentOf(2));
    const two = cachedFiles(directory).find((path) => path !== one)!;
    mkdirSync(dirname(two), { recursive: true });
    copyFileSync(one!, two);
    expect(await readWhole(disk, id(2))).toBeUndefined();
    expect(await readWhole(disk, id(1))).toEqual(contentOf(1));
  });
});

describe('stored bytes on disk', () => {
  const stored = contentOf(9, 10_000);
  const memory = new SharedArena(MiB);
  const read = (disk: ChunkDisk, bytesMax = 2 * LENGTH) => disk.readStored(id(1), { bytesMax, memory });

  it('are given back as they were, also while they are written, and not as the decoded chunk', async () => {
    const directory = temporaryFolder(cleanup);
    const { disk, counters } = await openDisk(directory);
    expect([disk.isMissing(id(1), 'stored'), await read(disk)]).toEqual([true, undefined]);
    const writing = disk.offerStored(id(1), stored);
    expect([disk.isMissing(id(1), 'stored'), disk.isMissing(id(1)), disk.pending(id(1))]).toEqual([
      false,
      true,
      undefined,
    ]);
    expect(await read(disk)).toEqual(stored);
    await writing;
    const later = await openDisk(directory);
    expect(await read(later.disk)).toEqual(stored);
    expect([await readWhole(later.disk, id(1)), await later.disk.has(id(1))]).toEqual([undefined, false]);
    // Whole blocks, their count of bytes in the last: that of nothing else.
    const [path] = cachedFiles(directory);
    expect([cachedFiles(directory).length, statSync(path!).size]).toEqual([1, 12288]);
    expect([counters.diskBytesWritten, counters.diskBytesRead]).toEqual([10_004, 10_000]);
    expect(await read((await openDisk(directory, { key: 2 })).disk)).toBeUndefined();
  });

  it('make room for the decoded chunk, and are not written beside it', async () => {
    const directory = temporaryFolder(cleanup);
    const { disk } = await openDisk(directory);
    await disk.offerStored(id(1), stored);
    await disk.offer(id(1), contentOf(1));
    expect([disk.isMissing(id(1)), disk.isMissing(id(1), 'stored')]).toEqual([false, true]);
    await disk.offerStored(id(1), stored);
    expect(disk.isMissing(id(1), 'stored')).toBe(true);
    expect(await readWhole(disk, id(1))).toEqual(contentOf(1));
  });

  it('are missing and removed where the file is cut off, says more than there is, or was rejected', async () => {
    const directory = temporaryFolder(cleanup);
    const log = new LogLines();
    const { disk, counters } = await openDisk(directory, { log });
    const damage: ((path: string) => void)[] = [
      (path) => truncateSync(path, 0),
      (path) => truncateSync(path, 3),
      (path) => truncateSync(path, 8192),
      (path) => writeFileSync(path, Buffer.alloc(4096, 0xff)),
    ];
    for (const [round, spoil] of damage.entries()) {
      await disk.offerStored(id(1), stored);
      const [path] = cachedFiles(directory);
      spoil(path!);
      // What lies where the number was is contents: it may be a number that fits, and then decoding tells.
      const found = await read(disk);
      if (found !== undefined) await disk.rejectStored(id(1), new Error('its MAC is another'));
      expect([existsSync(path!), counters.diskDamaged, disk.isMissing(id(1), 'stored')]).toEqual([
        false,
        round + 1,
        true,
      ]);
    }
    await disk.offerStored(id(1), stored);
    expect(await read(disk, stored.length - 1)).toBeUndefined();
    expect(counters.diskDamaged).toBe(damage.length + 1);
    expect(log.warnings).toEqual([expect.stringContaining('A cached chunk is damaged')]);
  });
});

describe('the disk tier', () => {
  it('stays below its bound, the least recently used going first, with two processes on one directory', async () => {
    const directory = temporaryFolder(cleanup);
    const bytesMax = 40 * (LENGTH + 200);
    const both = await Promise.all([openDisk(directory, { bytesMax }), openDisk(directory, { bytesMax })]);
    await both[0].disk.offer(id(1), contentOf(1));
    const [first] = cachedFiles(directory);
    for (let seed = 2; seed < 200; seed++) {
      await both[seed % 2]!.disk.offer(id(seed), contentOf(seed));
      for (const path of cachedFiles(directory)) if (path !== first) utimesSync(path, seed, seed);
      const { bytes } = listChunkFiles(join(directory, 'chunks'));
      expect(bytes).toBeLessThanOrEqual(bytesMax * (1 + 1 / 16));
    }
    // Used last of all, as its time says.
    expect(await both[1].disk.has(id(1))).toBe(true);
    expect(both[0].counters.diskEvictions + both[1].counters.diskEvictions).toBeGreaterThan(100);
  });

  it('does without where the disk is full, and says so once', async () => {
    const directory = temporaryFolder(cleanup);
    const log = new LogLines();
    const fail = Object.assign(new Error('no space'), { code: 'ENOSPC' });
    const { disk, counters } = await openDisk(directory, { log, fail });
    for (const seed of [1, 2, 3]) await disk.offer(id(seed), contentOf(seed));
    expect(log.warnings).toEqual([expect.stringContaining('the disk is full')]);
    expect([counters.diskWritesDropped, disk.hasRoomFor(1)]).toEqual([3, false]);
    expect(await readWhole(disk, id(1))).toBeUndefined();
  });
});
