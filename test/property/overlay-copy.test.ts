/** A device frozen while it is written to, and copies of its overlay: as they were at that moment, whatever comes after. */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/core/log.ts';
import { openLogDevice } from '../../src/device/directory-overlays.ts';
import { type CopyOptions, copyOverlay, removeOverlay } from '../../src/device/overlay-copy.ts';
import { readMetadata, writeMetadata } from '../../src/device/overlay-metadata.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CrashFileSystem } from '../support/overlay-crash-fs.ts';
import { baseContent, DIRECTORY, metadata, openCrashDevice } from '../support/overlay-crash-run.ts';
import {
  applyToBuffer,
  applyToDevice,
  driveAgainstModel,
  firstDifference,
  randomStep,
} from '../support/overlay-model.ts';
import { type Random, runSeed, seededRandom } from '../support/overlay-random.ts';

const COPY = '/copy';
const copyOptions: CopyOptions = { from: DIRECTORY, to: COPY, exportKey: 'copy', nowMs: 7 };

/** A device over a new file system, and what it holds after random writes. */
async function writtenDevice(random: Random, steps = 60) {
  const fileSystem = new CrashFileSystem();
  await writeMetadata(fileSystem, DIRECTORY, metadata);
  const device = await openCrashDevice(fileSystem);
  const content = Buffer.from(baseContent);
  const write = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const step = randomStep(random, content.length);
      applyToBuffer(content, step);
      await applyToDevice(device, step);
    }
  };
  await write(steps);
  return { fileSystem, device, content, write };
}

async function openCopy(fileSystem: CrashFileSystem) {
  const found = await readMetadata(fileSystem, COPY);
  expect(found).toMatchObject({ exportKey: 'copy', createdMs: 7 });
  const base = new MemoryDevice(Buffer.from(baseContent));
  return openLogDevice(COPY, found!, base, { log: silentLog, fileSystem, segmentBytes: 60_000 });
}

/** Everything written to once more, so that all that is frozen is replaced, and flushed: then segments are removed. */
async function replaceAll(random: Random, device: Awaited<ReturnType<typeof openCrashDevice>>): Promise<void> {
  for (let round = 0; round < 12; round++) {
    await device.write(0, random.fill(Buffer.alloc(device.sizeBytes)), { fua: true });
  }
}

const seed = runSeed();
describe(`a frozen device (seed ${seed})`, () => {
  it('stays as it was while everything is written again, and then gives its space back', async () => {
    const random = seededRandom(seed);
    const { fileSystem, device, content } = await writtenDevice(random);
    const frozen = await device.freeze();
    const segments = new Set(frozen.blocks.segments.map(({ number }) => number));
    const present = async () =>
      (await fileSystem.list(DIRECTORY)).filter((name) => segments.has(Number.parseInt(name.slice(4), 16))).length;
    await replaceAll(random, device);
    expect(await firstDifference(device, content)).toBeDefined();
    const got = Buffer.alloc(content.length);
    await frozen.read(0, got);
    expect(got.equals(content)).toBe(true);
    expect(await present()).toBe(segments.size);
    await frozen.close();
    await frozen.close();
    await replaceAll(random, device);
    await device.close();
    expect(await present()).toBeLessThan(segments.size);
  });

  it('says what differed from the base then', async () => {
    const random = seededRandom(seed + 1);
    const { device } = await writtenDevice(random, 0);
    await device.write(8192, random.fill(Buffer.alloc(4096)), { fua: false });
    await device.trim({ offset: 16384, length: 8192 }, { fua: false });
    const frozen = await device.freeze();
    await device.write(0, random.fill(Buffer.alloc(65536)), { fua: false });
    const ranges = [...frozen.changedRanges({ offset: 0, length: 32768 })].filter(({ state }) => state !== 'clean');
    expect(ranges).toEqual([
      { offset: 8192, length: 4096, state: 'data' },
      { offset: 16384, length: 8192, state: 'zero' },
    ]);
    await frozen.close();
    await device.close();
  });
});

describe(`a copy of an overlay (seed ${seed})`, () => {
  it('of an open one has what was there at the flush, and both go their own ways', async () => {
    for (let round = 0; round < 10; round++) {
      const random = seededRandom(seed + round);
      const { fileSystem, device, content, write } = await writtenDevice(random);
      const frozen = await device.freeze();
      const atFreeze = Buffer.from(content);
      await write(20);
      expect(await copyOverlay(fileSystem, { ...copyOptions, blocks: frozen.blocks })).toBe(true);
      await frozen.close();
      const copy = await openCopy(fileSystem);
      expect(copy.readOnlyReason).toBeUndefined();
      expect(await firstDifference(copy, atFreeze)).toBeUndefined();
      await driveAgainstModel(copy, atFreeze, { random, rounds: 10 });
      await copy.close();
      expect(await firstDifference(device, content)).toBeUndefined();
      await device.close();
    }
  });

  it('of a closed one, or of one that a crash left, is as good as that one', async () => {
    for (const crash of [false, true]) {
      const random = seededRandom(seed + 30);
      const written = await writtenDevice(random);
      await written.device.flush();
      if (!crash) await written.device.close();
      const operations = written.fileSystem.operations.length;
      const fileSystem = new CrashFileSystem(written.fileSystem.crash(operations, { mode: 'drop' }));
      await copyOverlay(fileSystem, copyOptions);
      const copy = await openCopy(fileSystem);
      expect(await firstDifference(copy, written.content)).toBeUndefined();
      await copy.close();
      if (crash) await written.device.close();
    }
  });

  it('is durable when it is said to be done', async () => {
    const { fileSystem, device, content } = await writtenDevice(seededRandom(seed + 40));
    const frozen = await device.freeze();
    await copyOverlay(fileSystem, { ...copyOptions, blocks: frozen.blocks });
    const after = new CrashFileSystem(fileSystem.crash(fileSystem.operations.length, { mode: 'drop' }));
    const copy = await openCopy(after);
    expect(await firstDifference(copy, content)).toBeUndefined();
    await copy.close();
    await frozen.close();
    await device.close();
  });

  it('of nothing is nothing, and what is removed is gone', async () => {
    const fileSystem = new CrashFileSystem();
    expect(await copyOverlay(fileSystem, copyOptions)).toBe(false);
    expect(fileSystem.image().size).toBe(0);
    const written = await writtenDevice(seededRandom(seed));
    await written.device.close();
    await removeOverlay(written.fileSystem, DIRECTORY);
    expect(written.fileSystem.image().size).toBe(0);
    await removeOverlay(written.fileSystem, DIRECTORY);
  });
});
