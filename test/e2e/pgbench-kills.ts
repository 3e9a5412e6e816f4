import { describe, expect, test } from 'vitest';
import { cleanupAfterEach } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';
import { killUnderPgbench } from '../support/pgbench-kill.ts';
import { postgresNeeds } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

/** The test of a server that is killed under pgbench `rounds` times in a row. */
export function describeKillsUnderPgbench(rounds: number): void {
  const cleanup = cleanupAfterEach();
  const need = requires(...mountNeeds, ...postgresNeeds, 'flock');
  describe.skipIf(need.missing)(need.title('a server killed under pgbench'), () => {
    const seed = runSeed();
    test(`has every commit that was acknowledged, ${rounds} times in a row (seed ${seed})`, async () => {
      const found = await killUnderPgbench(cleanup, { random: seededRandom(seed), rounds });
      console.log(`kills: ${rounds}; acknowledged and found:`, found);
      expect(found.ledgerEntries).toBeGreaterThan(rounds);
    });
  });
}
