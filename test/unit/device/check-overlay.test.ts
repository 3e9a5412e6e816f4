import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../src/core/units.ts';
import { checkOverlay } from '../../../src/device/check-overlay.ts';
import { writeMetadata } from '../../../src/device/overlay-metadata.ts';
import { CrashFileSystem, type Image } from '../../support/overlay-crash-fs.ts';
import { DIRECTORY, metadata, openCrashDevice } from '../../support/overlay-crash-run.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const random = seededRandom(3);
const data = random.fill(Buffer.alloc(6 * BLOCK_SIZE));

/** An overlay with a few blocks in several segments, closed; and the path of its first segment. */
async function closedOverlay(): Promise<{ image: Image; path: string }> {
  const fileSystem = new CrashFileSystem();
  await writeMetadata(fileSystem, DIRECTORY, metadata);
  const device = await openCrashDevice(fileSystem, 2 * BLOCK_SIZE);
  for (let block = 0; block < 6; block++) {
    await device.write(block * BLOCK_SIZE, data.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE), { fua: true });
  }
  await device.writeZeroes({ offset: 10 * BLOCK_SIZE, length: 4 * BLOCK_SIZE }, { fua: true, mayTrim: true });
  await device.close();
  const image = fileSystem.image();
  return { image, path: [...image.keys()].filter((name) => name.includes('/log-')).sort()[0]! };
}

const check = (image: Image) => checkOverlay(DIRECTORY, { fileSystem: new CrashFileSystem(image) });

describe('checking an overlay', () => {
  it('finds a sound one sound, and changes nothing', async () => {
    const { image } = await closedOverlay();
    const fileSystem = new CrashFileSystem(image);
    const before = fileSystem.operations.length;
    expect(await checkOverlay(DIRECTORY, { fileSystem })).toEqual({
      metadata,
      readOnlyReason: undefined,
      remarks: [],
      damagedBlocks: [],
      damagedBlockCount: 0,
      checkedBlocks: 6,
      tornTail: false,
      isSound: true,
    });
    expect(fileSystem.operations.length).toBe(before);
  });

  it('names a damaged block', async () => {
    const { image, path } = await closedOverlay();
    const bytes = image.get(path)!;
    bytes[bytes.indexOf(data.subarray(BLOCK_SIZE, BLOCK_SIZE + 40)) + 7]! ^= 4;
    const result = await check(image);
    expect(result).toMatchObject({ isSound: false, damagedBlockCount: 1, checkedBlocks: 6, readOnlyReason: undefined });
    expect(result.damagedBlocks).toEqual([{ block: 1, message: expect.stringContaining(path) }]);
  });

  it('remarks on a damaged record of which there is a copy', async () => {
    const { image, path } = await closedOverlay();
    image.get(path)![64 + 9]! ^= 1;
    expect(await check(image)).toMatchObject({ isSound: true, remarks: [expect.stringContaining('byte 64')] });
  });

  it('says why an overlay opens read-only, and that the end of one is torn', async () => {
    const { image, path } = await closedOverlay();
    const missing = new Map(image);
    missing.delete(path);
    expect(await check(missing)).toMatchObject({ isSound: false, readOnlyReason: expect.stringContaining('missing') });

    const fileSystem = new CrashFileSystem();
    await writeMetadata(fileSystem, DIRECTORY, metadata);
    const device = await openCrashDevice(fileSystem);
    await device.write(0, data.subarray(0, BLOCK_SIZE), { fua: true });
    await device.write(BLOCK_SIZE, data.subarray(0, BLOCK_SIZE), { fua: false });
    // Behind the last record come zeroes that were written ahead.
    const torn = fileSystem.crash(fileSystem.operations.length - 1, { mode: 'kill', tornAt: 1024 });
    const whole = fileSystem.crash(fileSystem.operations.length, { mode: 'kill' });
    await device.close();
    expect(await check(torn)).toMatchObject({ isSound: true, tornTail: true, checkedBlocks: 1 });
    expect(await check(whole)).toMatchObject({ isSound: true, tornTail: false, checkedBlocks: 2 });
  });

  it('refuses a directory without an overlay', async () => {
    await expect(check(new Map())).rejects.toMatchObject({ code: 'USER' });
  });
});
