import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { DirectoryOverlays } from '../../src/device/directory-overlays.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { CHILD_BASE_BYTE, type ChildStep, childIdentity, startOverlayChild } from '../support/overlay-child.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';
import { requires } from '../support/requires.ts';

const tempDir = mkdtempSync(join(tmpdir(), 'overlay-kill-'));
afterAll(() => rmSync(tempDir, { recursive: true }));
const need = requires('flock');
const SIZE = 64 * BLOCK_SIZE;
const rounds = Number(process.env.OVERLAY_KILLS ?? 6);

describe.skipIf(need.missing)(need.title('a process that holds overlays'), () => {
  const seed = runSeed();
  it(`killed while it writes, it leaves what was flushed and a prefix of the rest (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    const directory = join(tempDir, 'killed');
    const base = () => new MemoryDevice(Buffer.alloc(SIZE, CHILD_BASE_BYTE));
    let content = Buffer.alloc(SIZE, CHILD_BASE_BYTE);
    for (let round = 0; round < rounds; round++) {
      const steps: ChildStep[] = Array.from({ length: 3000 }, (_, index) => {
        const length = 1 + random.below(20_000);
        return { offset: random.below(SIZE - length), length, byte: (index % 250) + 1 };
      });
      const child = startOverlayChild(directory, SIZE);
      expect(await child.line('open')).toBe('open ');
      child.process.stdin.write(steps.map((step) => `${JSON.stringify(step)}\n`).join(''));
      await child.line('synced');
      await new Promise((resolve) => setTimeout(resolve, random.below(150)));
      child.process.kill('SIGKILL');
      await child.exited;
      const synced = child.lines.filter((line) => line.startsWith('synced'));
      const flushed = Number(synced.at(-1)!.split(' ')[1]) + 1;

      const overlays = await DirectoryOverlays.open(directory);
      const device = await overlays.openDevice('one', base(), childIdentity);
      expect(device.readOnlyReason).toBe(undefined);
      const got = Buffer.alloc(SIZE);
      await device.read(0, got);
      await overlays.close();
      const state = Buffer.from(content);
      let found = -1;
      for (let index = 0; index <= steps.length && found < 0; index++) {
        if (index >= flushed && state.equals(got)) found = index;
        const step = steps[index];
        if (step !== undefined) state.fill(step.byte, step.offset, step.offset + step.length);
      }
      expect(found, `round ${round}, ${flushed} flushed`).toBeGreaterThanOrEqual(flushed);
      content = Buffer.from(got);
    }
  });

  it('keeps the directory to itself until it ends, however it ends', async () => {
    const directory = join(tempDir, 'locked');
    const first = startOverlayChild(directory, SIZE);
    await first.line('open');
    const second = startOverlayChild(directory, SIZE);
    expect(await second.exited).toBe(64);
    const refusal = second.lines.join('');
    expect(refusal).toContain(directory);
    expect(refusal).toContain(`process ${first.process.pid}`);
    await expect(DirectoryOverlays.open(directory)).rejects.toMatchObject({ code: 'USER', exitCode: 64 });

    first.process.kill('SIGKILL');
    await first.exited;
    const third = startOverlayChild(directory, SIZE);
    await third.line('open');
    third.process.stdin.end();
    await third.line('closed');
    expect(await third.exited).toBe(0);
    const overlays = await DirectoryOverlays.open(directory);
    await overlays.close();
  });

  it('shows its files to nobody else', async () => {
    const directory = join(tempDir, 'modes');
    const overlays = await DirectoryOverlays.open(directory);
    const device = await overlays.openDevice('one', new MemoryDevice(SIZE), childIdentity);
    await device.write(0, Buffer.alloc(10, 1), { fua: true });
    await overlays.close();
    const mode = (path: string) => statSync(join(directory, path)).mode & 0o7777;
    expect(mode('')).toBe(0o700);
    expect(mode('one')).toBe(0o700);
    for (const file of ['lock', 'one/overlay.json', 'one/closed.json', 'one/log-0000000000000001']) {
      expect(mode(file), file).toBe(0o600);
    }
  });
});
