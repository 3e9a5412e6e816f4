import { describe, expect, it } from 'vitest';
import type { Crash } from '../support/overlay-crash-fs.ts';
import { judge, momentAt, runWorkload } from '../support/overlay-crash-run.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';

/** OVERLAY_CUTS: how many crashes to look at, in thousands. */
const runs = Number(process.env.OVERLAY_CUTS ?? 2);

describe('after a crash, an overlay is the state of a prefix of the writes that has all flushed ones', () => {
  for (let round = 0; round < runs; round++) {
    const seed = runSeed() * 1000 + round;
    const encrypted = round % 2 === 1;
    it(`whatever was left of ${encrypted ? 'an encrypted' : 'a plain'} one (seed ${seed})`, {
      timeout: 600_000,
    }, async () => {
      const random = seededRandom(seed);
      const run = await runWorkload(random, 120, { encrypted });
      const { operations } = run.fileSystem;
      const failures: string[] = [];
      let cuts = 0;
      const cut = async (count: number, crash: Crash) => {
        cuts++;
        const image = run.fileSystem.crash(count, crash);
        const problem = await judge(run, image, momentAt(run, count)).catch((error: unknown) => String(error));
        if (problem !== undefined) failures.push(`${crash.mode} at ${count} (${JSON.stringify(crash)}): ${problem}`);
      };
      for (let count = 0; count <= operations.length; count++) {
        await cut(count, { mode: 'kill' });
        await cut(count, { mode: 'random', random: seededRandom(seed + count) });
        if (count % 3 === 0) await cut(count, { mode: 'drop' });
        if (count % 3 === 1) await cut(count, { mode: 'sizes' });
        const last = operations[count - 1];
        if (last?.kind !== 'write') continue;
        const steps = Math.ceil(last.bytes.length / 512);
        for (let sector = random.below(4); sector < steps; sector += 1 + random.below(8)) {
          await cut(count, { mode: 'kill', tornAt: sector * 512 });
        }
      }
      expect(failures.slice(0, 5), `${failures.length} of ${cuts} crashes`).toEqual([]);
      console.log('cuts', cuts);
      expect(cuts).toBeGreaterThan(1000);
    });
  }
});
