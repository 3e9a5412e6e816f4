/** Runs a random workload on an overlay in a CrashFileSystem, and judges what is left after a crash. */
import { createHash, createSecretKey } from 'node:crypto';
import type { BlockDevice } from '../../src/core/device.ts';
import { type Log, silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { openLogDevice } from '../../src/device/directory-overlays.ts';
import { ENCRYPTED_FORMAT_VERSION, FORMAT_VERSION } from '../../src/device/log-format.ts';
import type { OverlayDevice } from '../../src/device/overlay.ts';
import type { OverlayMetadata } from '../../src/device/overlay-metadata.ts';
import { newEncryption, type OverlayKeySource } from '../../src/device/segment-cipher.ts';
import type { SpaceOptions } from '../../src/device/space-gate.ts';
import { MemoryDevice } from './memory-device.ts';
import { type CrashFileSystem, CrashFileSystem as FileSystem, type Image } from './overlay-crash-fs.ts';
import { applyToBuffer, applyToDevice, randomStep, type Step } from './overlay-model.ts';
import { type Random, seededRandom } from './overlay-random.ts';

export const DIRECTORY = '/overlay';
const BLOCKS = 32;
export const baseContent = seededRandom(11).fill(Buffer.alloc(BLOCKS * BLOCK_SIZE));
/** Keys of the encrypted ones, as a store's key would give them. */
export const keyFor: OverlayKeySource = (salt) =>
  createSecretKey(createHash('sha256').update('key').update(salt).digest());
export const metadata: OverlayMetadata = {
  formatVersion: FORMAT_VERSION,
  overlayId: '0123456789abcdef',
  exportKey: 'crash',
  sizeBytes: baseContent.length,
  createdMs: 0,
  identity: { snapshotId: '', path: '/', layout: {} },
};

export const encryptedMetadata: OverlayMetadata = {
  ...metadata,
  formatVersion: ENCRYPTED_FORMAT_VERSION,
  encryption: newEncryption(keyFor),
};

/** A moment of the run: after `operations` operations, steps below `issued` had been asked for, those below `flushed` were promised. */
export interface Moment {
  readonly operations: number;
  readonly issued: number;
  readonly flushed: number;
}

/** Records with so many blocks are written behind their data, smaller ones with it: crashes come in both. */
const DATA_FIRST_BLOCKS = 3;
/** Zeroes ahead for a few small records: those that land in them are written at once. */
const AHEAD_BYTES = 20_000;
/** The next record begins ahead of its turn from so many on. */
const LARGE_BLOCKS = 4 * DATA_FIRST_BLOCKS;

export interface Run {
  readonly fileSystem: CrashFileSystem;
  readonly steps: readonly Step[];
  /** content after the first k steps */
  readonly states: readonly Buffer[];
  readonly moments: readonly Moment[];
  readonly encrypted: boolean;
}

export interface CrashDeviceOptions extends SpaceOptions {
  readonly log?: Log;
  readonly encrypted?: boolean;
  /** As OpenLogOptions has it. */
  readonly aheadBytes?: number;
}

export function openCrashDevice(
  fileSystem: CrashFileSystem,
  segmentBytes = 60_000,
  { encrypted = false, ...more }: CrashDeviceOptions = {},
): Promise<OverlayDevice> {
  const base = new MemoryDevice(Buffer.from(baseContent));
  const about = encrypted ? encryptedMetadata : metadata;
  const sizes = { segmentBytes, dataFirstBytes: DATA_FIRST_BLOCKS * BLOCK_SIZE };
  return openLogDevice(DIRECTORY, about, base, { log: silentLog, keyFor, ...more, ...sizes, fileSystem });
}

/** Resolves once the log has been told of the last fdatasync: its MARK comes 10 ms later, and an INDEX may come before. */
export async function untilMarked({ operations }: CrashFileSystem): Promise<void> {
  for (let seen = -1; seen !== operations.length; ) {
    seen = operations.length;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** `count` times a random step, or a few at once, one after the other, with FLUSHes, FUA and reopenings between them. */
export async function runWorkload(
  random: Random,
  count: number,
  { reopenChance = 0.02, encrypted = false }: { reopenChance?: number; encrypted?: boolean } = {},
): Promise<Run> {
  const fileSystem = new FileSystem();
  const open = () => openCrashDevice(fileSystem, 60_000, { encrypted, aheadBytes: AHEAD_BYTES });
  let device: BlockDevice = await open();
  const steps: Step[] = [];
  const states = [Buffer.from(baseContent)];
  const moments: Moment[] = [];
  let flushed = 0;
  const note = () => moments.push({ operations: fileSystem.operations.length, issued: steps.length, flushed });
  for (let index = 0; index < count; index++) {
    const drawn = random.chance(0.1) ? largeWrites(random) : [oneStep(random, states.at(-1)!)];
    for (const step of drawn) {
      const state = Buffer.from(states.at(-1)!);
      applyToBuffer(state, step);
      steps.push(step);
      states.push(state);
    }
    note();
    await Promise.all(drawn.map((step) => applyToDevice(device, step)));
    if (drawn[0]!.fua) flushed = steps.length;
    note();
    if (random.chance(0.15)) {
      await device.flush();
      flushed = steps.length;
      note();
    }
    // Long enough for a MARK now and then.
    if (random.chance(0.02)) await new Promise((resolve) => setTimeout(resolve, 15));
    if (random.chance(reopenChance)) {
      await device.close();
      flushed = steps.length;
      note();
      device = await open();
      note();
    }
  }
  await device.close();
  return { fileSystem, steps, states, moments, encrypted };
}

function oneStep(random: Random, state: Buffer): Step {
  const drawn = randomStep(random, state.length);
  // Now and then what is there is written again.
  const again = drawn.kind === 'write' && random.chance(0.2);
  return again ? { ...drawn, data: Buffer.from(state.subarray(drawn.offset, drawn.offset + drawn.length)) } : drawn;
}

/**
 * Writes that are under way together, large enough for one to begin before the other has ended. All of them to one place:
 * elsewhere their order would be nobody's to say.
 */
export function largeWrites(random: Random): Step[] {
  const length = (LARGE_BLOCKS + random.below(2)) * BLOCK_SIZE;
  const offset = random.below(BLOCKS - length / BLOCK_SIZE + 1) * BLOCK_SIZE;
  return Array.from({ length: 2 + random.below(3) }, () => {
    return { kind: 'write', offset, length, data: random.fill(Buffer.alloc(length)), fua: false };
  });
}

/** What was promised when the run had done `operations` operations. */
export function momentAt({ moments, steps }: Run, operations: number): Moment {
  let flushed = 0;
  let issued = steps.length;
  for (const moment of moments) {
    if (moment.operations <= operations) flushed = Math.max(flushed, moment.flushed);
    if (moment.operations > operations) {
      issued = moment.issued;
      break;
    }
  }
  return { operations, issued, flushed };
}

/** Opens what a crash left and says what is wrong with it; undefined if it keeps the promise. */
export async function judge(run: Run, image: Image, { issued, flushed }: Moment): Promise<string | undefined> {
  const fileSystem = new FileSystem(image);
  const open = (left: FileSystem) => openCrashDevice(left, 60_000, { encrypted: run.encrypted });
  const device = await open(fileSystem);
  if (device.readOnlyReason !== undefined) return `read-only: ${device.readOnlyReason}`;
  const got = Buffer.alloc(baseContent.length);
  await device.read(0, got);
  const state = run.states.findIndex((one, index) => index >= flushed && index <= issued && one.equals(got));
  if (state < 0) {
    const any = run.states.findIndex((one) => one.equals(got));
    return any < 0 ? 'no state of the run' : `state ${any}, promised was one from ${flushed} to ${issued}`;
  }
  return goOn(fileSystem, { device, open, content: got });
}

/** What was recovered must take writes, and be there after the next crash and the next opening. */
async function goOn(
  fileSystem: CrashFileSystem,
  {
    device,
    open,
    content,
  }: { device: OverlayDevice; open: (left: CrashFileSystem) => Promise<OverlayDevice>; content: Buffer },
): Promise<string | undefined> {
  const data = Buffer.alloc(BLOCK_SIZE + 100, 0x77);
  await device.write(1000, data, { fua: true });
  data.copy(content, 1000);
  const image = fileSystem.crash(fileSystem.operations.length, { mode: 'drop' });
  await device.close();
  for (const [what, left] of [
    ['a second crash', image],
    ['closing', fileSystem.image()],
  ] as const) {
    const again = await open(new FileSystem(left));
    const got = Buffer.alloc(content.length);
    if (again.readOnlyReason !== undefined) return `read-only after ${what}: ${again.readOnlyReason}`;
    await again.read(0, got);
    await again.close();
    if (!got.equals(content)) return `other content after ${what}`;
  }
  return undefined;
}
