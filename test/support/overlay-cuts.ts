/** Crashes of one workload: at every operation, inside every write, with what was not synced lost, reordered or torn. */
import type { Crash } from './overlay-crash-fs.ts';
import { judge, momentAt, runWorkload } from './overlay-crash-run.ts';
import { seededRandom } from './overlay-random.ts';

const SECTOR_BYTES = 512;

export interface Cuts {
  readonly count: number;
  /** One line for each crash after which the promise was broken. */
  readonly failures: readonly string[];
}

/**
 * Runs `steps` random steps, then looks at what a crash leaves after each operation of the file system. `everySector`:
 * each write is torn at every 512 bytes; else at some.
 */
export async function cutEverywhere(
  seed: number,
  { steps, encrypted, everySector }: { steps: number; encrypted: boolean; everySector: boolean },
): Promise<Cuts> {
  const random = seededRandom(seed);
  const run = await runWorkload(random, steps, { encrypted });
  const { operations } = run.fileSystem;
  const failures: string[] = [];
  let done = 0;
  const cut = async (count: number, crash: Crash) => {
    done++;
    const image = run.fileSystem.crash(count, crash);
    const problem = await judge(run, image, momentAt(run, count)).catch((error: unknown) => String(error));
    if (problem !== undefined) failures.push(`${crash.mode} at ${count} (${JSON.stringify(crash)}): ${problem}`);
  };
  for (let count = 0; count <= operations.length; count++) {
    await cut(count, { mode: 'kill' });
    await cut(count, { mode: 'random', random: seededRandom(seed + count) });
    if (everySector || count % 3 === 0) await cut(count, { mode: 'drop' });
    if (everySector || count % 3 === 1) await cut(count, { mode: 'sizes' });
    const last = operations[count - 1];
    if (last?.kind !== 'write') continue;
    const sectors = Math.ceil(last.bytes.length / SECTOR_BYTES);
    const stride = () => (everySector ? 1 : 1 + random.below(8));
    for (let sector = everySector ? 0 : random.below(4); sector < sectors; sector += stride()) {
      await cut(count, { mode: 'kill', tornAt: sector * SECTOR_BYTES });
    }
  }
  return { count: done, failures };
}
