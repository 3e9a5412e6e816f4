import { describe, expect, it } from 'vitest';
import { OverlayError } from '../../src/core/errors.ts';
import type { OverlayDevice } from '../../src/device/overlay.ts';
import { CrashFileSystem, type Image, type OperationKind, systemError } from '../support/overlay-crash-fs.ts';
import { baseContent, openCrashDevice } from '../support/overlay-crash-run.ts';
import { applyToBuffer, applyToDevice, firstDifference, randomStep } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

const KINDS = ['open', 'list', 'read', 'write', 'sync', 'truncate', 'name', 'syncDirectory'] as const;
const CODES = ['EIO', 'ENOSPC', 'EROFS'] as const;
/** Small, so that some become complete, dead and removed within the steps. */
const SEGMENT_BYTES = 20_000;
const STEPS = 14;
const WORKLOADS_MAX = 10;

interface Fault {
  readonly kind: OperationKind;
  readonly code: string;
  /** Operations of this kind that succeed before. */
  readonly position: number;
  /** Whether all later ones fail, too. */
  readonly stays: boolean;
}

/** An overlay whose process was killed behind a FLUSH: opening it has something to cut off. */
async function killedOverlay(seed: number): Promise<{ image: Image; content: Buffer }> {
  const fileSystem = new CrashFileSystem();
  const device = await openCrashDevice(fileSystem, SEGMENT_BYTES);
  const content = Buffer.from(baseContent);
  const random = seededRandom(seed);
  for (let step = 0; step < 6; step++) {
    const change = randomStep(random, content.length);
    await applyToDevice(device, change);
    applyToBuffer(content, change);
    await device.flush();
  }
  const image = fileSystem.crash(fileSystem.operations.length, { mode: 'kill' });
  await device.close();
  return { image, content };
}

/** What may be on the disk: one of `states`, and not one before `flushed`. */
interface Outcome {
  readonly states: Buffer[];
  flushed: number;
}

/** Writes, with FLUSHes, until something fails for good. Compares what can be read with what was acknowledged. */
async function use(device: OverlayDevice, outcome: Outcome, { kind, seed }: { kind: OperationKind; seed: number }) {
  const { states } = outcome;
  const random = seededRandom(seed);
  for (let step = 0; step < STEPS; step++) {
    const change = randomStep(random, baseContent.length);
    const next = Buffer.from(states.at(-1)!);
    applyToBuffer(next, change);
    try {
      await applyToDevice(device, change);
      states.push(next);
      if (step % 3 === 0) await device.flush();
      if (step % 3 === 0 || change.fua) outcome.flushed = states.length - 1;
    } catch (error) {
      expect(error).toBeInstanceOf(OverlayError);
      // One that found no room has changed nothing, nor has one that could not read what it does not replace.
      if ((error as OverlayError).reason !== 'full' && kind !== 'read') {
        if (states.at(-1) !== next) states.push(next);
        return;
      }
    }
    if (kind !== 'read') expect(await firstDifference(device, states.at(-1)!)).toBe(undefined);
  }
}

/** Runs an overlay's whole life with the fault in it; false if it ended before the fault. */
async function live(image: Image, content: Buffer, fault: Fault, seed: number): Promise<boolean> {
  const fileSystem = new CrashFileSystem(image);
  let seen = 0;
  fileSystem.fault = (kind, path) => {
    if (kind !== fault.kind) return undefined;
    const fails = fault.stays ? seen >= fault.position : seen === fault.position;
    seen++;
    return fails ? systemError(fault.code, path) : undefined;
  };
  const outcome: Outcome = { states: [content], flushed: 0 };
  const device = await openCrashDevice(fileSystem, SEGMENT_BYTES).catch(() => undefined);
  if (device !== undefined) {
    try {
      await use(device, outcome, { kind: fault.kind, seed });
      await device.close();
      outcome.flushed = outcome.states.length - 1;
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
    }
  }
  const what = JSON.stringify(fault);
  for (const mode of ['drop', 'kill'] as const) {
    const again = await openCrashDevice(
      new CrashFileSystem(fileSystem.crash(fileSystem.operations.length, { mode })),
      SEGMENT_BYTES,
    );
    expect(again.readOnlyReason, `${what} ${mode}`).toBe(undefined);
    const got = Buffer.alloc(content.length);
    await again.read(0, got);
    const found = outcome.states.findLastIndex((state) => state.equals(got));
    expect(found, `${what} ${mode}: of ${outcome.states.length} states`).toBeGreaterThanOrEqual(outcome.flushed);
    await again.close();
  }
  return seen > fault.position;
}

describe('whichever operation on an overlay fails, and however: what was flushed stays, and nothing else appears', () => {
  const seed = runSeed();
  for (const kind of KINDS) {
    it(`${kind} (seed ${seed})`, async () => {
      for (const code of CODES) {
        for (const stays of [false, true]) {
          let position = 0;
          // In one of six workloads nothing has to be cut off.
          for (let other = seed; position === 0 && other < seed + WORKLOADS_MAX; other++) {
            const { image, content } = await killedOverlay(other);
            while (await live(image, content, { kind, code, position, stays }, other + position)) position++;
          }
          expect(position, `${kind} is something that an overlay does`).toBeGreaterThan(0);
        }
      }
    });
  }
});
