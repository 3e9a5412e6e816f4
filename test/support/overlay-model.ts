/** Drives a device and a plain buffer with the same random requests and compares what they read. */
import type { BlockDevice } from '../../src/core/device.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import type { Random } from './overlay-random.ts';

/** One request that changes something. */
export interface Step {
  readonly kind: 'write' | 'zero' | 'trim';
  readonly offset: number;
  readonly length: number;
  readonly data: Uint8Array | undefined;
  readonly fua: boolean;
}

/** A random change inside the first `sizeBytes`: aligned or not, small or long, sometimes zeroes. */
export function randomStep(random: Random, sizeBytes: number, lengthMax = 5 * BLOCK_SIZE): Step {
  const kind = random.chance(0.7) ? 'write' : random.chance(0.5) ? 'zero' : 'trim';
  const unit = random.chance(0.5) ? BLOCK_SIZE : random.chance(0.5) ? 512 : 1;
  const length = Math.min(sizeBytes, Math.max(unit, Math.floor(random.below(lengthMax) / unit) * unit));
  const offset = Math.floor(random.below(sizeBytes - length + 1) / unit) * unit;
  let data: Uint8Array | undefined;
  if (kind === 'write') {
    data = Buffer.alloc(length);
    if (random.chance(0.85)) random.fill(data);
    else if (random.chance(0.5)) random.fill(data.subarray(0, random.below(length)));
  }
  return { kind, offset, length, data, fua: random.chance(0.1) };
}

/** As a server does it: at once where the device can. */
export async function applyToDevice(device: BlockDevice, { kind, offset, length, data, fua }: Step): Promise<void> {
  if (kind === 'write' && !fua && device.writeNow?.(offset, data!) === true) return;
  if (kind === 'write') return device.write(offset, data!, { fua });
  if (kind === 'zero') return device.writeZeroes({ offset, length }, { fua, mayTrim: false });
  return device.trim({ offset, length }, { fua });
}

export function applyToBuffer(content: Uint8Array, { kind, offset, length, data }: Step): void {
  if (kind === 'write') content.set(data!, offset);
  else if (kind === 'zero') content.fill(0, offset, offset + length);
  else {
    const from = Math.ceil(offset / BLOCK_SIZE) * BLOCK_SIZE;
    const to = Math.floor((offset + length) / BLOCK_SIZE) * BLOCK_SIZE;
    if (to > from) content.fill(0, from, to);
  }
}

/** First byte at which the device differs from `content`, or undefined. */
export async function firstDifference(device: BlockDevice, content: Uint8Array): Promise<number | undefined> {
  const got = Buffer.alloc(content.length, 0xee);
  await device.read(0, got);
  if (got.equals(content)) return undefined;
  return got.findIndex((byte, at) => byte !== content[at]);
}

/**
 * `rounds` batches of random requests. Requests of one batch touch different bytes, so that any order of them has one
 * result, but often the same blocks. Rejects with an Error naming the first difference.
 */
export async function driveAgainstModel(
  device: BlockDevice,
  content: Uint8Array,
  {
    random,
    rounds,
    reopen,
  }: { random: Random; rounds: number; reopen?: (device: BlockDevice) => Promise<BlockDevice> },
): Promise<BlockDevice> {
  let current = device;
  for (let round = 0; round < rounds; round++) {
    const steps = disjointSteps(random, content.length, 1 + random.below(12));
    const requests = steps.map((step) => applyToDevice(current, step));
    for (const step of steps) applyToBuffer(content, step);
    if (random.chance(0.2)) requests.push(current.flush());
    await Promise.all(requests);
    const offset = random.below(content.length);
    const got = Buffer.alloc(random.below(Math.min(20 * BLOCK_SIZE, content.length - offset) + 1));
    await current.read(offset, got);
    if (!got.equals(content.subarray(offset, offset + got.length))) {
      throw new Error(`round ${round}: a read of ${got.length} bytes at ${offset} differs from the model`);
    }
    // What was in memory is filled into a buffer of other bytes; what was not counts as right.
    const now = Buffer.alloc(got.length, 0xdd);
    if (current.readNow?.(offset, now) === true && !now.equals(got)) {
      throw new Error(`round ${round}: readNow of ${got.length} bytes at ${offset} differs from the model`);
    }
    if (reopen !== undefined && random.chance(0.05)) current = await reopen(current);
    if (round % 50 === 49 || round === rounds - 1) {
      const at = await firstDifference(current, content);
      if (at !== undefined) throw new Error(`round ${round}: byte ${at} differs from the model`);
    }
  }
  return current;
}

function disjointSteps(random: Random, sizeBytes: number, count: number): Step[] {
  const steps: Step[] = [];
  for (let tries = 0; steps.length < count && tries < count * 3; tries++) {
    const step = randomStep(random, sizeBytes);
    const end = step.offset + step.length;
    if (steps.every((other) => other.offset >= end || other.offset + other.length <= step.offset)) steps.push(step);
  }
  return steps;
}
