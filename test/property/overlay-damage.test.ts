import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { CrashFileSystem, type Image } from '../support/overlay-crash-fs.ts';
import { baseContent, openCrashDevice, runWorkload, untilMarked } from '../support/overlay-crash-run.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

/** OVERLAY_FLIPS: how many bytes to change in each state of the log. */
const flips = Number(process.env.OVERLAY_FLIPS ?? 400);

interface Outcome {
  readonly refusedBlocks: number;
  readonly readOnly: boolean;
}

/** Opens a damaged overlay. Rejects if it serves a wrong byte as if it were well. */
async function openDamaged(image: Image, content: Buffer, encrypted: boolean): Promise<Outcome> {
  const device = await openCrashDevice(new CrashFileSystem(image), 60_000, { encrypted });
  let refusedBlocks = 0;
  for (let block = 0; block < content.length / BLOCK_SIZE; block++) {
    const got = Buffer.alloc(BLOCK_SIZE);
    try {
      await device.read(block * BLOCK_SIZE, got);
    } catch (error) {
      expect(error).toMatchObject({ code: 'OVERLAY', reason: 'damaged', details: { block } });
      refusedBlocks++;
      continue;
    }
    const right = got.equals(content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE));
    // Which blocks an unreadable record changed cannot be known: hence read-only, with a reason.
    if (!right) expect(device.readOnlyReason, `block ${block} is wrong`).toMatch(/unreadable|missing/);
  }
  const readOnly = device.readOnlyReason !== undefined;
  if (readOnly) {
    const write = device.write(0, Buffer.alloc(1), { fua: false });
    await expect(write).rejects.toMatchObject({ code: 'OVERLAY', reason: 'damaged' });
  }
  await device.close();
  return { refusedBlocks, readOnly };
}

/** An overlay after a workload, all of it durable: closed, or left by a killed process. */
async function durableImage(
  seed: number,
  { closed, encrypted }: { closed: boolean; encrypted: boolean },
): Promise<{ image: Image; content: Buffer }> {
  const run = await runWorkload(seededRandom(seed), 60, { reopenChance: 0, encrypted });
  const content = run.states.at(-1)!;
  const fileSystem = new CrashFileSystem(run.fileSystem.image());
  const device = await openCrashDevice(fileSystem, 60_000, { encrypted });
  const random = seededRandom(seed + 1);
  if (closed) {
    // Much of what a workload leaves is replaced since, and then its damage matters to nobody: half of the disk is new.
    const upperHalf = content.subarray(content.length / 2);
    await device.write(content.length / 2, random.fill(upperHalf), { fua: true });
    await device.close();
    return { image: fileSystem.image(), content };
  }
  for (let step = 0; step < 12; step++) {
    const data = random.fill(Buffer.alloc(1 + random.below(3 * BLOCK_SIZE)));
    const offset = random.below(content.length - data.length);
    await device.write(offset, data, { fua: step % 3 === 0 });
    data.copy(content, offset);
  }
  await device.flush();
  await untilMarked(fileSystem);
  return { image: fileSystem.image(), content };
}

describe('damage to an overlay is detected, never served', () => {
  for (const [closed, encrypted] of [
    [true, false],
    [false, false],
    [true, true],
    [false, true],
  ] as const) {
    const seed = runSeed() * 10 + (closed ? 1 : 0);
    const state = `${closed ? 'that was closed' : 'of a killed process'}${encrypted ? ', encrypted' : ''}`;
    const made = () => durableImage(seed, { closed, encrypted });
    const judge = (image: Image, content: Buffer) => openDamaged(image, content, encrypted);
    it(`one changed byte anywhere, in an overlay ${state} (seed ${seed})`, { timeout: 300_000 }, async () => {
      const { image, content } = await made();
      expect(await judge(image, content)).toEqual({ refusedBlocks: 0, readOnly: false });
      const random = seededRandom(seed);
      const paths = [...image.keys()].filter((path) => image.get(path)!.length > 0);
      let detected = 0;
      for (let flip = 0; flip < flips; flip++) {
        const path = paths[random.below(paths.length)]!;
        const bytes = Buffer.from(image.get(path)!);
        // Half of the flips near the start and end of records, where headers are.
        const at = random.chance(0.5) ? random.below(bytes.length) : Math.max(0, bytes.length - 1 - random.below(600));
        bytes[at]! ^= 1 << random.below(8);
        const outcome = await judge(new Map(image).set(path, bytes), content).catch((error: unknown) => {
          throw new Error(`byte ${at} of ${path} changed`, { cause: error });
        });
        if (outcome.readOnly || outcome.refusedBlocks > 0) detected++;
      }
      expect(detected).toBeGreaterThan(flips / 10);
    });

    it(`a missing or shortened file, in an overlay ${state} (seed ${seed})`, async () => {
      const { image, content } = await made();
      const logs = [...image.keys()].filter((path) => path.includes('/log-')).sort();
      let missed = 0;
      for (const path of logs) {
        // The end of a log that was never closed may be torn: what is gone was said to be durable only behind it.
        if (!closed && path === logs.at(-1)) continue;
        const without = new Map(image);
        without.delete(path);
        // A file of which nothing is needed any more may be gone: `judge` has compared every block. Not of a closed log.
        const { readOnly, refusedBlocks } = await judge(without, content);
        if (closed) expect({ readOnly, refusedBlocks }).toMatchObject({ readOnly: true });
        if (readOnly) missed++;
        const bytes = image.get(path)!;
        for (const part of [0.1, 0.5, 0.9]) {
          const short = new Map(image).set(path, bytes.subarray(0, bytes.length * part));
          await judge(short, content);
        }
      }
      expect(missed).toBeGreaterThan(0);
    });
  }

  it('heals a damaged block that is written as a whole', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await openCrashDevice(fileSystem);
    const data = seededRandom(5).fill(Buffer.alloc(2 * BLOCK_SIZE));
    await device.write(3 * BLOCK_SIZE, data, { fua: false });
    await device.close();
    const image = fileSystem.image();
    const [path, bytes] = [...image].find(([name]) => name.includes('/log-'))!;
    bytes[bytes.indexOf(data.subarray(BLOCK_SIZE, BLOCK_SIZE + 64)) + 9]! ^= 1;
    const again = await openCrashDevice(new CrashFileSystem(image));
    const got = Buffer.alloc(BLOCK_SIZE);
    await again.read(3 * BLOCK_SIZE, got);
    expect(got.equals(data.subarray(0, BLOCK_SIZE))).toBe(true);
    const refused = { reason: 'damaged', message: expect.stringContaining(path) };
    await expect(again.read(4 * BLOCK_SIZE, got)).rejects.toMatchObject(refused);
    await expect(again.write(4 * BLOCK_SIZE + 1, Buffer.from([1]), { fua: false })).rejects.toMatchObject(refused);
    await again.write(4 * BLOCK_SIZE, baseContent.subarray(0, BLOCK_SIZE), { fua: true });
    await again.read(4 * BLOCK_SIZE, got);
    expect(got.equals(baseContent.subarray(0, BLOCK_SIZE))).toBe(true);
    await again.close();
  });
});
