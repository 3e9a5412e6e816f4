/**
 * Warm reads through the built command line against `nbdkit memory` that holds the same bytes, and against the least a
 * Node process can do (nbd-floor.ts). One connection over a Unix socket; the servers take turns within every round.
 *
 *   npm run bench:nbd -- [--seconds 5] [--rounds 5] [--store fixtures/stores/album] [--size 32]   (MiB from the front)
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  type BenchServer,
  compare,
  describeMachine,
  readWorkloads,
  root,
  spawnNode,
  started,
  startKlosetNbd,
  stop,
} from './fio.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '5' },
    store: { type: 'string', default: join(root, 'fixtures/stores/album') },
    size: { type: 'string', default: '32' },
  },
});
const sizeMiB = Number(values.size);
const folder = mkdtempSync(join(os.tmpdir(), 'kloset-nbd-bench-'));

async function startNbdkit(): Promise<BenchServer> {
  const path = join(folder, 'nbdkit');
  const child = spawn('nbdkit', ['-f', '-U', path, 'memory', `${sizeMiB}M`], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  while (!existsSync(path)) await sleep(10);
  return { uri: `nbd+unix:///?socket=${path}`, stop: () => stop(child) };
}

/** The front of the disk, read through `from` into `to`: it warms the one and fills the other. */
function fill(from: string, to: string): void {
  const file = join(folder, 'front');
  execFileSync('qemu-img', ['dd', '-f', 'raw', '-O', 'raw', 'bs=1M', `count=${sizeMiB}`, `if=${from}`, `of=${file}`]);
  execFileSync('nbdcopy', [file, to]);
}

console.log(describeMachine());
console.log(execFileSync('nbdkit', ['--version'], { encoding: 'utf8' }).trim());
console.log(
  `${values.rounds} rounds of ${values.seconds} s each, medians; ${sizeMiB} MiB from the front of the disk\n`,
);
const servers = {
  'nbdkit memory': await startNbdkit(),
  'kloset-nbd': await startKlosetNbd(join(folder, 'kloset'), ['latest', '--store', values.store]),
  'Node, nothing but I/O': await started(
    spawnNode([
      ...['--import', 'tsx', fileURLToPath(new URL('nbd-floor.ts', import.meta.url))],
      ...[join(folder, 'floor'), String(sizeMiB * 1024 * 1024)],
    ]),
  ),
};
try {
  fill(servers['kloset-nbd'].uri, servers['nbdkit memory'].uri);
  compare(servers, {
    workloads: readWorkloads,
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    sizeMiB,
    against: 'nbdkit memory',
  });
} finally {
  for (const server of Object.values(servers)) await server.stop();
  rmSync(folder, { recursive: true });
}
