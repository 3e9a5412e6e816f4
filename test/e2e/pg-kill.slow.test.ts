/** Whatever ends `pg` and `attach`, and whenever: nothing is left. KLOSET_NBD_RUNS kills of each, 100 unless given. */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportUri, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { mountNeeds } from '../support/mount.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';
import { type Killed, leftOnMachine, type Stages, startAndKill } from '../support/pg-kill.ts';
import { type Sessions, sessionsIn } from '../support/pg-session.ts';
import { postgresNeeds } from '../support/postgres.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires(...mountNeeds, ...postgresNeeds, 'unshare', 'setpriv');
const RUNS = Number(process.env.KLOSET_NBD_RUNS ?? 100);
const pgStages = {
  'at once': () => true,
  examined: (said: string) => said.includes('has a data directory at'),
  attached: (said: string) => said.includes('Attached by'),
  prepared: (said: string) => said.includes('Not used:'),
  'COMMAND runs': (said: string) => said.includes('COMMAND runs'),
} satisfies Stages;
const SIGNAL_STATUS = { SIGTERM: 143, SIGINT: 130 } as Record<string, number>;

describe.skipIf(need.missing)(need.title('what is left when it is killed'), () => {
  const seed = runSeed();

  test(`nothing of pg, ${RUNS} times (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    const sessions = sessionsIn(cleanup, { TMPDIR: temporaryFolder(cleanup) });
    const outcomes = new Map<string, number>();
    for (let run = 0; run < RUNS; run++) {
      const words = ['pg', '--store', albumStore, '--', 'sh', '-c', 'echo COMMAND runs >&2; exec sleep 1000'];
      const killed = await startAndKill(sessions, { words, random, stages: pgStages });
      await nothingIsLeft(sessions, killed);
      count(outcomes, killed);
    }
    console.log(`pg: ${tell(outcomes)}`);
  });

  test(`nothing of attach, ${RUNS} times (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    const server = await startServer(cleanup, ['--store', albumStore]);
    const uri = exportUri(server.uris[0]!, 'tag:after');
    const sessions = sessionsIn(cleanup);
    const mountPoint = join(temporaryFolder(cleanup), 'mnt');
    mkdirSync(mountPoint);
    const outcomes = new Map<string, number>();
    for (let run = 0; run < RUNS; run++) {
      const stages = {
        'at once': () => true,
        'session made': () => sessions.leftOver().length > 0,
        mounted: () => readdirSync(mountPoint).length > 0,
      };
      const killed = await startAndKill(sessions, { words: ['attach', uri, mountPoint], random, stages });
      if (await isAttached(sessions, killed)) {
        expect(await sessions.run('detach', mountPoint)).toMatchObject({ exitCode: 0, stderr: '' });
      }
      await nothingIsLeft(sessions, killed);
      expect(readdirSync(mountPoint), JSON.stringify(killed)).toEqual([]);
      count(outcomes, killed);
    }
    console.log(`attach: ${tell(outcomes)}`);
  });
});

/** It has ended in order, or was killed when it had nothing left to do: the disk is attached then, and status says so. */
async function isAttached(sessions: Sessions, { ended }: Killed): Promise<boolean> {
  const [session] = JSON.parse((await sessions.run('status', '--json')).stdout) as { alive: boolean }[];
  return ended === 0 || (typeof ended === 'string' && session?.alive === true);
}

async function nothingIsLeft(sessions: Sessions, killed: Killed): Promise<void> {
  const { signal, ended, stderr } = killed;
  if (ended === 'SIGKILL') await sessions.run('cleanup');
  const about = JSON.stringify(killed);
  expect(sessions.leftOver(), about).toEqual([]);
  await expect.poll(() => leftOnMachine(sessions.directory), { message: about, timeout: 30_000 }).toEqual([]);
  // Before anything is up a signal ends it at once, afterwards in order: with a word where COMMAND has not begun.
  if (ended !== SIGNAL_STATUS[signal] || stderr.includes('COMMAND runs')) return;
  expect(stderr, about).toMatch(/^kloset-nbd: Ended by SIG(TERM|INT)\.\n/m);
}

function count(outcomes: Map<string, number>, { signal, stage, ended }: Killed): void {
  const what = `${signal} ${stage}: ${ended}`;
  outcomes.set(what, (outcomes.get(what) ?? 0) + 1);
}

function tell(outcomes: ReadonlyMap<string, number>): string {
  return [...outcomes].map(([what, times]) => `${what} ${times}`).join(', ');
}
