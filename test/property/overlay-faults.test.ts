import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { CrashFileSystem, type OperationKind, systemError } from '../support/overlay-crash-fs.ts';
import { baseContent, largeWrites, openCrashDevice } from '../support/overlay-crash-run.ts';
import { applyToBuffer, applyToDevice, firstDifference, randomStep } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

/** Fails the operation of this kind with this number, and with `stays` every later one, until `clear`. */
function failNth(fileSystem: CrashFileSystem, kind: OperationKind, nth: number, code: string, stays = false) {
  let seen = 0;
  let hit = 0;
  fileSystem.fault = (operation, path) => {
    if (operation !== kind) return undefined;
    const fails = seen === nth || (stays && seen > nth);
    seen++;
    if (fails) hit++;
    return fails ? systemError(code, path) : undefined;
  };
  return { clear: () => (fileSystem.fault = undefined), hits: () => hit };
}

describe('a full disk', () => {
  const seed = runSeed();
  it(`refuses writes, keeps what is there, and goes on when there is room again (seed ${seed})`, async () => {
    for (const kind of ['write', 'open', 'name'] as const) {
      for (let nth = 0; nth < 25; nth++) {
        const fileSystem = new CrashFileSystem();
        const device = await openCrashDevice(fileSystem);
        const random = seededRandom(seed + nth);
        const content = Buffer.from(baseContent);
        const fault = failNth(fileSystem, kind, nth, 'ENOSPC', nth % 2 === 0);
        for (let step = 0; step < 30; step++) {
          if (step === 20) fault.clear();
          const change = randomStep(random, content.length);
          try {
            await applyToDevice(device, change);
            applyToBuffer(content, change);
          } catch (error) {
            expect(error).toMatchObject({ code: 'OVERLAY', reason: 'full' });
          }
          expect(await firstDifference(device, content)).toBe(undefined);
        }
        await device.flush();
        const left = fileSystem.crash(fileSystem.operations.length, { mode: 'drop' });
        await device.close();
        for (const image of [left, fileSystem.image()]) {
          const again = await openCrashDevice(new CrashFileSystem(image));
          expect(again.readOnlyReason).toBe(undefined);
          expect(await firstDifference(again, content), `${kind} ${nth}`).toBe(undefined);
          await again.close();
        }
      }
    }
  });
});

describe('a write that fails while another one is under way behind it', () => {
  const seed = runSeed();
  it.each(['ENOSPC', 'EIO'])(`%s: what was refused is nowhere, what was taken stays (seed ${seed})`, async (code) => {
    let failures = 0;
    for (let nth = 0; nth < 40; nth++) {
      const fileSystem = new CrashFileSystem();
      const device = await openCrashDevice(fileSystem, 200_000);
      const random = seededRandom(seed + nth);
      const content = Buffer.from(baseContent);
      const fault = failNth(fileSystem, 'write', nth, code, nth % 3 === 0);
      for (let round = 0; round < 6; round++) {
        if (round === 4) fault.clear();
        const changes = largeWrites(random);
        const results = await Promise.allSettled(changes.map((change) => applyToDevice(device, change)));
        for (const [at, result] of results.entries()) {
          if (result.status === 'fulfilled') applyToBuffer(content, changes[at]!);
          else {
            failures++;
            expect(result.reason).toMatchObject({ code: 'OVERLAY', reason: code === 'ENOSPC' ? 'full' : 'io' });
          }
        }
        expect(await firstDifference(device, content), `${nth}, round ${round}`).toBe(undefined);
      }
      if (code === 'ENOSPC') await device.flush();
      const left = fileSystem.crash(fileSystem.operations.length, { mode: 'kill' });
      const again = await openCrashDevice(new CrashFileSystem(left));
      expect(again.readOnlyReason).toBe(undefined);
      expect(await firstDifference(again, content), `${nth}`).toBe(undefined);
      await again.close();
    }
    expect(failures).toBeGreaterThan(40);
  });
});

describe('a failing disk', () => {
  const seed = runSeed();
  for (const [kind, code] of [
    ['sync', 'EIO'],
    ['sync', 'ENOSPC'],
    ['syncDirectory', 'EIO'],
    ['write', 'EIO'],
  ] as const) {
    it(`${kind} ${code}: nothing is written any more, reads go on, what was durable stays (seed ${seed})`, async () => {
      for (let nth = 0; nth < 12; nth++) {
        const fileSystem = new CrashFileSystem();
        const device = await openCrashDevice(fileSystem);
        const random = seededRandom(seed + nth);
        const states = [Buffer.from(baseContent)];
        let flushed = 0;
        let failed = false;
        const fault = failNth(fileSystem, kind, nth, code);
        for (let step = 0; step < 40; step++) {
          const change = { ...randomStep(random, baseContent.length), fua: step % 2 === 0 };
          const next = Buffer.from(states.at(-1)!);
          applyToBuffer(next, change);
          try {
            await applyToDevice(device, change);
            // A trim of less than a block changes nothing, so nothing refuses it.
            if (!next.equals(states.at(-1)!)) expect(failed, 'no write succeeds after a failure').toBe(false);
            states.push(next);
            if (change.fua) flushed = states.length - 1;
          } catch (error) {
            expect(error).toMatchObject({ code: 'OVERLAY', reason: 'io' });
            // The write with FUA may have landed before its fdatasync failed.
            if (!failed) states.push(next);
            failed = true;
          }
        }
        // The INDEX of a segment may be missing: only that is forgiven.
        if (kind !== 'write') expect(failed).toBe(fault.hits() > 0);
        if (!failed) {
          fault.clear(); // What is left to be synced at the end may be what would have failed.
          await device.close();
          continue;
        }
        await expect(device.flush()).rejects.toMatchObject({ reason: 'io' });
        await device.read(0, Buffer.alloc(BLOCK_SIZE));
        await expect(device.close()).rejects.toMatchObject({ code: 'OVERLAY' });
        for (const mode of ['drop', 'kill'] as const) {
          const image = fileSystem.crash(fileSystem.operations.length, { mode });
          const again = await openCrashDevice(new CrashFileSystem(image));
          const got = Buffer.alloc(baseContent.length);
          await again.read(0, got);
          const state = states.findIndex((one, index) => index >= flushed && one.equals(got));
          expect(state, `${nth} ${mode}`).toBeGreaterThanOrEqual(flushed);
          await again.close();
        }
      }
    });
  }

  it('a FLUSH with nothing to flush syncs nothing, and waiting FLUSHes share one fdatasync', async () => {
    const fileSystem = new CrashFileSystem();
    const device = await openCrashDevice(fileSystem, 1024 * 1024);
    const syncs = () => fileSystem.operations.filter(({ kind }) => kind === 'sync').length;
    await device.flush();
    expect(syncs()).toBe(0);
    await device.write(0, Buffer.alloc(100, 1), { fua: true });
    const before = syncs();
    for (let count = 0; count < 100; count++) await device.flush();
    expect(syncs()).toBe(before);
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => device.write(index * 512, Buffer.alloc(512, 3), { fua: true })),
    );
    expect(syncs() - before, 'for fifty that asked').toBeLessThan(30);
    await device.close();
  });
});
