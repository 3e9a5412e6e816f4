import { createSecretKey, type KeyObject } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { DirectoryOverlays, openLogDevice } from '../../src/device/directory-overlays.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import type { OverlayDevice } from '../../src/device/overlay.ts';
import { newEncryption } from '../../src/device/segment-cipher.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CrashFileSystem, type Image, systemError } from '../support/overlay-crash-fs.ts';
import { baseContent, DIRECTORY, encryptedMetadata, keyFor, openCrashDevice } from '../support/overlay-crash-run.ts';
import { applyToDevice, driveAgainstModel, randomStep } from '../support/overlay-model.ts';
import { type Random, runSeed, seededRandom } from '../support/overlay-random.ts';
import { requires } from '../support/requires.ts';

/** Key and nonce of every encryption that was begun, and how often each pair was used. */
const used = vi.hoisted(() => new Map<string, number>());
vi.mock('node:crypto', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:crypto')>();
  const createCipheriv = (algorithm: 'aes-256-gcm', key: KeyObject, nonce: Uint8Array) => {
    const pair = `${key.export().toString('hex')} ${Buffer.from(nonce).toString('hex')}`;
    used.set(pair, (used.get(pair) ?? 0) + 1);
    return original.createCipheriv(algorithm, key, nonce);
  };
  return { ...original, createCipheriv };
});

const encrypted = { encrypted: true } as const;
const MARKER = Buffer.from('only the reader with the key shall see this');
const marked = (length: number): Buffer => Buffer.alloc(length, MARKER);
const segmentsOf = (image: Image) => [...image.keys()].filter((path) => path.includes('/log-')).sort();
const tempDir = mkdtempSync(join(tmpdir(), 'overlay-encryption-'));
afterAll(() => rmSync(tempDir, { recursive: true }));

describe('no nonce is used twice under a key', () => {
  beforeEach(() => used.clear());
  const expectUnique = (least: number) => {
    expect([...used].filter(([, times]) => times > 1)).toEqual([]);
    expect(used.size).toBeGreaterThan(least);
  };

  /** Random writes, of which some fail; ends at the first failure that the overlay does not go on after. */
  async function writeSome(device: OverlayDevice, random: Random, count: number): Promise<void> {
    for (let step = 0; step < count; step++) {
      const failed = await applyToDevice(device, randomStep(random, baseContent.length)).then(
        () => undefined,
        (error: { reason?: string }) => error.reason ?? 'other',
      );
      expect([undefined, 'full', 'io']).toContain(failed);
      if (failed === 'io') return;
      if (random.chance(0.2)) await device.flush().catch(() => undefined); // A failure shows at the next write.
    }
  }

  const seed = runSeed();
  it(`over torn tails, full disks, failed syncs, and logs opened again after each crash (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    let image: Image = new Map();
    for (let round = 0; round < 60; round++) {
      const fileSystem = new CrashFileSystem(image);
      const device = await openCrashDevice(fileSystem, 30_000, encrypted);
      expect(device.readOnlyReason).toBe(undefined);
      const kind = (['write', 'sync', 'truncate', 'name', 'open', 'syncDirectory'] as const)[round % 6];
      const code = round % 4 === 0 ? 'EIO' : 'ENOSPC';
      fileSystem.fault = (operation, path) =>
        (operation === kind || operation === 'write') && random.chance(0.15) ? systemError(code, path) : undefined;
      await writeSome(device, random, 30);
      fileSystem.fault = undefined;
      const count = fileSystem.operations.length - random.below(6);
      const modes = [
        { mode: 'kill', tornAt: 512 * random.below(20) },
        { mode: 'drop' },
        { mode: 'random', random },
      ] as const;
      image = fileSystem.crash(Math.max(0, count), modes[round % 3]!);
      await device.close().catch(() => undefined); // Its image is taken already.
    }
    expectUnique(1000);
  });

  it('while blocks are moved by compaction', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await openCrashDevice(fileSystem, 30_000, encrypted);
    for (let round = 0; round < 400; round++) {
      const block = round % 4 === 0 ? (round / 4) % 32 : round % 3;
      await device.write(block * BLOCK_SIZE, Buffer.alloc(BLOCK_SIZE, round + 1), { fua: round % 8 === 0 });
    }
    await device.close();
    const removed = fileSystem.operations.filter(({ kind, ...name }) => kind === 'name' && 'to' in name && !name.to);
    expect(removed.length, 'segments came free').toBeGreaterThan(5);
    expectUnique(400);
  });

  it(`in the spill file of a memory overlay (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    const content = Buffer.from(baseContent);
    const options = { memoryLimitBytes: 4 * BLOCK_SIZE, tempDir, encryptSpill: true };
    const device = await openMemoryOverlay(new MemoryDevice(Buffer.from(content)), options);
    await driveAgainstModel(device, content, { random, rounds: 300 });
    await device.close();
    expectUnique(300);
  });
});

describe('an encrypted overlay', () => {
  it('has nothing of what was written in its files, and gives it back', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await openCrashDevice(fileSystem, 30_000, encrypted);
    await device.write(0, marked(9 * BLOCK_SIZE), { fua: true });
    await device.write(20 * BLOCK_SIZE + 77, marked(100), { fua: true });
    await device.close();
    const image = fileSystem.image();
    for (const bytes of image.values()) expect(bytes.includes(MARKER)).toBe(false);
    const again = await openCrashDevice(new CrashFileSystem(image), 30_000, encrypted);
    const got = Buffer.alloc(9 * BLOCK_SIZE);
    await again.read(0, got);
    expect(got.equals(marked(got.length))).toBe(true);
    await again.close();

    const plain = new CrashFileSystem();
    const plainDevice = await openCrashDevice(plain);
    await plainDevice.write(0, marked(BLOCK_SIZE), { fua: true });
    await plainDevice.close();
    expect(
      [...plain.image().values()].some((bytes) => bytes.includes(MARKER)),
      'the search can find it',
    ).toBe(true);
  });

  /** Two blocks, each in a segment of its own. */
  async function twoSegments(): Promise<Image> {
    const fileSystem = new CrashFileSystem();
    const device = await openCrashDevice(fileSystem, BLOCK_SIZE, encrypted);
    await device.write(0, marked(BLOCK_SIZE), { fua: true });
    await device.write(BLOCK_SIZE, Buffer.alloc(BLOCK_SIZE, 7), { fua: true });
    await device.close();
    return fileSystem.image();
  }

  it('takes no segment of another overlay, also not of one with the same id', async () => {
    const fileSystem = new CrashFileSystem(await twoSegments());
    const about = { ...encryptedMetadata, encryption: newEncryption(keyFor) };
    const base = new MemoryDevice(Buffer.from(baseContent));
    const elsewhere = await openLogDevice(DIRECTORY, about, base, { fileSystem, log: silentLog, keyFor });
    expect(elsewhere.readOnlyReason).toMatch(/unreadable|missing/);
    const got = Buffer.alloc(BLOCK_SIZE);
    await elsewhere.read(0, got);
    expect(got.equals(baseContent.subarray(0, BLOCK_SIZE))).toBe(true);
    await elsewhere.close();
  });

  it('notices stored blocks that changed places', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await openCrashDevice(fileSystem, 30_000, encrypted);
    await device.write(0, marked(2 * BLOCK_SIZE), { fua: true });
    await device.close();
    const image = fileSystem.image();
    const bytes = image.get(segmentsOf(image)[0]!)!;
    const write = fileSystem.operations.find((one) => one.kind === 'write' && one.bytes.length > 2 * BLOCK_SIZE);
    const { position, bytes: record } = write as unknown as { position: number; bytes: Buffer };
    const stored = BLOCK_SIZE + 24;
    const first = position + record.length - Math.ceil((2 * stored) / 64) * 64;
    const swapped = Buffer.concat([
      bytes.subarray(first + stored, first + 2 * stored),
      bytes.subarray(first, first + stored),
    ]);
    swapped.copy(bytes, first);
    const again = await openCrashDevice(new CrashFileSystem(image), 30_000, encrypted);
    for (const block of [0, 1]) {
      const refused = { code: 'OVERLAY', reason: 'damaged', details: { block } };
      await expect(again.read(block * BLOCK_SIZE, Buffer.alloc(BLOCK_SIZE))).rejects.toMatchObject(refused);
    }
    await again.close();
  });
});

const need = requires('flock');
describe.skipIf(need.missing)(need.title('overlays in a directory'), () => {
  const identity = { snapshotId: 'ab'.repeat(32), path: '/', layout: {} };
  const base = () => new MemoryDevice(Buffer.from(baseContent));
  const otherKey = () => createSecretKey(Buffer.alloc(32, 1));

  it('are encrypted where there is a key, and opened with no other', async () => {
    const directory = join(tempDir, 'keyed');
    let overlays = await DirectoryOverlays.open(directory, { keyFor });
    const device = await overlays.openDevice('one', base(), identity);
    await device.write(0, marked(BLOCK_SIZE), { fua: true });
    await overlays.close();
    expect(readFileSync(join(directory, 'one', 'log-0000000000000001')).includes(MARKER)).toBe(false);

    for (const options of [{ keyFor: otherKey }, {}]) {
      overlays = await DirectoryOverlays.open(directory, options);
      await expect(overlays.openDevice('one', base(), identity)).rejects.toMatchObject({
        code: 'USER',
        exitCode: 77,
        message: expect.stringContaining('is encrypted'),
      });
      await overlays.close();
    }

    // Made encrypted, it stays so, whatever new ones are.
    overlays = await DirectoryOverlays.open(directory, { keyFor, encryptNew: false });
    const again = await overlays.openDevice('one', base(), identity);
    const got = Buffer.alloc(BLOCK_SIZE);
    await again.read(0, got);
    expect(got.equals(marked(BLOCK_SIZE))).toBe(true);
    const plain = await overlays.openDevice('plain', base(), identity);
    await plain.write(0, marked(BLOCK_SIZE), { fua: true });
    await overlays.close();
    expect(readFileSync(join(directory, 'plain', 'log-0000000000000001')).includes(MARKER)).toBe(true);
  });
});
