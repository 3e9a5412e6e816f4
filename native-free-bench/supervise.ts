/**
 * What `--supervise` costs: the built command line, plain and supervised in turn, on the album of the fixtures with a
 * directory overlay. The blocks are warm after the first round of a server.
 *
 *   npx tsx native-free-bench/supervise.ts [--seconds 5] [--rounds 3]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compare, describeMachine, readWorkloads, root, startKlosetNbd } from './fio.ts';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '5' }, rounds: { type: 'string', default: '3' } },
});
const folder = mkdtempSync(join(os.tmpdir(), 'kloset-nbd-bench-'));
const start = (name: string, ...options: string[]) =>
  startKlosetNbd(join(folder, name), [
    ...['latest', '--store', join(root, 'fixtures/stores/album')],
    ...['--overlay', join(folder, `${name}-overlay`), ...options],
  ]);

console.log(describeMachine());
console.log(`${values.rounds} rounds of ${values.seconds} s each, medians; 32 MiB of the disk\n`);
const servers = { plain: await start('plain'), supervised: await start('supervised', '--supervise') };
try {
  compare(servers, {
    workloads: [
      ...readWorkloads,
      { name: '4 KiB random writes, depth 16', blockSize: '4k', pattern: 'randwrite', depth: 16 },
    ],
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    sizeMiB: 32,
    against: 'plain',
  });
} finally {
  for (const server of Object.values(servers)) await server.stop();
  rmSync(folder, { recursive: true });
}
